"""From what the rules said to components: union, rectangularity, channel_maps, groups.

Rectangularity: removal can only drop whole slices of a value, so under the final
components every label must depend on one dimension. Where it does not, the dimension
that leaves most components stays free and the others are tied; this repeats until
nothing changes (each round merges at least two components, so it ends).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgeprune.coupling.atoms import Atoms
from edgeprune.coupling.components import BoolArray, Couplings, IntArray, Layer, MacTerm, Pin
from edgeprune.coupling.decide import decide, units_left
from edgeprune.coupling.labels import Value, varying
from edgeprune.coupling.ties import Ties
from edgeprune.graph.features import SELECTION, is_selection


def resolve(ties: Ties, atoms: Atoms, values: dict[Any, Any]) -> Couplings:
    """Turn facts into Couplings; `values` maps nodes to Values, lists of them, or sizes."""
    flat = [v for value in values.values() for v in (value if isinstance(value, list) else [value])]
    tangled = [x for v in flat if isinstance(v, Value) for x in v.labels if len(varying(x)) > 1]
    roots, free = _union(ties)
    while decide(ties, roots, free) or _untangle(ties, tangled, roots, free):
        roots, free = _union(ties)
    return _build(ties, atoms, values, roots, free)


def _union(ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """Root of every atom, and whether each root may be removed.

    A component without any state tensor (zeros that only meet themselves) is nothing to remove.
    """
    size = ties.next_atom
    left = np.concatenate([np.zeros(0, np.int64), *ties.left])
    right = np.concatenate([np.zeros(0, np.int64), *ties.right])
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    count, roots = connected_components(graph, directed=False)
    free = np.ones(count, dtype=bool)
    free[roots[0]] = False
    for atoms, _ in ties.pins:
        free[roots[atoms]] = False
    real = np.ones(size, dtype=bool)
    for start, stop in ties.uniform:
        real[start:stop] = False
    backed = np.zeros(count, dtype=bool)
    backed[roots[real]] = True
    return roots, free & backed


def _untangle(ties: Ties, labels: list[torch.Tensor], roots: np.ndarray, free: np.ndarray) -> bool:
    """Tie what keeps a label from being rectangular; True when something was tied."""
    changed = False
    for label in labels:
        atoms = label.numpy()
        unit = np.where(free[roots[atoms]] & (atoms != 0), roots[atoms], -1)
        dims = [d for d in range(unit.ndim) if (unit != np.take(unit, [0], axis=d)).any()]
        if len(dims) < 2:
            continue
        best = max(dims, key=lambda d: units_left(unit, d))
        rows = np.moveaxis(atoms, best, 0).reshape(unit.shape[best], -1)
        flat = torch.from_numpy(np.ascontiguousarray(rows))
        ties.tie(flat[:, :1].expand_as(flat), flat, "it would leave a ragged tensor")
        changed = True
    return changed


def _build(
    ties: Ties, atoms: Atoms, values: dict[Any, Any], roots: np.ndarray, free: np.ndarray
) -> Couplings:
    used = np.zeros(len(free), dtype=bool)
    used[roots[1:]] = True
    used &= free
    number = np.full(len(free), -1, dtype=np.int32)
    number[used] = np.arange(int(used.sum()), dtype=np.int32)
    unit_of_atom = number[roots]
    unit_of_atom[0] = -1
    table = _ChannelMaps()

    def channel_map(vector: torch.Tensor | np.ndarray) -> int:
        return table.add(unit_of_atom[np.asarray(vector)])

    tensors: dict[str, tuple[int | None, ...]] = {}
    for name, first in atoms.first.items():
        sizes = atoms.sizes[name]
        tensors[name] = tuple(
            channel_map(np.arange(f, f + n)) if f else None for f, n in zip(first, sizes, strict=True)
        )
    spots = {
        node.name: tuple(
            _dimensions(v, channel_map, table) for v in (value if isinstance(value, list) else [value])
        )
        for node, value in values.items()
        if isinstance(value, Value | list)
    }
    layers = tuple(
        Layer(
            a.node, a.kind, a.source, a.weight, a.bias, a.in_dim, a.out_dim, a.channel_dim, a.out_channel_dim,
            channel_map(a.in_atoms), channel_map(a.out_atoms), a.groups,
        )
        for a in ties.layers
    )  # fmt: skip
    costs = tuple(MacTerm(node, k, tuple(channel_map(f) for f in factors)) for node, k, factors in ties.costs)
    count = int(used.sum())
    inexact, why_inexact = _marked(ties.inexact, unit_of_atom, count)
    contracted, why_contracted = _marked(ties.contracted, unit_of_atom, count)
    contracted &= ~inexact
    group, names = _groups(count, tensors, layers, table.rows)
    return Couplings(
        count, tuple(table.rows), tensors, dict(atoms.aliases), spots, layers, costs, ~(inexact | contracted),
        (*why_inexact, *why_contracted),
        _pins(ties, roots, free), group, names, contracted, _reads(ties, atoms),
        ties.choice,
    )  # fmt: skip


def _marked(
    marks: list[tuple[torch.Tensor, tuple[int, ...], str]], unit_of_atom: np.ndarray, count: int
) -> tuple[BoolArray, list[str]]:
    """Which components vary along the marked dimensions, and the reasons that hit any."""
    marked = np.zeros(count, dtype=bool)
    reasons = []
    for label, dims, reason in marks:
        units = unit_of_atom[label.numpy()]
        varies = [d for d in dims if (units != np.take(units, [0], axis=d)).any()]
        if varies or (len(dims) == len(varying(label)) and (units >= 0).any()):
            marked[units[units >= 0]] = True
            reasons.append(reason)
    return marked, list(dict.fromkeys(reasons))


def _reads(ties: Ties, atoms: Atoms) -> frozenset[tuple[str, int]]:
    """State tensor dimensions that read channels, whatever moved them on the way to their operator."""
    reading = np.zeros(ties.next_atom, dtype=bool)
    for read in ties.reads:
        reading[read] = True
    return frozenset(
        (name, d)
        for name, first in atoms.first.items()
        for d, (start, size) in enumerate(zip(first, atoms.sizes[name], strict=True))
        if start and reading[start : start + size].any()
    )


class _ChannelMaps:
    """A table of distinct vectors of component numbers."""

    def __init__(self) -> None:
        self.rows: list[IntArray] = []
        self._index: dict[bytes, int] = {}

    def add(self, vector: IntArray) -> int:
        vector = np.ascontiguousarray(vector, dtype=np.int32)
        key = vector.tobytes()
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(vector)
        return self._index[key]


def _dimensions(value: Any, channel_map: Any, table: _ChannelMaps) -> tuple[tuple[int, ...], ...]:
    """For each dimension of a value, the channel_maps that remove its indices."""
    if not isinstance(value, Value):
        return ()
    dims_extents: list[tuple[int, ...]] = [() for _ in value.shape]
    for label in value.labels:
        # Under the final components a label of several dimensions depends on one, or on none.
        ids = channel_map(label.reshape(-1))
        unit = table.rows[ids].reshape(tuple(label.shape))
        dims = [d for d in range(unit.ndim) if (unit != np.take(unit, [0], axis=d)).any()]
        if not dims:
            dims = [d for d in varying(label) if unit.reshape(-1)[0] >= 0][:1]
        if dims:
            vector = np.moveaxis(unit, dims[0], 0).reshape(unit.shape[dims[0]], -1)[:, 0]
            dims_extents[dims[0]] = (*dims_extents[dims[0]], table.add(vector))
    return tuple(dims_extents)


def _groups(
    count: int, tensors: dict[str, tuple[int | None, ...]], layers: tuple[Layer, ...], rows: list[IntArray]
) -> tuple[IntArray, tuple[str, ...]]:
    """Components that touch the same tensor dimensions form a group, named by what writes it."""
    rng = np.random.default_rng(0)
    signature = np.zeros(count, dtype=np.uint64)
    for dims in tensors.values():
        for channel_map in dims:
            code = rng.integers(1, 2**63, dtype=np.uint64)
            if channel_map is not None:
                units = np.unique(rows[channel_map])
                signature[units[units >= 0]] ^= code
    _, first, group = np.unique(signature, return_index=True, return_inverse=True)
    names = [f"group{i}" for i in range(len(first))]
    for name, dims in tensors.items():
        if is_selection(name) and dims[0] is not None:
            units = np.unique(rows[dims[0]])
            for g in np.unique(group[units[units >= 0]]):
                names[g] = f"input {name.removeprefix(SELECTION)}"
    for layer in reversed(layers):
        units = np.unique(rows[layer.outputs])
        for g in np.unique(group[units[units >= 0]]):
            names[g] = layer.name
    return group.astype(np.int32), tuple(names)


def _pins(ties: Ties, roots: np.ndarray, free: np.ndarray) -> tuple[Pin, ...]:
    """Reasons with the number of pinned units that each was the first to pin."""
    seen = np.zeros(len(free), dtype=bool)
    counts: dict[str, int] = {}
    real = np.ones(ties.next_atom, dtype=bool)
    for start, stop in ties.uniform:
        real[start:stop] = False
    for atoms, reason in ties.pins:
        units = np.unique(roots[atoms[real[atoms]]])
        fresh = units[~seen[units]]
        seen[fresh] = True
        counts[reason] = counts.get(reason, 0) + len(fresh)
    return tuple(Pin(reason, n) for reason, n in counts.items() if n and reason)
