"""What users bring: a metric of their own, or a task of their own.

    def exact(outputs, targets): return (outputs.argmax(1) == targets)        # --metric module:exact

A metric is called with the outputs (an array, or a tuple where the model has several) and the targets. It
gives one number, or one per sample. Numbers are shares from 0 to 1, larger is better; a function with the
attribute `kind = "error"` gives errors, 0 or more, smaller is better.

A task is any object with the attributes and methods of `edgeprune.tasks.base.Task`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets, Task, Tensors
from edgeprune.tasks.numbers import mean_score

if TYPE_CHECKING:
    import torch

METHODS = ("check", "loss", "distil", "slopes", "divergence", "score", "agreement", "classes")
ATTRIBUTES = ("name", "measure", "agreement_measure")


@dataclass(frozen=True, eq=False)
class MeasuredBy:
    """A task whose score is a user's function; everything else is the task's.

    option: how the user named the function, for messages.
    """

    task: Task
    function: Callable[..., Any]
    option: str

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def measure(self) -> Measure:
        """The function's name, and whether it gives shares or errors."""
        kind = getattr(self.function, "kind", "share")
        if kind not in ("share", "error"):
            raise DataError(f"--metric {self.option}: its kind is {kind!r}", tip="use 'share' or 'error'")
        return Measure(self.option, "error" if kind == "error" else "share")

    @property
    def agreement_measure(self) -> Measure:
        """The task's."""
        return self.task.agreement_measure

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same with the task fitted."""
        fit = getattr(self.task, "fitted", None)
        return self if fit is None else replace(self, task=fit(outputs, targets))

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """The task's check."""
        self.task.check(outputs, targets, source, varied=varied)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """The task's loss."""
        return self.task.loss(outputs, targets)

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """The task's distance."""
        return self.task.distil(student, teacher)

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """The task's divergence."""
        return self.task.divergence(outputs, dense)

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """The task's slopes."""
        return self.task.slopes(outputs, targets, generator)

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """The task's agreement."""
        return self.task.agreement(outputs, dense)

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The task's classes."""
        return self.task.classes(outputs, targets)

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """What the function gives.

        Raises:
            DataError: the function raised, or gave nothing, NaN, another shape, or a share outside 0..1.
        """
        size = len(outputs[0])
        values = self._call(outputs, targets)
        if values.shape == ():
            return Score(float(values), None, lambda at: float(self._call(*_take(outputs, targets, at))))
        if values.shape != (size,):
            raise DataError(
                f"--metric {self.option}: returned shape {values.shape} for {size} samples",
                tip="return one number, or one per sample",
            )
        return mean_score(values)

    def _call(self, outputs: Outputs, targets: Targets) -> Any:
        first: Any = outputs[0] if len(outputs) == 1 else outputs
        try:
            result = self.function(first, targets)
        except DataError:
            raise
        except Exception as exc:
            raise DataError(f"--metric {self.option}: raised {type(exc).__name__}: {exc}") from exc
        if result is None:
            raise DataError(
                f"--metric {self.option}: returned nothing", tip="return one number, or one per sample"
            )
        try:
            values = np.asarray(result.detach().cpu() if hasattr(result, "detach") else result, np.float64)
        except (TypeError, ValueError) as exc:
            raise DataError(
                f"--metric {self.option}: returned a {type(result).__name__}, no numbers"
            ) from exc
        if not np.isfinite(values).all():
            raise DataError(f"--metric {self.option}: returned NaN or infinity")
        kind, worst = self.measure.kind, float(values.min(initial=0.0))
        if worst < 0 or (kind == "share" and float(values.max(initial=0.0)) > 1):
            raise DataError(
                f"--metric {self.option}: returned {worst if worst < 0 else float(values.max()):.4g}; a"
                f" metric is {'a share from 0 to 1' if kind == 'share' else 'an error of 0 or more'}",
                tip="scale it; where smaller is better, set kind = 'error' on the function",
            )
        return values


def as_task(value: Any, option: str) -> Task:
    """An object that is a task, or a class of one that takes no arguments.

    Raises:
        DataError: an attribute or method of the contract is missing; it is named.
    """
    if isinstance(value, type) or (callable(value) and not hasattr(value, "loss")):
        try:
            value = value()
        except DataError:
            raise
        except Exception as exc:
            raise DataError(f"--task {option}: raised {type(exc).__name__}: {exc}") from exc
    missing = [name for name in (*ATTRIBUTES, *METHODS) if not hasattr(value, name)]
    if missing:
        raise DataError(
            f"--task {option}: a {type(value).__name__} without {', '.join(missing)} is no task",
            tip="see edgeprune/tasks/base.py for the contract, or derive from a task that is close",
        )
    for name in ("measure", "agreement_measure"):
        if not isinstance(getattr(value, name), Measure):
            raise DataError(f"--task {option}: its {name} is no edgeprune.tasks.base.Measure")
    task: Task = value
    return task


def _take(outputs: Outputs, targets: Targets, at: Any) -> tuple[Outputs, Targets]:
    """Some samples of outputs and targets."""
    return tuple(out[at] for out in outputs), _some(targets, at)


def _some(targets: Targets, at: Any) -> Targets:
    if isinstance(targets, dict):
        return {key: _some(part, at) for key, part in targets.items()}
    return targets[at] if isinstance(targets, np.ndarray) else [targets[int(i)] for i in at]
