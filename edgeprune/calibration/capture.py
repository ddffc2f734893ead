"""One pass over the calibration data: what every weighted layer reads and is sensitive to.

    found = capture(trace, couplings, dataset, indices)
    found.layers["conv2d_1"].covariance        # (inputs, inputs)

For each layer that mixes channels (dense convolutions and linear layers) the pass gives,
per input channel, moments over positions and, where the value follows the samples (see
statistics.samples), the value per sample reduced over positions and the first-order Taylor
term; per output channel the moments of the loss's slope; for kernels with taps, moments of
whole input patches. For components that other operators
read too (recurrent weights, products of activations) it gives what silencing those
readings costs. Products are float32 over blocks of rows, their sums float64 over fixed shards.

Guarantee: the same data and seed give the same bits at any number of ranks; the trace is not written to.
Elsewhere: what the numbers mean (statistics), scores (criteria), refits (recovery).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.calibration.layers import (
    FULL_COVARIANCE,
    ActivationMoments,
    LayerStatistics,
    Statistics,
    StatisticsSource,
    mixing_layers,
)
from edgeprune.calibration.readings import Readings, slopes_at
from edgeprune.calibration.samples import sample_axes
from edgeprune.calibration.shards import add_shards, shard_bounds
from edgeprune.calibration.sums import LayerSums
from edgeprune.calibration.totals import LayerTotals
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.data import Dataset
from edgeprune.graph.compute import CPU, Compute, in_memory
from edgeprune.graph.execution import batches, samples_first
from edgeprune.graph.executor import execute, operand_index
from edgeprune.graph.module import shape_of
from edgeprune.graph.trace import Trace, pytree
from edgeprune.tasks.base import Targets, Task, Tensors

__all__ = [
    "FULL_COVARIANCE",
    "ActivationMoments",
    "LayerStatistics",
    "Statistics",
    "capture",
    "mixing_layers",
]

SEED_STEP = 1_000_003  # between the seeds of shards
MEMORY = 3 << 27  # bytes of activations per batch; slopes and what the backward pass keeps are twice that


def capture(
    trace: Trace,
    couplings: Couplings,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    *,
    task: Task,
    batch_size: int = 32,
    seed: int = 0,
    compute: Compute = CPU,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Collect statistics on the samples `indices`; batches are taken in that order.

    Args:
        task: gives the slopes of the loss by every output, and the classes for discrete criteria.
        compute: where, and the ranks that share the samples; all of them get the statistics.
    """
    bounds = shard_bounds(len(indices), batch_size)
    ranks = compute.ranks

    def attempt(size: int) -> _ShardTotals:
        pass_over = _Pass(trace, couplings, dataset, indices, task, size, seed, compute, progress)
        return add_shards(len(bounds), lambda shard: pass_over.shard(shard, *bounds[shard]), ranks)

    totals = in_memory(attempt, _affordable(trace, batch_size), "capture, samples of one pass")
    classes = totals.classes
    decisions = "the dense model's own decisions" if classes is not None else "none"
    return Statistics(
        {node: layer.statistics() for node, layer in totals.layers.items()},
        classes,
        "labels" if classes is not None and dataset.targets is not None else decisions,
        len(indices),
        totals.others / max(1, len(indices)),
        StatisticsSource(dataset, indices, task),
    )


@dataclass(frozen=True)
class _ShardTotals:
    """What some consecutive samples give: sums by layer, of the further readings, and their classes."""

    layers: dict[str, LayerTotals]
    others: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64] | None

    def __add__(self, other: _ShardTotals) -> _ShardTotals:
        classes = self.classes
        if classes is not None and other.classes is not None:
            classes = np.concatenate([classes, other.classes])
        layers = {node: totals + other.layers[node] for node, totals in self.layers.items()}
        return _ShardTotals(layers, self.others + other.others, classes)


class _Pass:
    """Runs shards through the network; what a shard gives depends on no other shard."""

    def __init__(
        self,
        trace: Trace,
        couplings: Couplings,
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        task: Task,
        batch_size: int,
        seed: int,
        compute: Compute,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.couplings, self.dataset, self.indices, self.task = couplings, dataset, indices, task
        self.batch_size, self.seed, self.compute, self.progress = batch_size, seed, compute, progress
        self.layers = mixing_layers(couplings)
        self.graph = compute.place(trace.graph)
        for parameter in self.graph.parameters():
            parameter.requires_grad_(False)
        first, _ = next(batches(dataset, indices[:batch_size], batch_size))
        readings = [(layer.source, layer.channel_dim) for layer in self.layers]
        self.axes = sample_axes(self.graph, readings, compute.put(first))
        self.done = 0

    def shard(self, number: int, begin: int, end: int) -> _ShardTotals:
        """The sums of the samples `indices[begin:end]`."""
        layers, task = self.layers, self.task
        generator = torch.Generator().manual_seed(self.seed + SEED_STEP * number)
        others = Readings(self.graph, self.couplings, layers)
        axes = {x.node: self.axes[x.source, x.channel_dim] for x in layers}
        sums = {x.node: LayerSums(self.graph, x, len(self.indices), axes[x.node], number) for x in layers}
        classes: list[npt.NDArray[np.int64]] = []
        for inputs, targets in batches(self.dataset, self.indices[begin:end], self.batch_size):
            size = len(inputs[0])
            watcher = _Watcher(self.graph, layers)
            flat = torch.utils._pytree.tree_flatten(watcher.run(self.compute.put(inputs)))[0]
            outputs = tuple(samples_first(x, size) for x in flat if isinstance(x, torch.Tensor))
            plain = tuple(x.detach().cpu() for x in outputs)
            known = task.classes(tuple(x.numpy() for x in plain), targets)
            if known is not None:
                classes.append(known)
            drawn, given = task.slopes(plain, targets, generator)
            watched = [watcher.outputs[layer.node] for layer in layers]
            sources = [watcher.inputs[layer.node] for layer in layers]
            others.add(outputs, functools.partial(_drawn, task, plain, targets, generator))
            if given is drawn:  # no targets: one backward pass serves both
                slopes = slopes_at(outputs, [*watched, *sources], drawn)
                tops, bottoms = slopes[: len(layers)], slopes[len(layers) :]
            else:
                tops, bottoms = slopes_at(outputs, watched, drawn), slopes_at(outputs, sources, given)
            for layer, read, put_out, top, bottom in zip(
                layers, sources, watched, tops, bottoms, strict=True
            ):
                sums[layer.node].add(read.detach(), put_out.detach(), top, bottom, size)
            self.done += size
            if self.progress:
                self.progress(self.done, -(-len(self.indices) // self.compute.ranks.size))
        totals = {node: layer.totals() for node, layer in sums.items()}
        return _ShardTotals(totals, others.total, np.concatenate(classes) if classes else None)


def _affordable(trace: Trace, batch_size: int) -> int:
    """The batch size, smaller where activations would not fit into MEMORY; as it is if sizes are fixed."""
    if not all(trace.dynamic) or not trace.inputs or not trace.inputs[0].dim():
        return batch_size
    size = sum(
        math.prod(shape_of(value)) * value.element_size()
        for node in trace.graph.graph.nodes
        if node.op == "call_function"
        for value in pytree.tree_leaves(node.meta.get("val"))
        if isinstance(value, torch.Tensor)
    )
    return max(1, min(batch_size, int(MEMORY * len(trace.inputs[0]) / max(size, 1))))


def _drawn(task: Task, outputs: Tensors, targets: Targets | None, generator: torch.Generator) -> Tensors:
    """Slopes under freshly drawn targets."""
    return task.slopes(outputs, targets, generator)[0]


class _Watcher:
    """Runs the graph and keeps the inputs and outputs of the watched layers, with gradients."""

    def __init__(self, graph: fx.GraphModule, layers: list[Layer]) -> None:
        self.graph = graph
        self.watched = {layer.node: layer for layer in layers}
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self._leaves: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, inputs: tuple[torch.Tensor, ...]) -> Any:
        """The graph's outputs as it nests them."""
        return execute(self.graph, inputs, before=self._before, after=self._after)

    def _before(
        self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        layer = self.watched.get(node.name)
        if layer is None:
            return args, kwargs
        at = operand_index(node, layer.source)
        x = args[at]
        if not x.requires_grad:  # nothing upstream is differentiated: start the tape here
            x = self._leaves.setdefault(id(x), (x, x.detach().requires_grad_(True)))[1]
        self.inputs[node.name] = x
        return (*args[:at], x, *args[at + 1 :]), kwargs

    def _after(self, node: fx.Node, value: Any) -> Any:
        if node.name in self.watched:
            self.outputs[node.name] = value
        return value
