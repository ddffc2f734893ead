"""The result of the coupling analysis: components and everything that they touch.

A component is a set of tensor indices that can only be removed together. Vectors of
component numbers (`channel_maps`) are shared: a tensor dimension, a value's dimension, a
layer's input and a cost factor all point into one table, so the sizes of a whole
pruned model follow from one count per channel_map.

Guarantee: removing whole components while every channel_map keeps at least one index
leaves all shapes consistent. Elsewhere: which to remove (planning), doing it (surgery).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
RemovalCost = Callable[[BoolArray], float]  # cost of the network without the marked components


@dataclass(frozen=True)
class FactorChoice:
    """What to free where two factors share a dimension.

    `heads`: "whole" removes attention heads, "width" the same positions in every head.
    `groups`: "whole" removes groups of a grouped convolution, "position" the same positions in each.
    """

    heads: str = "whole"
    groups: str = "whole"


@dataclass(frozen=True)
class Layer:
    """A weighted layer; `inputs` and `outputs` are channel_maps, None where none is free.

    `groups` > 1 means a grouped or depthwise convolution: its input channels are tied
    to its outputs and its weight has no free input dimension.
    """

    node: str
    kind: str
    source: str
    weight: str | None
    bias: str | None
    in_dim: int
    out_dim: int
    channel_dim: int
    out_channel_dim: int
    inputs: int
    outputs: int
    groups: int

    @property
    def name(self) -> str:
        """What reports call it: its weight's name without `.weight`, or its node."""
        return (self.weight or self.node).removesuffix(".weight")


@dataclass(frozen=True)
class MacTerm:
    """MACs per sample of one node: coefficient × kept count of each factor channel_map."""

    node: str
    coefficient: float
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Pin:
    """Channels that stay, and why."""

    reason: str
    channels: int


@dataclass(frozen=True)
class Couplings:
    """Components 0..count-1 over channel_maps; -1 in a channel_map marks an index that stays."""

    count: int
    channel_maps: tuple[IntArray, ...]
    tensors: dict[str, tuple[int | None, ...]]  # state tensor -> channel_map of each dimension
    aliases: dict[str, str]  # tied name -> the name that `tensors` uses
    values: dict[str, tuple[tuple[tuple[int, ...], ...], ...]]  # node -> output -> dimension -> channel_maps
    layers: tuple[Layer, ...]
    costs: tuple[MacTerm, ...]
    exact: BoolArray
    inexact_reasons: tuple[str, ...]
    pins: tuple[Pin, ...]
    group: IntArray  # component -> group: components that touch the same tensor dimensions
    group_names: tuple[str, ...]
    contracted: BoolArray = field(default_factory=lambda: np.zeros(0, bool))  # inexact only as products
    reads: frozenset[tuple[str, int]] = frozenset()  # (state tensor, dimension) that reads channels
    choice: FactorChoice = field(
        default_factory=FactorChoice
    )  # what was freed where two factors share a dimension

    @cached_property
    def _flat(self) -> tuple[npt.NDArray[np.int64], IntArray, IntArray]:
        """Size of each channel_map; of every index that is free, its component and its channel_map."""
        sizes = np.array([len(e) for e in self.channel_maps], dtype=np.int64)
        joined = np.concatenate(self.channel_maps) if self.channel_maps else np.zeros(0, np.int32)
        owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        free = joined >= 0
        return sizes, joined[free].astype(np.int32), owners[free]

    @cached_property
    def _latest(self) -> dict[bytes, npt.NDArray[np.int64]]:
        """The last answer of `kept`: whoever prices a plan asks several times about one removal."""
        return {}

    def kept(self, removed: BoolArray) -> npt.NDArray[np.int64]:
        """How many indices of each channel_map remain, read-only; `removed` is boolean, shape (count,)."""
        key = removed.tobytes()
        if key not in self._latest:
            sizes, components, owners = self._flat
            gone = np.bincount(owners[removed[components]], minlength=len(sizes))
            self._latest.clear()
            self._latest[key] = sizes - gone
            self._latest[key].flags.writeable = False
        return self._latest[key]

    def keep_mask(self, channel_map: int, removed: BoolArray) -> BoolArray:
        """Which indices of one channel_map remain, boolean, shape (size,)."""
        vector = self.channel_maps[channel_map]
        mask = np.ones(len(vector), dtype=bool)
        mask[vector >= 0] = ~removed[vector[vector >= 0]]
        return mask

    def emptied(self, removed: BoolArray) -> list[int]:
        """Extents that would keep no index at all."""
        return [int(e) for e in np.flatnonzero(self.kept(removed) == 0)]

    def keeping(self, stays: BoolArray, reason: str) -> Couplings:
        """The same analysis with some components pinned; the others are numbered anew, in their order.

        Args:
            stays: boolean, shape (count,).
            reason: why, for the list of pins.
        """
        if not stays.any():
            return self
        number = np.where(stays, -1, np.cumsum(~stays) - 1).astype(np.int32)
        channel_maps = tuple(np.where(e >= 0, number[e], -1).astype(np.int32) for e in self.channel_maps)
        old, group = np.unique(self.group[~stays], return_inverse=True)
        channels = sum(
            int(stays[v[v >= 0]].sum()) for v in (self.channel_maps[x.outputs] for x in self.layers)
        )
        return replace(
            self,
            count=int((~stays).sum()),
            channel_maps=channel_maps,
            exact=self.exact[~stays],
            contracted=self.contracted[~stays] if len(self.contracted) else self.contracted,
            group=group.astype(np.int32),
            group_names=tuple(self.group_names[g] for g in old),
            pins=(*self.pins, Pin(reason, channels)),
        )

    def reading(self, layer: Layer) -> tuple[int, int]:
        """Dimension of a layer's stored weight that reads channels, and the channel_map along it.

        A grouped convolution reads its own group: where its input dimension has nothing free, the
        dimension of its outputs stands for it. Its transposed form (inputs, outputs per group) is the
        other way round.
        """
        if layer.groups == 1:
            return layer.in_dim, layer.inputs
        return self._free_dimension(layer, (layer.in_dim, layer.out_dim))

    def writing(self, layer: Layer) -> tuple[int, int]:
        """Dimension of a layer's stored weight that makes its outputs, and the channel_map along it."""
        if layer.groups == 1:
            return layer.out_dim, layer.outputs
        return self._free_dimension(layer, (layer.out_dim, layer.in_dim))

    def _free_dimension(self, layer: Layer, dims: tuple[int, int]) -> tuple[int, int]:
        """The first of these dimensions of the weight with a free index; the first with any where none is."""
        maps = self.tensors[self.aliases[str(layer.weight)]]
        known = [(d, channel_map) for d in dims if (channel_map := maps[d]) is not None]
        free = [pair for pair in known if (self.channel_maps[pair[1]] >= 0).any()]
        return (free or known or [(layer.out_dim, layer.outputs)])[0]

    def macs(self, removed: BoolArray | None = None) -> float:
        """Multiply-accumulates per sample of convolutions, linear layers and matrix products."""
        kept = self.kept(np.zeros(self.count, bool) if removed is None else removed)
        return float(sum(c.coefficient * np.prod(kept[list(c.factors)]) for c in self.costs))

    def share_free(self) -> float:
        """Free channels over all channels of layer outputs."""
        vectors = [self.channel_maps[layer.outputs] for layer in self.layers]
        total = sum(len(v) for v in vectors)
        return sum(int((v >= 0).sum()) for v in vectors) / total if total else 0.0
