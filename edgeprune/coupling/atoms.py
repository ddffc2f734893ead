"""Atoms of state tensors: one integer per index of every dimension that may shrink."""

from __future__ import annotations

import torch

from edgeprune.coupling.labels import Value, along
from edgeprune.coupling.ties import Ties
from edgeprune.graph.features import is_selection


class Atoms:
    """Which atoms belong to which dimension of which state tensor."""

    def __init__(self, ties: Ties) -> None:
        self.first: dict[str, tuple[int, ...]] = {}  # state tensor -> first atom per dimension, 0 for none
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.aliases: dict[str, str] = {}
        self._name_of: dict[int, str] = {}
        self._ties = ties

    def value(self, name: str, tensor: torch.Tensor) -> Value:
        """The value of a state tensor with fresh atoms, or those of the tensor it is tied to."""
        name = self._name_of.setdefault(id(tensor), name)
        shape = tuple(tensor.shape)
        if name not in self.first:
            first = []
            for size in shape:
                free = size > 1 and (tensor.is_floating_point() or is_selection(name))
                first.append(int(self._ties.fresh(size)[0]) if free else 0)
            self.first[name], self.sizes[name] = tuple(first), shape
        labels = [
            label
            for d, start in enumerate(self.first[name])
            if start
            for label in along(shape, d, torch.arange(start, start + shape[d]))
        ]
        constant = None if isinstance(tensor, torch.nn.Parameter) else tensor
        return Value(shape, tuple(labels), constant, name, stored=True)
