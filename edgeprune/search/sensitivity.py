"""Measure what each group costs: loss at several removed shares, after compensation.

One group at a time, on the full-size graph: the group's components are masked, the
layers that read them absorb what they can in closed form from the dense statistics
(exact here, since nothing upstream changed), other readers (recurrent weights, products of
queries and keys) are silenced, and the divergence of the outputs from the
dense ones is measured. Gives curves for planning; changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.calibration.capture import FULL_COVARIANCE, LayerStatistics, Statistics, mixing_layers
from edgeprune.calibration.readings import further_readings
from edgeprune.coupling.components import BoolArray, Couplings, Layer
from edgeprune.graph.execution import samples_first
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace, run
from edgeprune.search.groups import Curve
from edgeprune.tasks.base import Task

SHARES = (0.25, 0.5, 0.7, 0.85, 0.95)
RIDGE = 1e-3  # of the mean variance


def sensitivity(
    dense: Trace,
    couplings: Couplings,
    statistics: Statistics,
    rank: npt.NDArray[np.int64],
    batches: Sequence[tuple[torch.Tensor, ...]],
    task: Task,
    *,
    shares: Sequence[float] = SHARES,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Curve]:
    """Loss at each share, per group: the task's divergence from the dense outputs, all outputs together."""
    graph = dense.copy()
    with torch.no_grad():
        wanted = [judged(graph, b) for b in batches]
        curves = {}
        groups = len(couplings.group_names)
        for group in range(groups):
            rows = np.flatnonzero(couplings.group == group)
            rows = rows[np.argsort(rank[rows], kind="stable")]
            at, losses = [0.0], [0.0]
            for share in shares:
                count = min(round(share * len(rows)), len(rows) - 1)
                if count < 1 or count / len(rows) <= at[-1]:
                    continue
                removed = np.zeros(couplings.count, dtype=bool)
                removed[rows[:count]] = True
                losses.append(loss_without(graph, couplings, statistics, removed, batches, wanted, task))
                at.append(count / len(rows))
            if len(at) > 1:
                curves[group] = Curve((*at, 1.0), (*losses, 2 * max(losses) + 1e-3))
            if progress:
                progress(group + 1, groups)
    return curves


def loss_without(
    graph: fx.GraphModule,
    couplings: Couplings,
    statistics: Statistics,
    removed: BoolArray,
    batches: Sequence[tuple[torch.Tensor, ...]],
    wanted: Sequence[tuple[torch.Tensor, ...]],
    task: Task,
    *,
    absorb: bool = True,
) -> float:
    """Divergence of the outputs from `wanted` without some components; the graph comes back as it was.

    Call it under `torch.no_grad()`: weights are changed in place for the time of the call.

    Args:
        absorb: let the layers that read the components take over what they can.
    """
    saved: dict[str, torch.Tensor] = {}
    try:
        for layer in mixing_layers(couplings):
            keep = couplings.keep_mask(layer.inputs, removed)
            found = statistics.layers.get(layer.node)
            if found is not None and not keep.all():
                _absorb(graph, layer, found, keep, saved, absorb)
        _silence(graph, couplings, removed, saved)
        total = 0.0
        for inputs, target in zip(batches, wanted, strict=True):
            total += task.divergence(judged(graph, inputs), target) * len(inputs[0])
        return total / sum(len(inputs[0]) for inputs in batches)
    finally:
        for name, value in saved.items():
            attribute(graph, name).copy_(value)


def _silence(
    graph: fx.GraphModule, couplings: Couplings, removed: BoolArray, saved: dict[str, torch.Tensor]
) -> None:
    """Zero what reads or, where no weight does, writes the removed components besides mixing layers."""
    for name, dim in further_readings(couplings, mixing_layers(couplings)):
        channel_map = couplings.tensors[name][dim]
        assert channel_map is not None
        gone = np.flatnonzero(~couplings.keep_mask(channel_map, removed))
        if len(gone):
            tensor = attribute(graph, name)
            saved.setdefault(name, tensor.clone())
            tensor.index_fill_(dim, torch.from_numpy(gone), 0.0)


def judged(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """All outputs of a batch, samples first."""
    return tuple(samples_first(x, len(inputs[0])) for x in run(graph, inputs))


def _absorb(
    graph: fx.GraphModule,
    layer: Layer,
    found: LayerStatistics,
    keep: BoolArray,
    saved: dict[str, torch.Tensor],
    take_over: bool,
) -> None:
    """Zero the removed inputs' weights and, where asked, let the kept ones take over, in place."""
    weight = attribute(graph, str(layer.weight))
    saved.setdefault(str(layer.weight), weight.clone())
    moved = weight.movedim((layer.out_dim, layer.in_dim), (0, 1))
    gone, stay = np.flatnonzero(~keep), np.flatnonzero(keep)
    if take_over and len(keep) <= FULL_COVARIANCE and len(stay):
        full = layer.bias is not None
        moments = found.covariance if full else found.second
        level = RIDGE * float(np.trace(moments)) / len(moments) + 1e-12
        kept = moments[np.ix_(stay, stay)] + level * np.eye(len(stay))
        mixing = torch.from_numpy(np.linalg.solve(kept, moments[np.ix_(stay, gone)])).to(weight.dtype)
        lost = moved[:, gone]
        moved[:, stay] += torch.einsum("og...,sg->os...", lost, mixing)
        if layer.bias is not None:
            bias = attribute(graph, layer.bias)
            saved.setdefault(layer.bias, bias.clone())
            rest = torch.from_numpy(found.mean[gone]) - mixing.double().T @ torch.from_numpy(found.mean[stay])
            bias += (lost.reshape(*lost.shape[:2], -1).sum(2).double() @ rest).to(bias.dtype)
    moved[:, gone] = 0.0
