"""Binary classification with one logit (or one probability) per sample: outputs (samples,) or (samples, 1).

Targets: 0 or 1 per sample, any type. Measures: accuracy, and the area under the ROC curve as a measure of a
set. The model decides 1 where the logit is above 0 (a probability above 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets
from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.classification import require_decisions_differ, require_two_classes
from edgeprune.tasks.numbers import (
    finite_rows,
    mean_score,
    only,
    require_finite,
    require_targets,
    set_score,
    show,
)  # fmt: skip


@dataclass(frozen=True)
class Binary(CategoricalTask):
    """Yes or no per sample, from one number."""

    name: ClassVar[str] = "binary"
    measures: ClassVar[dict[str, Measure]] = {
        "accuracy": Measure("accuracy"), "auc": Measure("area under the ROC curve"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("same decision as the dense model")

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse heads of several columns, and targets other than 0 and 1."""
        out = only(outputs, self.name)
        if out.size != len(out):
            raise DataError(
                f"task binary takes one number per sample, the model's outputs are {show(out)}",
                tip="two or more columns are --task classification or multilabel",
            )
        if targets is None:
            require_decisions_differ(self.decide(out), source, varied)
            return
        require_targets(targets, self.name, source)
        values = np.asarray(targets) if isinstance(targets, np.ndarray | list) else None
        if values is None or values.size != len(values) or values.dtype.kind not in "biuf":
            raise DataError(f"{source}: binary takes one 0 or 1 per sample, targets are {show(targets)}")
        require_finite(values, source)
        values = values.reshape(-1)
        off = np.flatnonzero(~np.isin(values, (0, 1)))
        if off.size:
            raise DataError(
                f"{source}: sample {off[0]} has target {values[off[0]]}; binary takes 0 and 1",
                tip="other numbers are --task regression",
            )
        if varied:
            require_two_classes(values.astype(np.int64), source)

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """Accuracy per sample, or the area under the ROC curve of a set."""
        out = only(outputs, self.name)
        labels = np.asarray(targets).reshape(-1).astype(np.int64)
        if self.measure.name == "accuracy":
            right = self.decide(out).reshape(-1) == labels
            return mean_score(right.astype(np.float64) * finite_rows(out))
        values = np.where(finite_rows(out), out.reshape(-1), 0.0).astype(np.float64)
        return set_score(lambda at: area_under_curve(values[at], labels[at]), len(labels))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """1 where both decide the same."""
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        same = self.decide(ours).reshape(-1) == self.decide(theirs).reshape(-1)
        return mean_score(same.astype(np.float64) * finite_rows(ours))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The labels, else the model's decisions."""
        decisions = self.decide(only(outputs, self.name)) if targets is None else np.asarray(targets)
        return decisions.reshape(-1).astype(np.int64)


def area_under_curve(values: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """P(a positive scores above a negative), ties count half; 0.5 where one of the classes is missing."""
    from scipy.stats import rankdata

    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return 0.5
    ranks = rankdata(values)
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))
