"""What reads a component besides the layers that mix channels, and what silencing that costs.

Recurrent weights read hidden units; queries and keys meet in a product that no weight
reads; a channel may feed an operator that keeps no row per channel. To second order in
the silenced weights the loss grows by ½·wᵀF·w, F the Fisher matrix; with labels drawn
from the model the score has mean zero, so the squared slope of a whole batch estimates
the sum over its samples without a pass per sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.coupling.components import Couplings, Layer
from edgeprune.graph.compute import float64
from edgeprune.graph.module import state_tensors

DRAWS = 4  # labels drawn per batch: a squared slope of one draw is a noisy estimate


class Readings:
    """Sums ½·(Σ w·∂L/∂w)² per component over its further readings; `total` has shape (count,), in nats."""

    def __init__(self, graph: fx.GraphModule, couplings: Couplings, layers: list[Layer]) -> None:
        tensors = state_tensors(graph)
        self.couplings = couplings
        self.places = [
            (name, dim)
            for name, dim in further_readings(couplings, layers)
            if isinstance(tensors.get(name), torch.nn.Parameter) and tensors[name].is_floating_point()
        ]
        self.tensors = {name: tensors[name] for name, _ in self.places}
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)
        self.total = np.zeros(couplings.count)

    def add(self, outputs: tuple[torch.Tensor, ...], draw: Callable[[], tuple[torch.Tensor, ...]]) -> None:
        """One batch: `draw` gives ∂L/∂outputs under freshly drawn targets."""
        if not self.places or not any(x.requires_grad for x in outputs):
            return
        for _ in range(DRAWS):
            slopes = slopes_at(outputs, list(self.tensors.values()), draw())
            slope_of = dict(zip(self.tensors, slopes, strict=True))
            slope = np.zeros(self.couplings.count)
            for name, dim in self.places:
                if slope_of[name] is None:
                    continue
                product = float64(slope_of[name] * self.tensors[name].detach()).movedim(dim, 0)
                channel_map = self.couplings.tensors[name][dim]
                assert channel_map is not None
                vector = self.couplings.channel_maps[channel_map]
                free = vector >= 0
                values = product.reshape(len(product), -1).sum(1).cpu().numpy()
                slope += np.bincount(vector[free], values[free], self.couplings.count)
            self.total += slope**2 / (2 * DRAWS)


def slopes_at(
    outputs: tuple[torch.Tensor, ...], at: list[torch.Tensor], seeds: tuple[torch.Tensor | None, ...]
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of all outputs together at some tensors; None for what no output depends on.

    Args:
        seeds: ∂L/∂output; None for outputs that the loss does not read.
    """
    pairs = [
        (x, seed.to(x.device, x.dtype))
        for x, seed in zip(outputs, seeds, strict=True)
        if x.requires_grad and seed is not None
    ]
    if not at or not pairs:
        return (None,) * len(at)
    gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
        [x for x, _ in pairs], at, [seed for _, seed in pairs], retain_graph=True, allow_unused=True
    )
    return gradients


def further_readings(couplings: Couplings, layers: list[Layer]) -> list[tuple[str, int]]:
    """(state tensor, dimension) that reads components and belongs to none of the mixing layers.

    Components that no weight reads at all are silenced where the first layer writes them.
    """
    mixed = {(couplings.aliases[str(layer.weight)], layer.in_dim) for layer in layers}
    places = [
        (name, dim)
        for name, dim in sorted(couplings.reads - mixed)
        if couplings.tensors[name][dim] is not None
    ]
    read = np.zeros(couplings.count, dtype=bool)
    for name, dim in [*places, *mixed]:
        _mark(couplings, read, couplings.tensors[name][dim])
    places = [p for p in places if _frees(couplings, p)]
    for name, dims in couplings.tensors.items():
        for dim, channel_map in enumerate(dims):
            vector = couplings.channel_maps[channel_map] if channel_map is not None else np.zeros(0, np.int32)
            if (~read[vector[vector >= 0]]).any():
                places.append((name, dim))
                bias = _bias_of(couplings, name, dim)
                if bias is not None:
                    places.append((bias, 0))
                _mark(couplings, read, channel_map)
    return list(dict.fromkeys(places))


def _frees(couplings: Couplings, place: tuple[str, int]) -> bool:
    channel_map = couplings.tensors[place[0]][place[1]]
    return channel_map is not None and bool((couplings.channel_maps[channel_map] >= 0).any())


def _mark(couplings: Couplings, read: npt.NDArray[np.bool_], channel_map: int | None) -> None:
    if channel_map is not None:
        vector = couplings.channel_maps[channel_map]
        read[vector[vector >= 0]] = True


def _bias_of(couplings: Couplings, weight: str, dim: int) -> str | None:
    for layer in couplings.layers:
        if layer.weight and couplings.aliases[layer.weight] == weight and layer.out_dim == dim and layer.bias:
            return couplings.aliases[layer.bias]
    return None
