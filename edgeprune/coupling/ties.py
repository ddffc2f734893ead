"""What rules say: which atoms stand or fall together, which are pinned, and why.

The only mutable object of the coupling analysis; it lives inside `couple`. Rules
never decide what is removable, they emit facts; `resolve` turns facts into components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from edgeprune.coupling.components import FactorChoice
from edgeprune.coupling.labels import Value, varying


@dataclass(frozen=True)
class LayerAtoms:
    """A weighted layer as its rule saw it: where it reads, writes, and what a pair costs."""

    node: str
    kind: str
    source: str  # node whose value is the layer's input
    weight: str | None  # state tensor, None where the weight is computed
    bias: str | None
    in_dim: int  # dimension of the weight that reads channels
    out_dim: int
    channel_dim: int  # dimension of the input value that holds the channels
    out_channel_dim: int
    in_atoms: torch.Tensor  # (inputs per weight,), zeros for a grouped layer
    out_atoms: torch.Tensor
    groups: int


@dataclass(frozen=True)
class Deferred:
    """A label of several dimensions met one of fewer: resolve decides which factor is free."""

    label: torch.Tensor
    partner: torch.Tensor
    reason: str


class Ties:
    """Collects pairs, pins, layers and cost terms while the graph is walked."""

    def __init__(self, batch: int = 1, choice: FactorChoice | None = None) -> None:
        self.batch = batch
        self.choice = choice or FactorChoice()
        self.next_atom = 1  # 0 is never an atom
        self.uniform: list[tuple[int, int]] = []  # ranges of atoms of content that is the same everywhere
        self.reads: list[np.ndarray] = []
        self.deferred: list[Deferred] = []
        self.left: list[np.ndarray] = []
        self.right: list[np.ndarray] = []
        self.pins: list[tuple[np.ndarray, str]] = []
        self.inexact: list[tuple[torch.Tensor, tuple[int, ...], str]] = []
        self.contracted: list[tuple[torch.Tensor, tuple[int, ...], str]] = []
        self.layers: list[LayerAtoms] = []
        self.costs: list[tuple[str, float, tuple[torch.Tensor, ...]]] = []

    def fresh(self, size: int, *, uniform: bool = False) -> torch.Tensor:
        """New atoms, shape (size,); `uniform` ones stand for content without identity (zeros, padding)."""
        start = self.next_atom
        self.next_atom += size
        if uniform:
            self.uniform.append((start, start + size))
        return torch.arange(start, start + size)

    def read(self, atoms: torch.Tensor) -> None:
        """These indices of a weight read channels: silencing them silences the channel."""
        read = np.unique(atoms.reshape(-1).numpy())
        self.reads.append(read[read != 0])

    def tie(self, a: torch.Tensor, b: torch.Tensor, reason: str) -> None:
        """Elementwise: a[i] and b[i] go together; a partner of 0 pins."""
        a, b = (x.reshape(-1) for x in torch.broadcast_tensors(a, b))
        pairs = torch.unique(torch.stack([a, b]), dim=1) if a.numel() > 4096 else torch.stack([a, b])
        a, b = pairs[0].numpy(), pairs[1].numpy()
        both = (a != 0) & (b != 0)
        self.left.append(a[both])
        self.right.append(b[both])
        self.pin(torch.from_numpy((a + b)[~both]), reason)

    def pin(self, atoms: torch.Tensor, reason: str) -> None:
        """These atoms stay, for this reason; an empty reason is not reported (kernel taps)."""
        pinned = np.unique(atoms.reshape(-1).numpy())
        pinned = pinned[pinned != 0]
        if pinned.size:
            self.pins.append((pinned, reason))

    def mark_inexact(self, label: torch.Tensor, dims: Iterable[int], reason: str) -> None:
        """Removing what varies along `dims` changes the result even where the channel carried nothing."""
        self.inexact.append((label, tuple(d for d in varying(label) if d in set(dims)), reason))

    def mark_contracted(self, atoms: torch.Tensor, reason: str) -> None:
        """Two activations are multiplied over these: zeros are harmless, but no weight reads them."""
        self.contracted.append((atoms.reshape(-1), (0,), reason))

    def cost(self, node: str, coefficient: float, *factors: torch.Tensor) -> None:
        """MACs per sample: coefficient times the kept count of every factor."""
        self.costs.append((node, coefficient, factors))

    def settle(self, label: torch.Tensor, dim: int, reason: str) -> torch.Tensor:
        """Make a label depend on `dim` alone: tie what varies elsewhere; gives the vector."""
        rows = label.movedim(dim, 0).reshape(label.shape[dim], -1)
        if rows.shape[1] > 1:
            self.tie(rows[:, :1].expand(-1, rows.shape[1] - 1), rows[:, 1:], reason)
        return rows[:, 0]

    def collapse(self, label: torch.Tensor, dims: set[int], reason: str) -> torch.Tensor | None:
        """Make a label independent of `dims`, which become size 1; None where nothing else is left."""
        left = [d for d in varying(label) if d not in dims]
        if not left:
            return None
        first = label
        for d in dims:
            first = first.narrow(d, 0, 1)
        if first.shape != label.shape:
            self.tie(first.expand_as(label), label, reason)
        return first

    def defer(self, label: torch.Tensor, partner: torch.Tensor, reason: str) -> None:
        """An element of the label goes with the partner's at the same place; partner varies in fewer dims."""
        self.deferred.append(Deferred(label, partner, reason))

    def distinct(self, value: Value, reason: str) -> list[torch.Tensor]:
        """Labels that share no dimension: of those that do, the preferred one stays free."""
        kept: list[torch.Tensor] = []
        for label in sorted(value.labels, key=self._preference):
            if any(set(varying(label)) & set(varying(other)) for other in kept):
                self.pin(label, f"{reason}: two free factors meet in one dimension")
            else:
                kept.append(label)
        return kept

    def vector(self, value: Value, dim: int, reason: str) -> torch.Tensor:
        """The atoms along one dimension, shape (size,); 0 where nothing is free there.

        Several labels on the dimension (a flattened grid of two free factors) would merge
        everything if an index could follow both: the preferred one stays free.
        """
        here = [x for x in value.labels if dim in varying(x)]
        if not here or value.shape[dim] == 1:
            return torch.zeros(value.shape[dim], dtype=torch.int64)
        here.sort(key=self._preference)
        for other in here[1:]:
            self.pin(other, f"{reason}: two free factors meet in one dimension")
        return self.settle(here[0], dim, reason)

    def _preference(self, label: torch.Tensor) -> tuple[bool, int]:
        """Channels of a layer before copies of one channel, then what has most units."""
        atoms = torch.unique(label)
        some = int(atoms[-1])
        return any(start <= some < stop for start, stop in self.uniform), -len(atoms)

    def pin_others(self, value: Value, dims: tuple[int, ...], reason: str) -> None:
        """Pin every label that depends on none of `dims`: the rule has no use for it."""
        for label in value.labels:
            if not set(varying(label)) & set(dims):
                self.pin(label, reason)

    def passing(self, value: Value, dims: tuple[int, ...]) -> list[torch.Tensor]:
        """Labels that do not depend on `dims`: they go through the operator untouched."""
        return [x for x in value.labels if not set(varying(x)) & set(dims)]
