"""The bottleneck penalty of fine-tuning, with the noise that makes it mean something.

Loss to minimise: cross-entropy + β·H(T|Y), H(T|Y) the class-conditional entropy of the
noisy activations, ½·log 2πe(var(T|Y) + τ²) for a Gaussian, averaged over channels and
classes. T is a channel's value reduced over positions, as in scoring, plus noise of
standard deviation τ that the forward pass really adds: without it, shrinking the
activations satisfies the penalty and the next layer undoes it. τ is NOISE times the
channel's standard deviation before training and then stands still. Derivation and the
sign of θ against β: docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgeprune.calibration.samples import SampleAxis, sample_axes
from edgeprune.graph import executor

aten = torch.ops.aten
NOISE = 0.1
CONVOLUTIONS = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
}  # fmt: skip
READERS = {*CONVOLUTIONS, aten.linear.default}
Axes = dict[str, SampleAxis]


def reading_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Convolutions and linear layers that read an activation, not an input of the model."""
    return [
        n
        for n in graph.graph.nodes
        if n.target in READERS and isinstance(n.args[0], fx.Node) and n.args[0].op != "placeholder"
    ]


def channel_dim(node: fx.Node) -> int:
    """The dimension of the first argument that holds channels."""
    return 1 if node.target in CONVOLUTIONS else -1


def reading_axes(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> Axes:
    """Where the samples are in what the reading nodes read, by source; without those where none are.

    Args:
        graph: in evaluation form. inputs: a batch.
    """
    first = {n.args[0].name: channel_dim(n) for n in reversed(reading_nodes(graph))}
    axes = sample_axes(graph, first.items(), inputs)
    return {source: axis for (source, _), axis in axes.items() if axis is not None}


class Observed:
    """Runs a graph; keeps what the reading nodes read, with noise of `scale` per channel added.

    One draw per sample and channel, shared by all positions, so that the reduced value has
    exactly this noise. `seen` maps a source to its reduced values (samples, channels); a
    source without samples (see `reading_axes`, which gives `axes`) has no entry and no noise.
    """

    def __init__(
        self, graph: fx.GraphModule, axes: Axes, scale: dict[str, torch.Tensor] | None = None
    ) -> None:
        self.graph = graph
        self.readers = {n.name for n in reading_nodes(graph) if n.args[0].name in axes}
        self.axes = axes
        self.scale = scale or {}
        self.seen: dict[str, torch.Tensor] = {}
        self._noisy: dict[str, torch.Tensor] = {}

    def outputs(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Flat tensor outputs, as `trace.run` gives them."""
        return executor.flat_outputs(self.graph, inputs, before=self._before)

    def _before(
        self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if node.name not in self.readers:
            return args, kwargs
        source = node.args[0].name
        if source not in self.seen:  # two readers of one source see the same noise
            x, axis, channels = args[0], self.axes[source], channel_dim(node)
            if source in self.scale:
                rows = axis.split(x, channels)
                noise = (
                    torch.randn(len(rows), 1, rows.shape[-1], dtype=x.dtype).to(x.device) * self.scale[source]
                )
                x = axis.join(rows + noise, x, channels)
            self.seen[source] = axis.split(x, channels).mean(1)
            self._noisy[source] = x
        return (self._noisy[source], *args[1:]), kwargs


def noise_scales(
    graph: fx.GraphModule, axes: Axes, batches: Sequence[tuple[torch.Tensor, ...]]
) -> dict[str, torch.Tensor]:
    """τ per source and channel: NOISE times the standard deviation of the reduced values."""
    seen: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for inputs in batches:
            watcher = Observed(graph, axes)
            watcher.outputs(inputs)
            for source, values in watcher.seen.items():
                seen.setdefault(source, []).append(values)
    return {k: NOISE * torch.cat(v).std(0).clamp_min(1e-6) for k, v in seen.items()}


def gaussian_conditional_entropy(
    values: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Mean over channels and samples of ½·log 2πe·var(T|Y), nats; τ² is a floor under the variance.

    The values carry the noise already, so their variance estimates var(activation|Y) + τ².
    Classes with a single sample in the batch say nothing of a variance and are left out.

    Args:
        values: (samples, channels), noise included. labels: (samples,). scale: τ, (channels,).
    """
    one_hot = torch.nn.functional.one_hot(labels).to(values.dtype)
    count = one_hot.sum(0)
    mean = (one_hot.T @ values) / count.clamp_min(1)[:, None]
    spread = one_hot.T @ (values - one_hot @ mean) ** 2
    several = count > 1
    if not several.any():
        return values.sum() * 0
    variance = spread[several] / (count[several] - 1)[:, None]
    nats = 0.5 * torch.log(2 * math.pi * math.e * torch.maximum(variance, scale**2))
    return ((nats.mean(1) * count[several]).sum() / count[several].sum()).to(values.dtype)


def penalty(
    seen: dict[str, torch.Tensor], labels: torch.Tensor, scales: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Class-conditional entropy of the noisy activations, averaged over the sources."""
    parts = [gaussian_conditional_entropy(v, labels, scales[k]) for k, v in seen.items() if k in scales]
    return torch.stack(parts).mean() if parts else torch.zeros(())


def similarity_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How differently two sets of features arrange the same samples (Tung & Mori, ICCV 2019).

    Mean squared difference of the samples' normalised Gram matrices: the number of features
    may differ, which after pruning it does. Shapes (samples, features).
    """

    def arranged(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x @ x.T, dim=1)

    return (arranged(student) - arranged(teacher)).square().sum() / len(student)


def last_features(graph: fx.GraphModule, seen: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """What the last reading node reads, of the values that were seen: the network's features."""
    nodes = reading_nodes(graph)
    return seen.get(nodes[-1].args[0].name) if nodes else None
