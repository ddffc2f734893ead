"""What a compressed model lost against the dense one on the same samples, by the task's own measure.

    loss = compare(task, outputs, dense, targets, level=0.8)
    loss.high        the upper end of the loss that decides, in loss.unit

With targets the task's measure of both models is compared; without them the agreement of the outputs
with the dense model's. A model with several outputs has one comparison per output, and the one with the
largest upper end decides: a budget holds only where it holds for every output.
Elsewhere: intervals (bounds), what outputs mean (the tasks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.records import Interval
from edgeprune.tasks.base import Measure, Outputs, Score, Targets, Task, parts_of
from edgeprune.tasks.bounds import paired_drop, relative_rise, set_drop, share_interval

Groups = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class PartLoss:
    """One measure of both models. `drop` is in `unit`: points of a share, or percent of the dense error."""

    measure: str
    unit: Literal["points", "percent"]
    dense: float
    value: float
    drop: Interval


@dataclass(frozen=True)
class Loss:
    """The comparison of every output; the properties are those of the part that decides."""

    parts: tuple[PartLoss, ...]

    @property
    def deciding(self) -> PartLoss:
        """The part whose loss may be largest."""
        return max(self.parts, key=lambda part: part.drop.high)

    @property
    def drop(self) -> Interval:
        return self.deciding.drop

    @property
    def value(self) -> float:
        return self.drop.value

    @property
    def high(self) -> float:
        return self.drop.high

    @property
    def unit(self) -> Literal["points", "percent"]:
        return self.deciding.unit


def compare(
    task: Task,
    outputs: Outputs,
    dense: Outputs,
    targets: Targets | None,
    *,
    level: float = 0.95,
    groups: Groups = None,
) -> Loss:
    """Loss of `outputs` against the dense model's on the same samples.

    Args:
        level: two-sided coverage of the intervals; a one-sided 90% bound is `high` at level 0.8.
        groups: shape (samples,): samples of one number belong together and count as one unit.
    """
    parts = []
    for name, measure, before, after in _scores(task, outputs, dense, targets):
        drop = _drop(before, after, measure, len(outputs[0]), level, groups)
        parts.append(PartLoss(name, measure.unit, before.value, after.value, drop))
    return Loss(tuple(parts))


def measures_of(
    task: Task, outputs: Outputs, dense: Outputs, targets: Targets | None
) -> list[tuple[str, Score]]:
    """The measure of every output, by name."""
    return [(name, after) for name, _, _, after in _scores(task, outputs, dense, targets)]


def score_interval(score: Score) -> Interval:
    """A share of one model with its interval; without per-sample scores the interval has no width."""
    if score.per_sample is None or not _is_share(score.per_sample):
        return Interval(score.value, score.value, score.value)
    binary = np.isin(score.per_sample, (0, 1)).all()
    return share_interval(score.per_sample, limits=None if binary else (0.0, 1.0))


def _scores(
    task: Task, outputs: Outputs, dense: Outputs, targets: Targets | None
) -> list[tuple[str, Measure, Score, Score]]:
    """(name, measure, dense score, score) of every part of a task."""
    rows = []
    for part in parts_of(task):
        mine, reference, wanted = part.select(outputs), part.select(dense), part.targets_of(targets)
        if wanted is None:
            measure = part.task.agreement_measure
            before, after = part.task.agreement(reference, reference), part.task.agreement(mine, reference)
        else:
            measure = part.task.measure
            before, after = part.task.score(reference, wanted), part.task.score(mine, wanted)
        rows.append((f"{part.name}: {measure.name}" if part.name else measure.name, measure, before, after))
    return rows


def _drop(
    before: Score, after: Score, measure: Measure, samples: int, level: float, groups: Groups
) -> Interval:
    """The paired loss in the measure's unit, by the bound that the scores allow."""
    if before.per_sample is not None and after.per_sample is not None:
        if measure.kind == "error":
            return relative_rise(before.per_sample, after.per_sample, level=level, groups=groups)
        binary = np.isin(before.per_sample, (0, 1)).all() and np.isin(after.per_sample, (0, 1)).all()
        limits = None if binary else (0.0, 1.0)
        return paired_drop(before.per_sample, after.per_sample, level=level, groups=groups, limits=limits)
    if before.of is None or after.of is None or samples < 2:
        raise DataError(
            f"{measure.name}: gives one number for the whole set, which bounds no loss",
            tip="return one number per sample, or measure by one of the task's own",
        )
    first, second = before.of, after.of

    def lost(indices: npt.NDArray[np.int64]) -> float:
        return _loss(first(indices), second(indices), measure)

    span = 100.0 if measure.kind == "share" else None
    return set_drop(lost, samples, level=level, groups=groups, span=span)


def _loss(before: float, after: float, measure: Measure) -> float:
    """Points of a share, or percent of the dense error."""
    if measure.kind == "share":
        return 100 * (before - after)
    return 100 * (after - before) / max(abs(before), 1e-12)


def _is_share(scores: npt.NDArray[np.float64]) -> bool:
    return bool(len(scores) and scores.min() >= 0 and scores.max() <= 1)
