"""How a run reports while it runs: stages, steps, notes; seconds and peak memory of each stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class Progress:
    """Receives what runs and how far it is. This one prints nothing; the command line has one that does."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """A part of the stage is done."""

    def note(self, text: str) -> None:
        """Something that the user should see."""


@dataclass(frozen=True)
class StageTime:
    """Wall time of one stage in seconds, and its peak resident memory in MB (10⁶ bytes; None off Linux)."""

    name: str
    seconds: float
    peak_mb: float | None


class Clock:
    """Times the stages of a run, in order."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or Progress()
        self.stages: list[StageTime] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce and time a stage."""
        self.progress.stage(name)
        _reset_peak()
        began = time.monotonic()
        yield
        self.stages.append(StageTime(name, round(time.monotonic() - began, 3), _peak_mb()))


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float | None:
    """High-water mark of resident memory since the reset."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None
