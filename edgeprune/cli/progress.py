"""Progress on stderr: one line that moves on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time

from edgeprune.session.progress import Progress


class Terminal(Progress):
    """Prints stages, percentages and remaining time; never to stdout."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.name = ""
        self.began = time.monotonic()
        self.shown = 0.0

    def stage(self, name: str) -> None:
        self.name, self.began, self.shown = name, time.monotonic(), 0.0
        self._print(name) if self.live else print(name, file=sys.stderr, flush=True)

    def step(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.shown < (0.2 if self.live else 30.0):
            return
        self.shown = now
        left = (now - self.began) * (total - done) / max(done, 1)
        text = f"{self.name}: {done}/{total}, {left:.0f} s left {note}".rstrip()
        self._print(text) if self.live else print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._print("", end="") if self.live else None
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the moving line."""
        if self.live:
            self._print("", end="")

    def _print(self, text: str, end: str = "") -> None:
        print(f"\r\x1b[2K{text[:110]}", end=end, file=sys.stderr, flush=True)
