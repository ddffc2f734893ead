"""Classification: one of C classes per sample, from logits or probabilities (samples, C), C ≥ 2.

Targets: class numbers (samples,), or one-hot rows (samples, C). Measures: accuracy, top5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, PerSample, Score, Targets
from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.numbers import finite_rows, mean_score, only, require_finite, require_targets, show

VARIED = 16  # samples from which on decisions that never differ are refused


def accuracy(outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> PerSample:
    """1 where the largest output is the label's, else 0; shape (samples,). A tie goes to the lower class."""
    return np.asarray(_rows(outputs).argmax(axis=1) == labels, dtype=np.float64)


def top5(outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> PerSample:
    """1 where fewer than five outputs exceed the label's, else 0; shape (samples,)."""
    values = _rows(outputs)
    labelled = np.take_along_axis(values, labels[:, None], axis=1)
    return np.asarray((values > labelled).sum(axis=1) < 5, dtype=np.float64)


def is_one_hot(targets: Any) -> bool:
    """Whether rows hold one 1 each and zeros beside it."""
    if not isinstance(targets, np.ndarray) or targets.ndim != 2 or targets.shape[1] < 2:
        return False
    if targets.dtype.kind not in "biuf" or not np.isin(targets, (0, 1)).all():
        return False
    return bool((targets.sum(axis=1) == 1).all())


@dataclass(frozen=True)
class Classification(CategoricalTask):
    """One class per sample."""

    name: ClassVar[str] = "classification"
    measures: ClassVar[dict[str, Measure]] = {"accuracy": Measure("accuracy"), "top5": Measure("top5")}
    agreement_measure: ClassVar[Measure] = Measure("same class as the dense model")

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse a head of one column, labels that are not class numbers of the head, and a single class."""
        out = only(outputs, self.name)
        if out.ndim < 2 or out.shape[1] < 2 or int(np.prod(out.shape[2:])) != 1:
            raise DataError(
                f"task classification takes outputs (samples, classes), the model's are {show(out)}",
                tip="one column is --task binary or regression; positions are segmentation or tokens",
            )
        if targets is None:
            require_decisions_differ(self.decide(out), source, varied)
            return
        require_targets(targets, self.name, source)
        labels = as_labels(targets, out.shape[1], source)
        check_range(labels, out.shape[1], source)
        if not varied:
            return
        require_two_classes(labels, source)
        needed = int(labels.max()) + 1
        if len(labels) < needed:
            raise DataError(
                f"{source}: {len(labels)} samples for {needed} classes",
                tip="give at least one sample per class; a few dozen per class score well",
            )

    def numbers(self, targets: Targets, shape: tuple[int, ...]) -> Any:
        """Class numbers, also of one-hot rows."""
        if getattr(targets, "ndim", 1) == 2 and targets.shape[1] == shape[1]:
            return targets.argmax(1)
        return targets if hasattr(targets, "reshape") else np.asarray(targets)

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """Accuracy or top-5; outputs with NaN or infinity count as wrong."""
        out = only(outputs, self.name)
        labels = np.asarray(self.numbers(targets, out.shape)).reshape(-1).astype(np.int64)
        function = top5 if self.measure.name == "top5" else accuracy
        return mean_score(function(out.reshape(len(out), -1), labels) * finite_rows(out))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """1 where both decide for the same class."""
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        same = self.decide(ours).reshape(-1) == self.decide(theirs).reshape(-1)
        return mean_score(same.astype(np.float64) * finite_rows(ours))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The labels, else the model's decisions."""
        out = only(outputs, self.name)
        decisions = self.decide(out) if targets is None else np.asarray(self.numbers(targets, out.shape))
        return decisions.reshape(-1).astype(np.int64)


def as_labels(targets: Targets, classes: int, source: str) -> npt.NDArray[np.int64]:
    """Class numbers as int64 (samples,), from integers, whole floats or one-hot rows.

    Raises:
        DataError: another shape, or values that are not whole; the first sample is named.
    """
    values = np.asarray(targets) if isinstance(targets, np.ndarray | list) else None
    if values is not None and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values is not None and values.ndim == 2 and values.shape[1] == classes and is_one_hot(values):
        return np.asarray(values.argmax(axis=1), dtype=np.int64)
    if values is None or values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(
            f"{source}: classification takes one class number per sample, or one-hot rows of {classes};"
            f" targets are {show(targets)}",
            tip="rows with several ones are --task multilabel, masks are segmentation",
        )
    require_finite(values, source)
    off = np.flatnonzero(values != np.floor(values)) if values.dtype.kind == "f" else np.zeros(0, int)
    if off.size:
        raise DataError(
            f"{source}: sample {off[0]} has label {values[off[0]]}, which is not a class number",
            tip="labels are whole numbers from 0; targets with fractions are --task regression",
        )
    return values.astype(np.int64)


def check_range(labels: npt.NDArray[np.int64], classes: int, source: str) -> None:
    """Refuse labels outside 0..classes-1; the first sample is named."""
    off = np.flatnonzero((labels < 0) | (labels >= classes))
    if off.size:
        raise DataError(
            f"{source}: sample {off[0]} has label {labels[off[0]]}, but the model has {classes} outputs"
            f" ({off.size} of {len(labels)} labels are out of range)",
            tip=f"labels must lie in 0..{classes - 1}",
        )


def require_two_classes(labels: npt.NDArray[np.int64], source: str) -> None:
    """Refuse targets that are all the same."""
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"{source}: all {len(labels)} samples have label {labels[0]}; scoring needs at least two classes",
            tip="give data of every class",
        )


def require_decisions_differ(decided: npt.NDArray[np.int64], source: str, varied: bool) -> None:
    """Without targets: refuse a dense model that decides the same for every sample."""
    if varied and len(decided) >= VARIED and len(np.unique(decided)) == 1:
        raise DataError(
            f"{source}: the dense model decides the same on all {len(decided)} samples; agreement with it"
            " says nothing",
            tip="give data of every class, with the preprocessing that the model was trained with",
        )


def _rows(outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if outputs.ndim != 2:
        raise DataError(
            f"outputs have shape {outputs.shape}; accuracy needs (samples, classes)",
            tip="give --metric package.module:function for this model",
        )
    return outputs
