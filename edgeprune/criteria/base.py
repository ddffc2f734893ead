"""The contract of a criterion: what it is given, what it gives back.

A criterion is a function of a Context that returns keep scores: per component, an
order of removal within each group, and per connection, from which masks are cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.capture import LayerStatistics, Statistics, mixing_layers
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.model.graph import state_tensors
from edgeprune.model.trace import Trace

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Context:
    """What criteria read. `statistics` is None without data: only weights can be scored then."""

    trace: Trace
    couplings: Couplings
    statistics: Statistics | None = None
    seed: int = 0
    theta: float = 0.0

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Weights of all layers by state tensor name."""
        names = {layer.weight for layer in self.couplings.layers}
        tensors = state_tensors(self.trace.graph)
        return {n: t.detach().float().numpy() for n, t in tensors.items() if n in names}

    def readers(self, group: int) -> list[tuple[Layer, LayerStatistics, npt.NDArray[np.int32]]]:
        """Layers that read a group's components, with their statistics and input components (-1: others)."""
        assert self.statistics is not None
        found = []
        for layer in mixing_layers(self.couplings):
            vector = self.couplings.extents[layer.inputs]
            mine = np.where(vector >= 0, self.couplings.group[np.maximum(vector, 0)] == group, False)
            if mine.any() and layer.node in self.statistics.layers:
                found.append((layer, self.statistics.layers[layer.node], np.where(mine, vector, -1)))
        return found


@dataclass(frozen=True)
class Scores:
    """Keep scores of one criterion.

    component: (count,), in `unit`; larger is more important; comparable within a group.
    rank: (count,), place in the removal order of the group, 0 goes first.
    connections: weight name -> float32 of the weight's shape.
    details: further values per component for `explain`, shape (count,).
    """

    criterion: str
    settings: dict[str, Any]
    component: FloatArray
    rank: npt.NDArray[np.int64]
    connections: dict[str, npt.NDArray[np.float32]]
    unit: str
    estimator: str
    samples: int
    details: dict[str, FloatArray] = field(default_factory=dict)


def matrices(weight: npt.NDArray[np.float32], layer: Layer) -> FloatArray:
    """A layer's weight as (taps, outputs, inputs), float64."""
    moved = np.moveaxis(weight, (layer.out_dim, layer.in_dim), (0, 1))
    return np.moveaxis(moved.reshape(*moved.shape[:2], -1), 2, 0).astype(np.float64)


def per_component(couplings: Couplings, extent: int, values: FloatArray) -> FloatArray:
    """Sum channel values into their components, shape (count,)."""
    vector = couplings.extents[extent]
    free = vector >= 0
    return np.asarray(np.bincount(vector[free], values[free], couplings.count), dtype=np.float64)


def rank_in_groups(couplings: Couplings, component: FloatArray) -> npt.NDArray[np.int64]:
    """Removal order by score within each group; ties go to the lower component."""
    rank = np.zeros(couplings.count, dtype=np.int64)
    order = np.lexsort((np.arange(couplings.count), component, couplings.group))
    starts = np.searchsorted(couplings.group[order], np.arange(len(couplings.group_names)))
    rank[order] = np.arange(couplings.count) - starts[couplings.group[order]]
    return rank


def broadcast(context: Context, component: FloatArray) -> dict[str, npt.NDArray[np.float32]]:
    """A component's score spread evenly over its connections in the layers that read it.

    Connections of pinned inputs score the layer's largest value: a mask keeps them.
    """
    couplings, weights = context.couplings, context.weights()
    # A weight that is used twice holds its connections once.
    readings = {
        (couplings.aliases[str(layer.weight)], layer.in_dim, layer.inputs): str(layer.weight)
        for layer in mixing_layers(couplings)
    }
    sizes = np.zeros(couplings.count)
    for (_, in_dim, inputs), name in readings.items():
        weight = weights[name]
        fan = np.full(weight.shape[in_dim], weight.size / weight.shape[in_dim])
        sizes += per_component(couplings, inputs, fan)
    share = np.divide(component, sizes, out=np.zeros_like(component), where=sizes > 0)
    found = {}
    for (_, in_dim, inputs), name in readings.items():
        weight = weights[name]
        vector = couplings.extents[inputs]
        value = np.where(vector >= 0, share[np.maximum(vector, 0)], share.max(initial=0.0))
        shape = [-1 if d == in_dim else 1 for d in range(weight.ndim)]
        found[name] = np.broadcast_to(value.reshape(shape), weight.shape).astype(np.float32)
    return found


def measured(context: Context) -> npt.NDArray[np.bool_]:
    """Components that a captured layer reads channel by channel, shape (count,)."""
    assert context.statistics is not None
    found = np.zeros(context.couplings.count, dtype=bool)
    for layer in mixing_layers(context.couplings):
        vector = context.couplings.extents[layer.inputs]
        if layer.node in context.statistics.layers:
            found[vector[vector >= 0]] = True
    return found


def complete(context: Context, component: FloatArray) -> FloatArray:
    """Scores with those of unread components replaced by what silencing their other readers costs.

    Attention widths of queries and keys, units of a lower recurrent layer: no layer's
    inputs show them, and a 0 would send them away first. A group is read as a whole or not
    at all, so the two units never meet in one order.
    """
    assert context.statistics is not None
    return np.where(measured(context), component, context.statistics.other_readings)


def filters(couplings: Couplings) -> list[tuple[str, int, npt.NDArray[np.int32]]]:
    """(weight, dimension, component of each index) of what counts as components' filters, each weight once.

    Filters are what writes a component. What no weight writes, a feature of an input, has the
    weights that read it instead.
    """
    written = np.zeros(couplings.count, dtype=bool)
    found: dict[tuple[str, int], npt.NDArray[np.int32]] = {}
    for layer in couplings.layers:
        vector = couplings.extents[layer.outputs]
        written[vector[vector >= 0]] = True
        if layer.weight is not None:
            found.setdefault((couplings.aliases[layer.weight], layer.out_dim), vector)
    for layer in mixing_layers(couplings):
        vector = couplings.extents[layer.inputs]
        unwritten = np.where((vector >= 0) & ~written[np.maximum(vector, 0)], vector, -1)
        if (unwritten >= 0).any():
            found.setdefault((couplings.aliases[str(layer.weight)], layer.in_dim), unwritten)
    return [(name, dim, vector) for (name, dim), vector in found.items()]


def magnitude(context: Context) -> FloatArray:
    """L2 norm of a component's filters, over all of them, shape (count,)."""
    couplings, weights = context.couplings, context.weights()
    total = np.zeros(couplings.count)
    for name, dim, vector in filters(couplings):
        moved = np.moveaxis(weights[name], dim, 0).astype(np.float64)
        squares = (moved.reshape(len(moved), -1) ** 2).sum(1)
        free = vector >= 0
        total += np.bincount(vector[free], squares[free], couplings.count)
    return np.sqrt(total)
