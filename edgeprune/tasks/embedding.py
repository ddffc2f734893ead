"""Embedding: a vector per sample whose direction and neighbourhood count.

Outputs (samples, D). Targets, if any, are reference vectors of the same shape. Measures, against targets or
the dense model:

    cosine  per sample, of the vectors less the reference's mean, at least 0. Without that step a network
            that gives one vector for every input agrees: embeddings point into a narrow cone
    rank    Spearman's correlation of the similarities of all pairs, of a set, at least 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Measure, Outputs, Score, Targets, Tensors
from edgeprune.tasks.generic import ContinuousTask
from edgeprune.tasks.numbers import (
    TINY,
    FloatArray,
    as_arrays,
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

PAIRED = 512  # samples of which all pairs are ranked; beyond, this many spread evenly over the set


@dataclass(frozen=True, eq=False)
class Embedding(ContinuousTask):
    """A vector per sample."""

    name: ClassVar[str] = "embedding"
    measures: ClassVar[dict[str, Measure]] = {
        "cosine": Measure("cosine about the mean"), "rank": Measure("rank correlation of similarities"),
    }  # fmt: skip

    @property
    def agreement_measure(self) -> Measure:  # type: ignore[override]
        """The same measure, against the dense model."""
        return Measure(f"{self.measure.name}, with the dense model")

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse outputs that are no vectors of two numbers or more, and targets of another shape."""
        out = only(outputs, self.name)
        if out.ndim != 2 or out.shape[1] < 2:
            raise DataError(f"task embedding takes outputs (samples, D), the model's are {show(out)}")
        if varied and len(out) > 1 and (out == out[:1]).all():
            raise DataError(
                f"{source}: the dense model's vectors are the same for all {len(out)} samples; agreement"
                " with it says nothing"
            )
        if targets is None:
            return
        require_targets(targets, self.name, source)
        if not isinstance(targets, np.ndarray) or targets.shape[1:] != out.shape[1:]:
            raise DataError(
                f"{source}: embedding takes reference vectors of {out.shape[1]} numbers, targets are"
                f" {show(targets)}",
                tip="leave y out to compare with the dense model; class numbers are --task classification",
            )
        require_finite(targets, source)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """1 − cosine to the reference vectors, the mean over samples."""
        import torch
        import torch.nn.functional as F

        out = only(outputs, self.name)
        reference = torch.as_tensor(targets).to(out.device, out.dtype)
        return (1 - F.cosine_similarity(out, reference, dim=1)).mean()

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Squared error by each channel's variance, plus 1 − cosine."""
        return super().distil(student, teacher) + self.loss(student, only(teacher, self.name).detach())

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """The share of the variance that is wrong."""
        return float(super().distil(outputs, dense).detach())

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The measure chosen, against the reference vectors."""
        ours, theirs = only(outputs, self.name), np.asarray(targets)
        if self.chosen == "rank":
            ours = np.where(finite_rows(ours)[:, None], ours, 0.0)
            return set_score(lambda at: rank_correlation(ours[at], theirs[at]), len(ours))
        return mean_score(_cosine(ours, theirs))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """The measure chosen, against the dense model's vectors."""
        return self.score(outputs, only(as_arrays(dense), self.name))


def rank_correlation(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating]) -> float:
    """Spearman's correlation between the cosine similarities of all pairs, at least 0."""
    from scipy.stats import rankdata

    if len(ours) > PAIRED:
        chosen = np.linspace(0, len(ours) - 1, PAIRED).astype(np.int64)
        ours, theirs = ours[chosen], theirs[chosen]
    upper = np.triu_indices(len(ours), 1)
    ranks = []
    for vectors in (ours, theirs):
        rows = vectors.astype(np.float64)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
        ranks.append(rankdata(np.round((rows @ rows.T)[upper], 12)))
    if any(np.ptp(r) == 0 for r in ranks if len(r)) or not len(ranks[0]):
        return 0.0
    return max(0.0, float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _cosine(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating]) -> FloatArray:
    """Cosine of the vectors less the reference's mean, at least 0; shape (samples,). Vectors that are all the
    same have collapsed and agree nowhere.
    """
    if len(ours) > 1 and (ours == ours[:1]).all():
        return np.zeros(len(ours))
    centre = theirs.astype(np.float64).mean(axis=0) if len(theirs) > 1 else 0.0
    fine = finite_rows(ours)
    a = np.where(fine[:, None], ours.astype(np.float64) - centre, 0.0)
    b = theirs.astype(np.float64) - centre
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(norm, TINY)
    return np.asarray(np.clip(np.where(norm > TINY, cosine, 0.0), 0.0, 1.0), dtype=np.float64)
