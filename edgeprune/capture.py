"""One pass over the calibration data: what every weighted layer reads and is sensitive to.

For each layer that mixes channels (dense convolutions and linear layers) the pass
gives, per input channel, moments over all positions, the value per sample reduced over
positions, and the first-order Taylor term; per output channel, its Fisher weight. Sums
are float64 over fixed batches in index order, so the same data gives the same numbers.

Fisher weight of output j: the expected squared derivative of the loss by a_j, summed
over positions, under labels drawn from the model itself (no labels needed); half of it
times a squared error is the expected increase of the loss, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.coupling.components import Couplings, Layer
from edgeprune.data import Dataset
from edgeprune.model.run import batches
from edgeprune.model.trace import Trace

FULL_COVARIANCE = 4096  # inputs; above, a layer keeps variances only (8·C² bytes otherwise)
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer with I inputs and O outputs over N samples.

    mean (I,); second (I, I) = E[x xᵀ] over samples and positions, or (I,) = E[x²] above
    FULL_COVARIANCE inputs; reduced (N, I) float32, mean over positions; taylor (I,) =
    E|Σ x·∂L/∂x|; fisher (O,); output_std (O,) of the layer's output.
    """

    mean: FloatArray
    second: FloatArray
    reduced: npt.NDArray[np.float32]
    taylor: FloatArray
    fisher: FloatArray
    output_std: FloatArray

    @property
    def covariance(self) -> FloatArray:
        """Covariance over positions, shape (I, I); diagonal where only variances were kept."""
        if self.second.ndim == 1:
            return np.diag(self.second - self.mean**2)
        return self.second - np.outer(self.mean, self.mean)


@dataclass(frozen=True)
class Statistics:
    """Per layer (by node name), with the labels that scoring used."""

    layers: dict[str, LayerStatistics]
    labels: npt.NDArray[np.int64]
    label_source: str
    samples: int


def mixing_layers(couplings: Couplings) -> list[Layer]:
    """Layers whose weight reads channels one by one."""
    return [layer for layer in couplings.layers if layer.groups == 1 and layer.weight is not None]


def capture(
    trace: Trace,
    couplings: Couplings,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Collect statistics on the samples `indices`; batches are taken in that order."""
    layers = mixing_layers(couplings)
    sums = {layer.node: _Sums() for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    graph = trace.copy()
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    labels: list[npt.NDArray[np.int64]] = []
    done = 0
    for inputs, given in batches(dataset, indices, batch_size):
        watcher = _Watcher(graph, layers)
        out = watcher.run(*inputs, enable_io_processing=False)
        first = torch.utils._pytree.tree_flatten(out)[0][0]
        target = first.argmax(1).numpy() if given is None and first.dim() == 2 else given
        labels.append(np.zeros(len(first), np.int64) if target is None else target)
        with torch.no_grad():
            fisher_seed, taylor_seed = _cotangents(first.detach(), target, generator)
        watched = [watcher.outputs[layer.node] for layer in layers]
        tops = torch.autograd.grad(first, watched, fisher_seed, retain_graph=True, allow_unused=True)
        sources = [watcher.inputs[layer.node] for layer in layers]
        bottoms = torch.autograd.grad(first, sources, taylor_seed, allow_unused=True)
        for layer, top, bottom in zip(layers, tops, bottoms, strict=True):
            sums[layer.node].add(layer, watcher, top, bottom)
        done += len(first)
        if progress:
            progress(done, len(indices))
    return Statistics(
        {node: s.result() for node, s in sums.items()},
        np.concatenate(labels),
        "labels" if dataset.labels is not None else "the dense model's own decisions",
        len(indices),
    )


def _cotangents(
    out: torch.Tensor, labels: npt.NDArray[np.int64] | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """∂L/∂out for labels drawn from the model, and for the labels given.

    Outputs of shape (samples, classes) are logits under cross-entropy; any other output is
    the mean of a Gaussian with unit variance.
    """
    if out.dim() != 2 or out.shape[1] < 2 or labels is None:
        noise = torch.randn(out.shape, generator=generator, dtype=out.dtype)
        return noise, noise
    p = out.softmax(1)
    drawn = torch.multinomial(p.float(), 1, generator=generator)[:, 0]
    classes = out.shape[1]
    fisher = p - torch.nn.functional.one_hot(drawn, classes)
    taylor = p - torch.nn.functional.one_hot(torch.from_numpy(labels), classes)
    return fisher.to(out.dtype), taylor.to(out.dtype)


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
        if not x.requires_grad:  # nothing trainable upstream: start the tape here
            x = self._leaves.setdefault(id(x), (x, x.detach().requires_grad_(True)))[1]
        self.inputs[n.name] = x
        out = n.target(*(x if i == at else a for i, a in enumerate(args)), **kwargs)
        self.outputs[n.name] = out
        return out


class _Sums:
    """Running sums of one layer, float64."""

    def __init__(self) -> None:
        self.n = 0
        self.positions = 0
        self.reduced: list[npt.NDArray[np.float32]] = []
        self.parts: dict[str, Any] = {}

    def add(self, layer: Layer, watcher: _Watcher, top: Any, bottom: Any) -> None:
        x = watcher.inputs[layer.node].detach().movedim(layer.channel_dim, -1)
        y = watcher.outputs[layer.node].detach().movedim(layer.out_channel_dim, -1)
        rows = x.reshape(-1, x.shape[-1])
        self.n += len(x)
        self.positions += len(rows)
        wide = rows.double()
        full = rows.shape[1] <= FULL_COVARIANCE
        self._sum("mean", wide.sum(0))
        self._sum("second", wide.T @ wide if full else (wide**2).sum(0))
        outputs = y.reshape(-1, y.shape[-1]).double()
        self._sum("out", outputs.sum(0))
        self._sum("out2", (outputs**2).sum(0))
        self.reduced.append(x.reshape(len(x), -1, x.shape[-1]).mean(1).float().numpy())
        if top is not None:
            self._sum(
                "fisher",
                (top.movedim(layer.out_channel_dim, -1).reshape(-1, y.shape[-1]).double() ** 2).sum(0),
            )
        if bottom is not None:
            product = bottom.movedim(layer.channel_dim, -1) * x
            self._sum("taylor", product.reshape(len(x), -1, x.shape[-1]).sum(1).abs().double().sum(0))

    def _sum(self, name: str, value: torch.Tensor) -> None:
        self.parts[name] = self.parts[name] + value if name in self.parts else value

    def result(self) -> LayerStatistics:
        part = {k: v.numpy() for k, v in self.parts.items()}
        mean = part["mean"] / self.positions
        variance = part["out2"] / self.positions - (part["out"] / self.positions) ** 2
        return LayerStatistics(
            mean,
            part["second"] / self.positions,
            np.concatenate(self.reduced),
            part.get("taylor", np.zeros_like(mean)) / self.n,
            part.get("fisher", np.zeros_like(variance)) / self.n,
            np.sqrt(np.maximum(variance, 0.0)),
        )
