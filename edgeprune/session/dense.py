"""The dense network of a run with everything that is fixed before the first removal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import Couplings
from edgeprune.data import Dataset
from edgeprune.graph.execution import batches
from edgeprune.graph.trace import Trace
from edgeprune.records import Interval, OnnxArtifact, Splits
from edgeprune.session.exporting import BATCH
from edgeprune.session.latency_model import Latency
from edgeprune.tasks.bounds import paired_drop
from edgeprune.tasks.metrics import Metric


@dataclass(frozen=True)
class Measure:
    """The first metric: what --max-drop limits. Without labels: agreement with the dense model."""

    name: str
    metric: Metric | None

    def scores(
        self,
        out: npt.NDArray[np.float32],
        dense: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
    ) -> tuple[float, npt.NDArray[np.float64] | None]:
        """Value (0..1 for shares) and per-sample scores, where the metric has them."""
        if self.metric is not None and labels is not None:
            found = self.metric(out, labels)
            return found.value, found.per_sample
        same = (out.argmax(1) == dense.argmax(1)).astype(np.float64)
        return float(same.mean()), same


@dataclass(frozen=True)
class Prepared:
    """The dense side of a run. `dataset` and what depends on it are None without data."""

    trace: Trace
    couplings: Couplings
    dataset: Dataset | None
    splits: Splits | None
    measure: Measure
    extra_metrics: tuple[Metric, ...]
    evaluation: dict[str, Dataset]
    dense: dict[str, npt.NDArray[np.float32]]
    align: int
    notes: tuple[str, ...] = field(default=())
    file: OnnxArtifact | None = None  # the dense network as ONNX
    calls: tuple[tuple[npt.NDArray[Any], ...], ...] = ()  # inputs of the parity checks
    latency: Latency | None = None

    def calibration(self) -> list[tuple[torch.Tensor, ...]]:
        """Calibration batches; what reads them bounds its own memory."""
        assert self.dataset is not None and self.splits is not None
        return [inputs for inputs, _ in batches(self.dataset, self.splits.calibration, BATCH)]

    def drop(self, out: npt.NDArray[np.float32], part: str, *, level: float = 0.95) -> Interval:
        """Points of the measure lost against the dense model on a part ("validation" or "test")."""
        assert self.dataset is not None and self.splits is not None
        labels = self.dataset.labels
        wanted = None if labels is None else labels[getattr(self.splits, part)]
        before_value, before = self.measure.scores(self.dense[part], self.dense[part], wanted)
        after_value, after = self.measure.scores(out, self.dense[part], wanted)
        if before is None or after is None:
            points = 100 * (before_value - after_value)
            return Interval(points, points, points, level)
        groups = self.dataset.groups_of(getattr(self.splits, part))
        return paired_drop(before, after, level=level, groups=groups)
