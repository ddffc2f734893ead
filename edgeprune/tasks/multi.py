"""A model with several outputs: one task per output, or group of outputs, with weights.

    MultiTask((TaskPart("depth", Regression(), outputs=(0,), targets="depth"),
               TaskPart("kind", Classification(), outputs=(1,), targets="kind", weight=0.5)))

Losses, distillation and divergence are weighted sums. Reports and bounds go through `base.parts_of`, so that
each output is measured in its own unit and the worst bound counts; `score` and `agreement` here are one
number for choosing between networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, PerSample, Score, Targets, TaskPart, Tensors
from edgeprune.tasks.numbers import mean_score, set_score, show_all

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class MultiTask:
    """Several tasks of one model.

    `measure` is the weighted mean of the parts that have targets, an error counted as 1 − error / the error
    of the best constant.
    """

    name: ClassVar[str] = "multi"
    measure: ClassVar[Measure] = Measure("weighted mean over outputs")
    agreement_measure: ClassVar[Measure] = Measure("weighted mean of agreement over outputs")
    parts: tuple[TaskPart, ...] = field(default=())

    def __post_init__(self) -> None:
        used = [i for part in self.parts for i in part.outputs or ()]
        if not self.parts or len(set(used)) != len(used) or any(p.outputs is None for p in self.parts):
            raise DataError("a task of several outputs needs parts, and each output belongs to one of them")
        if any(not part.weight >= 0 for part in self.parts) or not any(p.weight > 0 for p in self.parts):
            raise DataError("weights of a task's parts are 0 or more, and one is above 0")

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """Every part fitted to its outputs."""
        parts = []
        for part in self.parts:
            fit = getattr(part.task, "fitted", None)
            task = part.task if fit is None else fit(part.select(outputs), _targets(part, targets))
            parts.append(replace(part, task=task))
        return replace(self, parts=tuple(parts))

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Every part's check; every output must belong to a part."""
        used = {i for part in self.parts for i in part.outputs or ()}
        if used != set(range(len(outputs))):
            raise DataError(
                f"the task names outputs {sorted(used)}, the model has {len(outputs)} ({show_all(outputs)})",
                tip="give each output a part; use Generic() for outputs without a measure",
            )
        for part in self.parts:
            mine = _targets(part, targets)
            part.task.check(part.select(outputs), mine, f"{source}: {part.name}", varied=varied)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Weighted sum over the parts that have targets; 0 where none has."""
        total: Any = outputs[0].sum() * 0
        for part in self.parts:
            mine = _targets(part, targets)
            if mine is not None:
                total = total + part.weight * part.task.loss(part.select(outputs), mine)
        return total

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Weighted sum over parts."""
        total: Any = 0.0
        for part in self.parts:
            total = total + part.weight * part.task.distil(part.select(student), part.select(teacher))
        return total

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """Weighted sum over parts."""
        return sum(p.weight * p.task.divergence(p.select(outputs), p.select(dense)) for p in self.parts)

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Each part's slopes at its own outputs, by its weight; drawn ones by its square root.

        Drawn slopes are squared to estimate curvature, which is linear in the weight of a loss.
        """
        drawn: list[Any] = [None] * len(outputs)
        labelled: list[Any] = [None] * len(outputs)
        for part in self.parts:
            mine = _targets(part, targets)
            first, second = part.task.slopes(part.select(outputs), mine, generator)
            for index, one, other in zip(part.outputs or (), first, second, strict=True):
                drawn[index] = one * part.weight**0.5
                labelled[index] = other * part.weight
        return tuple(drawn), tuple(drawn if targets is None else labelled)

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The weighted mean over the parts that have targets.

        Raises:
            DataError: no part has targets.
        """
        rows = []
        for part in self.parts:
            mine = _targets(part, targets)
            if mine is not None and part.weight:
                rows.append((part.weight, _as_share(part, part.select(outputs), mine)))
        if not rows:
            raise DataError("no part of the task has targets", tip="compare it with the dense model")
        return _mean(rows, len(outputs[0]))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """The weighted mean over parts."""
        rows = [
            (part.weight, part.task.agreement(part.select(outputs), part.select(dense)))
            for part in self.parts
            if part.weight
        ]
        return _mean(rows, len(outputs[0]))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """Those of the first part that has some."""
        for part in self.parts:
            classes = part.task.classes(part.select(outputs), _targets(part, targets))
            if classes is not None:
                return classes
        return None


def _targets(part: TaskPart, targets: Targets | None) -> Targets | None:
    """The part's targets; None where it has none."""
    if targets is None or part.unlabelled or part.targets is None:
        return part.targets_of(targets)
    if not isinstance(targets, Mapping) or part.targets not in targets:
        raise DataError(
            f"task of {part.name}: the data have no targets {part.targets}", tip="save them as y_NAME"
        )
    return targets[part.targets]


def _as_share(part: TaskPart, outputs: Outputs, targets: Targets) -> Score:
    """The part's score; an error as the share of the best constant's error that is saved."""
    score = part.task.score(outputs, targets)
    if part.task.measure.kind == "share":
        return score
    if not isinstance(targets, np.ndarray) or len(outputs) != 1:
        raise DataError(f"task of {part.name}: its error has no scale to be weighed with other outputs")
    values = targets.astype(np.float64).reshape(outputs[0].shape)
    middle = np.broadcast_to(np.median(values, axis=0), values.shape)
    worst = part.task.score((middle,), targets).value
    unit = worst if worst > 0 else 1.0
    if score.per_sample is not None:
        return mean_score(1.0 - score.per_sample / unit)
    of = score.of
    return Score(1.0 - score.value / unit, None, None if of is None else lambda at: 1.0 - of(at) / unit)


def _mean(rows: Sequence[tuple[float, Score]], size: int) -> Score:
    total = sum(weight for weight, _ in rows)
    if all(score.per_sample is not None for _, score in rows):
        return mean_score(np.sum([weight * _rows(score) for weight, score in rows], axis=0) / total)
    if any(score.per_sample is None and score.of is None for _, score in rows):
        return Score(sum(weight * score.value for weight, score in rows) / total)

    def of(at: Any) -> float:
        values = [s.of(at) if s.of is not None else float(_rows(s)[at].mean()) for _, s in rows]
        return sum(w * v for (w, _), v in zip(rows, values, strict=True)) / total

    return set_score(of, size)


def _rows(score: Score) -> PerSample:
    assert score.per_sample is not None
    return score.per_sample
