"""The settings of one run."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field, replace
from typing import Any

from edgeprune.errors import OptionError
from edgeprune.session.budget import Budget, option

CHOICES = {
    "heads": ("whole", "width"),
    "groups": ("whole", "position"),
    "allocation": ("sensitivity", "uniform"),
    "objective": ("latency", "macs"),
    "estimate": ("roofline", "instructions"),
    "int8": ("auto", "on", "off"),
}
MINIMUM = {
    "profile_seconds": 0.1, "rounds": 1, "epochs": 0, "batch_size": 1, "features": 0.0, "ib_beta": 0.0,
    "calibration": 1, "align": 1, "threads": 1, "bench_seconds": 0.1, "front": 0, "opset": 7,
    "fixed_batch": 1, "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Settings of one `compress`; the defaults are the command line's.

    Raises:
        OptionError: a value outside its range or its choices.
    """

    budget: Budget = field(default_factory=lambda: Budget(max_drop=1.0))
    task: Any = None  # a name or a task object: what the outputs mean; None: inferred
    criterion: str = "ib-gauss"
    theta: float = 0.0
    allocation: str = "sensitivity"
    objective: str = "latency"  # the cost that the search minimises when only --max-drop is given
    profile: str | None = None  # path of a latency profile
    estimate: str = "roofline"  # latency model for a target that is not connected
    profile_seconds: float = 20.0
    rounds: int = 2
    epochs: int = 3
    learning_rate: float = 2e-3
    batch_size: int = 128
    distil: float = 0.7
    features: float = 0.0  # weight of the dense network's features in the loss
    ib_beta: float = 0.0  # weight of the class-conditional entropy of noisy activations
    accelerator: str = "auto"  # where data are computed; surgery, export and timing stay on the CPU
    seed: int = 0
    calibration: int = 1024
    validation: float = 0.15
    metrics: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    heads: str = "whole"  # attention: remove whole heads, or the same width of every head
    groups: str = "whole"  # grouped convolutions: remove whole groups, or the same position of every group
    prune_inputs: bool = False  # features of the inputs may go; the file begins with one Gather
    align: int | None = None  # None: from the measured staircase
    target: str = "host"
    threads: int | None = None  # for timing; None: the profile's, the board's descriptor's, or 1
    bench_seconds: float = 5.0
    front: int = 6  # files beside the shipped one: rounds that were tried, completed by further plans
    int8: str = "auto"
    why: bool = False  # report where the time goes even if the file is clearly faster
    opset: int = 18
    fixed_batch: int | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                near = difflib.get_close_matches(str(getattr(self, name)), choices, 1)
                tip = f"did you mean {near[0]}?" if near else ""
                raise OptionError(f"{self._shown(name)}: not one of {', '.join(choices)}", tip=tip)
        for name, minimum in MINIMUM.items():
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and minimum <= value < math.inf):
                raise OptionError(f"{self._shown(name)}: a number of at least {minimum:g} is expected")
        if not (_is_number(self.learning_rate) and 0 < self.learning_rate < math.inf):
            raise OptionError(f"--lr {self.learning_rate}: a number above 0 is expected")
        if not (_is_number(self.distil) and 0 <= self.distil <= 1):
            raise OptionError(f"--distil {self.distil}: a number from 0 to 1 is expected")

    def _shown(self, name: str) -> str:
        return f"{option(name)} {getattr(self, name)}"


def with_criterion(options: Options, criterion: str) -> Options:
    """The same settings with another criterion."""
    return replace(options, criterion=criterion)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
