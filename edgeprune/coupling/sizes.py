"""What every value keeps: masks per dimension and shapes after a removal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.coupling.labels import slim
from edgeprune.graph.module import shape_of


class Sizes:
    """Predicted masks and shapes of every node under one removal, shape (count,) boolean."""

    def __init__(self, couplings: Couplings, removed: BoolArray) -> None:
        self.couplings = couplings
        self.removed = removed
        self._masks: dict[int, BoolArray] = {}
        self._found: dict[tuple[str, int], dict[int, BoolArray]] = {}

    def extent_mask(self, channel_map: int) -> BoolArray:
        if channel_map not in self._masks:
            self._masks[channel_map] = self.couplings.keep_mask(channel_map, self.removed)
        return self._masks[channel_map]

    def masks(self, node: fx.Node, output: int = 0) -> dict[int, BoolArray]:
        """Dimension -> which indices stay, for the dimensions that lose some."""
        key = (node.name, output)
        if key not in self._found:
            spots = self.couplings.values.get(node.name, ())
            self._found[key] = {}
            for dim, channel_maps in enumerate(spots[output] if output < len(spots) else ()):
                masks = [self.extent_mask(e) for e in channel_maps]
                both = masks[0] if len(masks) == 1 else np.logical_and.reduce(masks) if masks else None
                if both is not None and not both.all():
                    self._found[key][dim] = both
        return self._found[key]

    def tensor_masks(self, name: str) -> dict[int, BoolArray]:
        """The same for a state tensor."""
        dims = self.couplings.tensors[self.couplings.aliases[name]]
        masks = {d: self.extent_mask(e) for d, e in enumerate(dims) if e is not None}
        return {d: m for d, m in masks.items() if not m.all()}

    def shape(self, node: fx.Node, output: int | None = None) -> tuple[int, ...]:
        """Predicted shape of a node's value, or of one of its several outputs."""
        shape = shape_of(node.meta["val"])
        if output is not None:
            shape = shape[output]
        new = list(shape)
        for dim, mask in self.masks(node, output or 0).items():
            new[dim] = int(mask.sum())
        return tuple(new)

    def changes(self, node: fx.Node) -> bool:
        """Whether the node's value, or one of its operands, loses indices."""
        outputs = range(len(self.couplings.values.get(node.name, ())))
        return any(self.masks(node, i) for i in outputs) or any(
            self.masks(n, i)
            for n in node.all_input_nodes
            for i in range(len(self.couplings.values.get(n.name, ())))
        )


def compact(tensor: torch.Tensor, masks: dict[int, BoolArray]) -> torch.Tensor:
    """Drop the indices that the masks remove; what is only repeated (stride 0) stays so."""
    shape, slimmed = list(tensor.shape), slim(tensor)
    for dim, mask in masks.items():
        kept = np.flatnonzero(mask)
        shape[dim] = len(kept)
        if slimmed.shape[dim] == len(mask):
            slimmed = slimmed.index_select(dim, torch.from_numpy(kept))
    return slimmed.expand(shape)


def normal_dim(dim: Any, rank: int) -> int:
    """A dimension counted from the front."""
    return int(dim) % rank


def prefix(mask: BoolArray | None, index: int, size: int) -> int:
    """Where an index boundary lands when the removed ones before it are gone."""
    index = min(max(index + size if index < 0 else index, 0), size)
    return index if mask is None else int(mask[:index].sum())


def replaced(args: Sequence[Any], index: int, value: Any) -> tuple[Any, ...]:
    """Arguments with the one at `index` replaced."""
    out = list(args)
    out[index] = value
    return tuple(out)


def groups_left(mask: BoolArray | None, groups: int) -> int:
    """How many of equal groups of channels keep any; the mask says which channels stay."""
    return groups if mask is None else int(mask.reshape(groups, -1).any(1).sum())
