"""One pass over the calibration data: what every weighted layer reads and is sensitive to.

    found = capture(trace, couplings, dataset, indices)
    found.layers["conv2d_1"].covariance        # (inputs, inputs)

For each layer that mixes channels (dense convolutions and linear layers) the pass gives,
per input channel, moments over positions and, where the value follows the samples (see
statistics.samples), the value per sample reduced over positions and the first-order Taylor
term; per output channel the moments of the loss's slope; for kernels with taps, moments of
whole input patches. For components that other operators
read too (recurrent weights, products of activations) it gives what silencing those
readings costs. Sums are float64 over fixed batches in index order.

Guarantee: the same data and seed give the same numbers; the trace is not written to.
Elsewhere: what the numbers mean (statistics), scores (criteria), refits (recovery).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from edgeprune.calibration.patches import patch_rows
from edgeprune.calibration.readings import Readings, slopes_at
from edgeprune.calibration.samples import SampleAxis, sample_axes
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.data import Dataset
from edgeprune.graph.execution import batches, samples_first
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.tasks.base import Targets, Task, Tensors

__all__ = [
    "FULL_COVARIANCE",
    "ActivationMoments",
    "LayerStatistics",
    "Statistics",
    "capture",
    "mixing_layers",
]

PATCH_FEATURES = 1536  # inputs × taps; the elimination over more takes minutes
PATCH_ROWS = 16_384  # positions looked at per layer


def capture(
    trace: Trace,
    couplings: Couplings,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    *,
    task: Task,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Collect statistics on the samples `indices`; batches are taken in that order.

    Args:
        task: gives the slopes of the loss by every output, and the classes for discrete criteria.
    """
    layers = mixing_layers(couplings)
    generator = torch.Generator().manual_seed(seed)
    graph = trace.copy()
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    others = Readings(graph, couplings, layers)
    sums: dict[str, _Sums] = {}
    classes: list[npt.NDArray[np.int64]] = []
    done = 0
    for inputs, targets in batches(dataset, indices, batch_size):
        size = len(inputs[0])
        if not done:
            axes = sample_axes(graph, [(layer.source, layer.channel_dim) for layer in layers], inputs)
            sums = {x.node: _Sums(graph, x, len(indices), axes[x.source, x.channel_dim]) for x in layers}
        watcher = _Watcher(graph, layers)
        flat = torch.utils._pytree.tree_flatten(watcher.run(*inputs, enable_io_processing=False))[0]
        outputs = tuple(samples_first(x, size) for x in flat if isinstance(x, torch.Tensor))
        plain = tuple(x.detach() for x in outputs)
        found = task.classes(tuple(x.numpy() for x in plain), targets)
        if found is not None:
            classes.append(found)
        drawn, given = task.slopes(plain, targets, generator)
        watched = [watcher.outputs[layer.node] for layer in layers]
        sources = [watcher.inputs[layer.node] for layer in layers]
        others.add(outputs, functools.partial(_drawn, task, plain, targets, generator))
        tops = slopes_at(outputs, watched, drawn)
        bottoms = slopes_at(outputs, sources, given)
        for layer, top, bottom in zip(layers, tops, bottoms, strict=True):
            sums[layer.node].add(watcher, top, bottom, size)
        done += size
        if progress:
            progress(done, len(indices))
    decisions = "the dense model's own decisions" if classes else "none"
    return Statistics(
        {node: s.result() for node, s in sums.items()},
        np.concatenate(classes) if classes else None,
        "labels" if classes and dataset.targets is not None else decisions,
        len(indices),
        others.result(done),
        StatisticsSource(dataset, indices, task),
    )


def _drawn(task: Task, outputs: Tensors, targets: Targets | None, generator: torch.Generator) -> Tensors:
    """Slopes under freshly drawn targets."""
    return task.slopes(outputs, targets, generator)[0]


class _Watcher(fx.Interpreter):  # type: ignore[misc]  # torch is untyped here
    """Runs the graph and keeps the inputs and outputs of the watched layers, with gradients."""

    def __init__(self, graph: fx.GraphModule, layers: list[Layer]) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.watched = {layer.node: layer for layer in layers}
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self._leaves: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        layer = self.watched.get(n.name)
        if layer is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        at = next(i for i, a in enumerate(n.args) if isinstance(a, fx.Node) and a.name == layer.source)
        x = args[at]
        if not x.requires_grad:  # nothing upstream is differentiated: start the tape here
            x = self._leaves.setdefault(id(x), (x, x.detach().requires_grad_(True)))[1]
        self.inputs[n.name] = x
        out = n.target(*(x if i == at else a for i, a in enumerate(args)), **kwargs)
        self.outputs[n.name] = out
        return out


class _Sums:
    """Running sums of one layer, float64."""

    def __init__(self, graph: fx.GraphModule, layer: Layer, samples: int, axis: SampleAxis | None) -> None:
        self.layer = layer
        self.axis = axis
        self.weight = attribute(graph, str(layer.weight))
        self.node = next(n for n in graph.graph.nodes if n.name == layer.node)
        self.samples = max(1, samples)
        self.generator = torch.Generator().manual_seed(0)
        self.n = 0
        self.positions = 0
        self.rows = 0
        self.reduced: list[npt.NDArray[np.float32]] = []
        self.parts: dict[str, Any] = {}

    def add(self, watcher: _Watcher, top: Any, bottom: Any, samples: int) -> None:
        layer = self.layer
        given = watcher.inputs[layer.node].detach()
        x = given.movedim(layer.channel_dim, -1)
        y = watcher.outputs[layer.node].detach().movedim(layer.out_channel_dim, -1)
        rows = x.reshape(-1, x.shape[-1]).double()
        self.n += samples
        self.positions += len(rows)
        full = rows.shape[1] <= FULL_COVARIANCE
        self._sum("mean", rows.sum(0))
        self._sum("second", rows.T @ rows if full else (rows**2).sum(0))
        outputs = y.reshape(-1, y.shape[-1]).double()
        self._sum("out", outputs.sum(0))
        self._sum("out2", (outputs**2).sum(0))
        if self.axis is not None:
            self.reduced.append(self.axis.split(given, layer.channel_dim).mean(1).float().numpy())
        if top is not None:
            g = top.movedim(layer.out_channel_dim, -1).reshape(-1, y.shape[-1]).double()
            self._sum("slopes", g.T @ g if y.shape[-1] <= FULL_COVARIANCE else (g**2).sum(0))
        if bottom is not None and self.axis is not None:
            product = self.axis.split(bottom * given, layer.channel_dim)
            self._sum("taylor", product.sum(1).abs().double().sum(0))
        self._add_patches(given, outputs.shape[0], samples)

    def _add_patches(self, x: torch.Tensor, positions: int, samples: int) -> None:
        layer, weight = self.layer, self.weight
        features = weight.numel() // weight.shape[layer.out_dim]
        if features == weight.shape[layer.in_dim] or features > PATCH_FEATURES or layer.in_dim == 0:
            return
        share = min(positions, -(-PATCH_ROWS * samples // self.samples))
        chosen = torch.randperm(positions, generator=self.generator)[:share]
        rows = patch_rows(self.node, layer, x, weight)(chosen).double()
        self.rows += len(rows)
        self._sum("patch_mean", rows.sum(0))
        self._sum("patch_second", rows.T @ rows)

    def _sum(self, name: str, value: torch.Tensor) -> None:
        self.parts[name] = self.parts[name] + value if name in self.parts else value

    def result(self) -> LayerStatistics:
        part = {k: v.numpy() for k, v in self.parts.items()}
        mean = part["mean"] / self.positions
        variance = part["out2"] / self.positions - (part["out"] / self.positions) ** 2
        patches = None
        if self.rows:
            patches = ActivationMoments(
                part["patch_mean"] / self.rows, part["patch_second"] / self.rows, self.rows
            )
        known = self.axis is not None
        return LayerStatistics(
            mean,
            part["second"] / self.positions,
            np.concatenate(self.reduced) if known else None,
            part.get("taylor", np.zeros_like(mean)) / self.n if known else None,
            part.get("slopes", np.zeros_like(variance)) / self.n,
            np.sqrt(np.maximum(variance, 0.0)),
            patches,
            self.axis,
        )
