"""How far a network's batch-norm statistics are from those of the calibration data.

    measured = drift(trace, dataset, indices)
    measured.median            # 0.1: data like the training set's; 1: another kind of data
    warning(measured)          # one line for the report, None where the data fit

Running statistics describe the training data. Per channel, the distance between two normal distributions
(2-Wasserstein), that of the running statistics and that of the values which the batch norm reads here, in
running standard deviations: √((mean − μ)²/σ² + (sd/σ − 1)²). A channel that was trained on such data
stays near 0.

Guarantee: the trace is not written to; memory does not grow with the number of samples. Elsewhere: what
recovery does about other data (recovery.norms matches moments instead of estimating them anew).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset
from edgeprune.graph.compute import to_channels_last
from edgeprune.graph.execution import batches
from edgeprune.graph.executor import execute
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace

SAMPLES = 64  # moments over positions settle early; the median over channels does so sooner
FAR = 0.2  # 0.05 was measured on the training domain, 0.23 and more on others: docs/pretrained.md
MEAN, VARIANCE, EPS = 3, 4, 7  # positions in aten.batch_norm's arguments


@dataclass(frozen=True)
class Drift:
    """Median distance over all channels in running standard deviations, and the layer farthest off."""

    median: float
    farthest: str
    farthest_median: float
    samples: int


def drift(
    trace: Trace, dataset: Dataset, indices: npt.NDArray[np.int64], *, batch_size: int = 16
) -> Drift | None:
    """Measure on up to 64 of the samples `indices`, spread evenly. None without batch norms."""
    norms = [
        n
        for n in trace.graph.graph.nodes
        if n.target is torch.ops.aten.batch_norm.default
        and all(isinstance(n.args[i], fx.Node) for i in (MEAN, VARIANCE))
    ]
    if not norms or not len(indices):
        return None
    spread = np.linspace(0, len(indices) - 1, min(SAMPLES, len(indices)))
    chosen = indices[np.unique(spread.round().astype(int))]
    sums = {n.name: torch.zeros(3, 1, dtype=torch.float64) for n in norms}
    reads = {n.args[0].name for n in norms}
    values: dict[str, torch.Tensor] = {}

    def add(node: fx.Node, value: Any) -> Any:
        if node.name in reads:
            values[node.name] = _moments(value)
        if node.name in sums:
            sums[node.name] = sums[node.name] + values[node.args[0].name]
        return value

    graph = to_channels_last(trace.graph)
    with torch.no_grad():
        for inputs, _ in batches(dataset, chosen, batch_size):
            values.clear()
            execute(graph, inputs, after=add)
    distances = {n.name: _distance(trace.graph, n, sums[n.name]) for n in norms}
    medians = {name: float(d.median()) for name, d in distances.items()}
    worst = max(norms, key=lambda n: medians[n.name])
    layer = str(worst.args[MEAN].target).rpartition(".")[0]
    return Drift(float(torch.cat(list(distances.values())).median()), layer, medians[worst.name], len(chosen))


def warning(measured: Drift | None) -> str | None:
    """One line where the data are far from what the running statistics describe."""
    if measured is None or measured.median <= FAR:
        return None
    return (
        f"the calibration data are not like the training data: {measured.samples} samples lie"
        f" {measured.median:.2f} running standard deviations (median over channels) from the batch norms'"
        f" statistics, {measured.farthest_median:.2f} at {measured.farthest}; above {FAR} check the"
        " preprocessing (mean, std, order of channels) or calibrate with data like those of the task"
    )


def _moments(value: torch.Tensor) -> torch.Tensor:
    """Positions, sum and sum of squares per channel (3, channels), float64."""
    rows = value.detach().movedim(1, -1).flatten(0, -2).double()
    return torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(0), rows.square().sum(0)])


def _distance(graph: fx.GraphModule, node: fx.Node, sums: torch.Tensor) -> torch.Tensor:
    """Per channel, in running standard deviations."""
    count, total, squares = sums
    running_mean, running_variance = (
        torch.as_tensor(attribute(graph, str(node.args[i].target))).double() for i in (MEAN, VARIANCE)
    )
    spread = (running_variance + float(node.args[EPS])).sqrt()
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return (((mean - running_mean) / spread).square() + (deviation / spread - 1).square()).sqrt()
