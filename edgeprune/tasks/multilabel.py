"""Multi-label classification: any number of L labels per sample, from logits or probabilities (samples, L).

Targets: rows of 0 and 1, shape (samples, L). Measures: the F1 of each sample's labels (both sets empty
counts 1), the share of right decisions, and F1 averaged over labels as a measure of a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, PerSample, Score, Targets
from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.classification import require_decisions_differ
from edgeprune.tasks.numbers import (
    distinct_class,
    finite_rows,
    mean_score,
    only,
    require_finite,
    require_targets,
    set_score,
    show,
)  # fmt: skip

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Multilabel(CategoricalTask):
    """Yes or no for each label."""

    name: ClassVar[str] = "multilabel"
    measures: ClassVar[dict[str, Measure]] = {
        "f1": Measure("F1 per sample"), "decisions": Measure("right decisions"),
        "macro_f1": Measure("F1 averaged over labels"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("F1 with the dense model's labels")

    def axis(self, shape: tuple[int, ...]) -> int:
        """Behind the labels: every label is a decision between two classes."""
        return len(shape)

    def rows(self, out: torch.Tensor) -> torch.Tensor:
        """Logits of shape (samples, labels, 2)."""
        values = out.float() if out.element_size() < 4 else out
        return self._two_logits(values[..., None])

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse targets that are not one row of 0 and 1 per sample, and rows that are all equal."""
        out = only(outputs, self.name)
        if out.ndim != 2:
            raise DataError(f"task multilabel takes outputs (samples, labels), the model's are {show(out)}")
        if targets is None:
            decided = self.decide(out)
            require_decisions_differ(np.unique(decided, axis=0, return_inverse=True)[1], source, varied)
            return
        require_targets(targets, self.name, source)
        if not isinstance(targets, np.ndarray) or targets.ndim != 2 or targets.shape[1] != out.shape[1]:
            raise DataError(
                f"{source}: multilabel takes rows of {out.shape[1]} zeros and ones, targets are"
                f" {show(targets)}",
                tip="one class number per sample is --task classification",
            )
        require_finite(targets, source)
        off = np.flatnonzero(~np.isin(targets, (0, 1)).all(axis=1))
        if off.size:
            raise DataError(f"{source}: the target of sample {off[0]} holds other numbers than 0 and 1")
        if varied and (targets == targets[0]).all():
            raise DataError(
                f"{source}: all {len(targets)} samples have the same labels", tip="give varied data"
            )

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The measure chosen."""
        out = only(outputs, self.name)
        decided, truth = self.decide(out), np.asarray(targets).astype(np.int64)
        fine = finite_rows(out)
        if self.measure is self.measures["decisions"]:
            return mean_score((decided == truth).mean(axis=1) * fine)
        if self.measure is self.measures["f1"]:
            return mean_score(f1_rows(decided, truth) * fine)
        decided = decided * fine[:, None]
        return set_score(lambda at: _macro_f1(decided[at], truth[at]), len(truth))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """F1 between both models' labels."""
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        return mean_score(f1_rows(self.decide(ours), self.decide(theirs)) * finite_rows(ours))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The label that each sample has beyond the average."""
        rows = self.decide(only(outputs, self.name)) if targets is None else np.asarray(targets)
        return distinct_class(rows.astype(np.float64))


def f1_rows(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> PerSample:
    """2 |A ∩ B| / (|A| + |B|) of the labels in each row; 1 where both are empty."""
    both = ((ours == 1) & (theirs == 1)).sum(axis=1)
    total = (ours == 1).sum(axis=1) + (theirs == 1).sum(axis=1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0).astype(np.float64)


def _macro_f1(decided: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """The mean over labels that somebody has or that were decided for."""
    present = (decided.sum(axis=0) + truth.sum(axis=0)) > 0
    return float(f1_rows(decided.T[present], truth.T[present]).mean()) if present.any() else 1.0
