"""Read mutated files one after the other in this process and say what became of each, a JSON line each.

    python -m benchmarks.fuzz.worker CORPUS    takes `{"kind": …, "folder": …}` lines on stdin

An input is accepted, refused (an EdgepruneError, or a usage error of click), or it failed: any other
exception, which a user would see as a traceback. Output of the tool goes nowhere. Limits of time and memory
are the parent's (files), since a process that hangs or swaps cannot keep them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzz.kinds import KINDS, use_corpus
from benchmarks.recording import ROOT


def attempt(kind: str, folder: Path) -> dict[str, Any]:
    """Read one prepared input; gives outcome, message, place, seconds and peak of memory in MiB."""
    _reset_peak()
    began = time.monotonic()
    os.chdir(folder)
    row = {"kind": kind, **outcome(kind, folder)}
    os.chdir(folder.parent)
    return row | {"seconds": round(time.monotonic() - began, 3), "peak_mib": round(memory("VmHWM"))}


def outcome(kind: str, folder: Path) -> dict[str, Any]:
    """Run the action of a kind; what it raised, and where."""
    import click

    from edgeprune.errors import EdgepruneError

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            KINDS[kind].act(folder)
    except (EdgepruneError, click.ClickException) as error:
        return {"outcome": "refused", "what": f"{type(error).__name__}: {error}"[:300]}
    except click.Abort as abort:  # click's name for an EOFError, which a user reads as "interrupted"
        cause = abort.__cause__ or abort.__context__ or abort
        what = f"Abort after {type(cause).__name__}: {cause}"[:300]
        return {"outcome": "failed", "what": what, "where": place(cause)}
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return {"outcome": "failed", "what": f"{type(error).__name__}: {error}"[:300], "where": place(error)}
    return {"outcome": "accepted"}


def place(error: BaseException) -> str:
    """The innermost line of the package in a traceback, `file:line function`."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if "/edgeprune/" in f.filename] or list(frames)
    last = inside[-1]
    with contextlib.suppress(ValueError):
        return f"{Path(last.filename).relative_to(ROOT)}:{last.lineno} {last.name}"
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def _reset_peak() -> None:
    """Let VmHWM begin anew; without the right to, peaks are those since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Take inputs from stdin until it ends."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    use_corpus(Path(sys.argv[1]).resolve())
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # also what libraries print past Python
        os.dup2(nothing, stream)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(attempt(task["kind"], Path(task["folder"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
