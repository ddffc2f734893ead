"""The dense network of a run, and the data that it is judged on: fixed before the first removal.

DenseNetwork     traced and coupled; with `data` where the run has some
ExportedDense    the same with its ONNX file and the latency model, which `compress` plans against
RunData          dataset, splits, task, and the dense model's outputs on every part

Elsewhere: how these are made (run.prepare), networks on the way down (search.state).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import Couplings
from edgeprune.data import Dataset
from edgeprune.data.targets import take
from edgeprune.graph.execution import batches
from edgeprune.graph.trace import Trace
from edgeprune.records import OnnxArtifact, Splits
from edgeprune.session.exporting import BATCH, InputArrays
from edgeprune.session.latency_model import LatencyModel
from edgeprune.tasks.base import Outputs, Score, Targets, Task
from edgeprune.tasks.comparison import Loss, compare, measures_of


@dataclass(frozen=True)
class RunData:
    """Data of a run with its task. `dense` holds the dense model's outputs by part, also "eval:NAME".

    metrics: the task under further measures. further: sets that are reported beside the test part.
    task_note: how the task was chosen.
    """

    dataset: Dataset
    splits: Splits
    task: Task
    task_note: str = ""
    metrics: tuple[Task, ...] = ()
    further: Mapping[str, Dataset] = field(default_factory=dict)
    dense: dict[str, Outputs] = field(default_factory=dict)

    def indices(self, part: str) -> npt.NDArray[np.int64]:
        """Samples of a part: "train", "calibration", "validation" or "test"."""
        indices: npt.NDArray[np.int64] = getattr(self.splits, part)
        return indices

    def targets(self, part: str) -> Targets | None:
        """Targets of a part; None where the data hold none."""
        return take(self.dataset.targets, self.indices(part))

    def calibration(self) -> list[tuple[torch.Tensor, ...]]:
        """Calibration batches; what reads them bounds its own memory."""
        return [inputs for inputs, _ in batches(self.dataset, self.splits.calibration, BATCH)]

    def loss(self, outputs: Outputs, part: str, *, level: float = 0.95) -> Loss:
        """What was lost against the dense model on "validation" or "test", by the task's measure."""
        groups = self.dataset.groups_of(self.indices(part))
        return compare(self.task, outputs, self.dense[part], self.targets(part), level=level, groups=groups)

    def measured(self, outputs: Outputs, part: str) -> list[tuple[str, Score]]:
        """The task's measure on a part, one per output that is judged."""
        return measures_of(self.task, outputs, self.dense[part], self.targets(part))

    def measured_further(self, outputs: Outputs, name: str) -> list[tuple[str, Score]]:
        """The task's measure on a further set."""
        return measures_of(self.task, outputs, self.dense[f"eval:{name}"], self.further[name].targets)

    @property
    def measured_as(self) -> str:
        """What the budget is measured by."""
        labelled = self.dataset.targets is not None
        return (self.task.measure if labelled else self.task.agreement_measure).name

    @property
    def unit(self) -> str:
        """The unit of a loss: "points" of a share, or "percent" of the dense model's error."""
        labelled = self.dataset.targets is not None
        return (self.task.measure if labelled else self.task.agreement_measure).unit


@dataclass(frozen=True)
class DenseNetwork:
    """A model that was traced and coupled. `align` is the block of widths that planning keeps to."""

    trace: Trace
    couplings: Couplings
    data: RunData | None = None
    align: int = 1


@dataclass(frozen=True)
class ExportedDense(DenseNetwork):
    """The dense network with its ONNX file; `latency` is None where nothing is planned by latency."""

    artifact: OnnxArtifact = field(kw_only=True)
    parity_inputs: tuple[InputArrays, ...] = field(kw_only=True)
    latency: LatencyModel | None = field(kw_only=True)
    notes: tuple[str, ...] = field(kw_only=True, default=())


def latency_of(dense: DenseNetwork) -> LatencyModel | None:
    """The latency model that a network is planned with, if there is one."""
    return dense.latency if isinstance(dense, ExportedDense) else None
