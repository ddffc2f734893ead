"""What a run was asked, and how it reports while it runs."""

from __future__ import annotations

import contextlib
import difflib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import OptionError
from edgeprune.session.budget import Budget, option

WORDS = {
    "heads": ("whole", "width"),
    "groups": ("whole", "position"),
    "allocation": ("sensitivity", "uniform"),
    "objective": ("latency", "macs"),
    "estimate": ("roofline", "instructions"),
    "int8": ("auto", "on", "off"),
}
LEAST = {
    "profile_seconds": 0.1, "rounds": 1, "epochs": 0, "batch_size": 1, "features": 0.0, "ib_beta": 0.0,
    "calibration": 1, "align": 1, "threads": 1, "bench_seconds": 0.1, "front": 0, "opset": 7,
    "fixed_batch": 1, "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Settings of one `compress`; the defaults are the command line's.

    Raises:
        OptionError: one is out of its range, or none of its words.
    """

    budget: Budget = field(default_factory=lambda: Budget(max_drop=1.0))
    criterion: str = "ib-gauss"
    theta: float = 0.0
    allocation: str = "sensitivity"
    objective: str = "latency"  # what the search with --max-drop alone brings down: latency or macs
    profile: str | None = None  # a written latency profile
    estimate: str = "roofline"  # of a target that is not at hand: roofline or instructions
    profile_seconds: float = 20.0
    rounds: int = 2
    epochs: int = 3
    learning_rate: float = 2e-3
    batch_size: int = 128
    distil: float = 0.7
    features: float = 0.0  # weight of the dense network's features in the loss
    ib_beta: float = 0.0  # weight of the class-conditional entropy of noisy activations
    seed: int = 0
    calibration: int = 1024
    validation: float = 0.15
    metrics: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    heads: str = "whole"  # of attention: whole, or the same width of every head
    groups: str = "whole"  # of grouped convolutions: whole, or the same position of every group
    prune_inputs: bool = False  # features of the inputs may go; the file begins with one Gather
    align: int | None = None  # None: from the measured staircase
    target: str = "host"
    threads: int | None = None  # when timing; None: the profile's, the device's descriptor's, or 1
    bench_seconds: float = 5.0
    front: int = 6  # files beside the shipped one: rounds that were tried, filled up with plans
    int8: str = "auto"  # auto, on or off
    why: bool = False  # say where the time goes even where the file is clearly faster
    opset: int = 18
    fixed_batch: int | None = None

    def __post_init__(self) -> None:
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                near = difflib.get_close_matches(str(getattr(self, name)), words, 1)
                tip = f"did you mean {near[0]}?" if near else ""
                raise OptionError(f"{_said(self, name)}: not one of {', '.join(words)}", tip=tip)
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not (_number(value) and least <= value < math.inf):
                raise OptionError(f"{_said(self, name)}: a number of at least {least:g} is expected")
        if not (_number(self.learning_rate) and 0 < self.learning_rate < math.inf):
            raise OptionError(f"--lr {self.learning_rate}: a number above 0 is expected")
        if not (_number(self.distil) and 0 <= self.distil <= 1):
            raise OptionError(f"--distil {self.distil}: a number from 0 to 1 is expected")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(options: Options, name: str) -> str:
    return f"{option(name)} {getattr(options, name)}"


class Progress:
    """Told what runs and how far it is; this one says nothing. The command line prints."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """A part of the stage is done."""

    def note(self, text: str) -> None:
        """Something that a person should see."""


class Clock:
    """Seconds and peak memory of each stage, in order."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.stages: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.progress.stage(name)
        _reset_peak()
        began = time.monotonic()
        yield
        self.stages.append(
            {"name": name, "seconds": round(time.monotonic() - began, 3), "peak_mb": _peak_mb()}
        )


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float | None:
    """High-water mark of resident memory since the reset, MB (10⁶ bytes); None off Linux."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None
