"""Which version of the code measured a row: a hash of the files that decide it, and the commit.

A row is stale once a deciding file has changed. Staleness is read off the records: nothing is measured for
it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.recording import ROOT, content_hash, sources

ROOMS = ("frontend", "graph", "coupling", "search", "surgery", "export")  # from the trace to the checked file
BENCH = ("measure", "models", "parts", "transformers_models", "ultralytics_models")


def code_hash() -> str:
    """Of every file that decides a row."""
    return content_hash(deciding())


def deciding() -> list[Path]:
    """The files that decide a row: from the trace to the checked file, and how a row is measured."""
    product = sources(ROOT / "edgeprune" / room for room in ROOMS)
    return sorted([*product, *(ROOT / "benchmarks" / "coverage" / f"{name}.py" for name in BENCH)])


def commit() -> str:
    """The commit, with a plus where a deciding file differs from it; empty outside a repository."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *map(str, deciding())])
    return head.stdout.strip() + "+" * (changed.returncode != 0) if head.returncode == 0 else ""
