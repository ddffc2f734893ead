"""The contract of a criterion: what it is given, what it gives back.

A criterion is a function of a Context that returns keep scores: per component, an
order of removal within each group, and per connection, from which masks are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeprune.calibration.capture import LayerStatistics, Statistics, mixing_layers
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.errors import CriterionError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace

FloatArray = npt.NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])


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
        """Layers that read a group's components, with their statistics and input components (-1: others).

        Raises:
            CriterionError: there is no data.
        """
        if self.statistics is None:
            raise CriterionError(
                "this criterion asks what layers read, and there is no data",
                tip="give --data, or use --criterion l2",
            )
        readers = []
        for layer in mixing_layers(self.couplings):
            vector = self.couplings.channel_maps[layer.inputs]
            mine = np.where(vector >= 0, self.couplings.group[np.maximum(vector, 0)] == group, False)
            if mine.any() and layer.node in self.statistics.layers:
                readers.append((layer, self.statistics.layers[layer.node], np.where(mine, vector, -1)))
        return readers


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


def declares(*, needs_data: bool = True, takes_theta: bool = False) -> Callable[[Function], Function]:
    """Mark a criterion with what it asks for, as attributes of the function; a third party does the same.

    Args:
        needs_data: without it the weights alone are enough. takes_theta: `Context.theta` changes its scores.
    """

    def mark(criterion: Function) -> Function:
        vars(criterion).update(needs_data=needs_data, takes_theta=takes_theta)
        return criterion

    return mark


def classes(context: Context, criterion: str) -> npt.NDArray[np.int64]:
    """The class of each sample, for criteria that ask what a channel tells of it.

    Raises:
        CriterionError: the data have no classes, or all samples are of one: every score would be alike.
    """
    assert context.statistics is not None
    labels, source = context.statistics.labels, context.statistics.label_source
    reason = None
    if labels is None:
        reason = "the data have no labels and the model's output is not one of class scores"
    elif len(labels) and (labels == labels[0]).all():
        reason = f"all {len(labels)} samples are of class {labels[0]} ({source})"
    if labels is None or reason:
        raise CriterionError(
            f"--criterion {criterion}: ranks by what channels tell of a sample's class, but {reason}",
            tip="use ib-gauss, taylor, vib, l2, fpgm or random, which need no classes, or give labelled data",
        )
    return labels


def matrices(weight: npt.NDArray[np.float32], layer: Layer) -> FloatArray:
    """A layer's weight as (taps, outputs, inputs), float64."""
    moved = np.moveaxis(weight, (layer.out_dim, layer.in_dim), (0, 1))
    return np.moveaxis(moved.reshape(*moved.shape[:2], -1), 2, 0).astype(np.float64)


def per_component(couplings: Couplings, channel_map: int, values: FloatArray) -> FloatArray:
    """Sum channel values into their components, shape (count,)."""
    vector = couplings.channel_maps[channel_map]
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
    share = np.append(share, share.max(initial=0.0))  # at −1
    scores = {}
    for (_, in_dim, inputs), name in readings.items():
        weight = weights[name]
        value = share[couplings.channel_maps[inputs]]
        shape = [-1 if d == in_dim else 1 for d in range(weight.ndim)]
        scores[name] = np.broadcast_to(value.reshape(shape), weight.shape).astype(np.float32)
    return scores


def measured_components(context: Context) -> npt.NDArray[np.bool_]:
    """Components with values per sample: a captured layer reads them channel by channel, shape (count,)."""
    assert context.statistics is not None
    mask = np.zeros(context.couplings.count, dtype=bool)
    for layer in mixing_layers(context.couplings):
        vector = context.couplings.channel_maps[layer.inputs]
        statistics = context.statistics.layers.get(layer.node)
        if statistics is not None and statistics.samples is not None:
            mask[vector[vector >= 0]] = True
    return mask


def complete(context: Context, component: FloatArray) -> FloatArray:
    """Scores with those of components without values per sample replaced by what silencing them costs.

    Attention widths of queries and keys, units of a lower recurrent layer: no layer's
    inputs show them, and a 0 would send them away first. Channels of a value that no sample
    enters (a table of positions that a small network turns into biases): there the cost is
    ½·E[x²]·wᵀSw over the weights that read them. A group is read as a whole or not at all, so
    the two units never meet in one order.
    """
    assert context.statistics is not None
    return np.where(
        measured_components(context), component, context.statistics.other_readings + _constant(context)
    )


def _constant(context: Context) -> FloatArray:
    """Nats per sample that silencing costs at layers whose inputs follow no samples, shape (count,)."""
    assert context.statistics is not None
    couplings, total = context.couplings, np.zeros(context.couplings.count)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for layer in mixing_layers(couplings):
        layer_statistics = context.statistics.layers.get(layer.node)
        if layer_statistics is not None and layer_statistics.samples is None:
            weights = weights or context.weights()
            energy = own_energy(matrices(weights[str(layer.weight)], layer), layer_statistics.slopes)
            total += per_component(couplings, layer.inputs, 0.5 * layer_statistics.power * energy)
    return total


def own_energy(taps: FloatArray, slopes: FloatArray) -> FloatArray:
    """Diagonal of Σ over taps of WᵀSW, shape (inputs,).

    Args:
        taps: weights (taps, outputs, inputs). slopes: moments S (outputs, outputs), or their diagonal.
    """
    moved = taps * slopes[:, None] if slopes.ndim == 1 else slopes @ taps
    return np.asarray((moved * taps).sum((0, 1)))


def filters(context: Context) -> list[tuple[FloatArray, npt.NDArray[np.int32]]]:
    """(weight with a dimension moved first, component of each index there) of the filters, each weight once.

    Filters are what writes a component. What no layer writes, a feature of an input, has the
    weights that read it instead; what no layer reads either, a unit of a lower recurrent
    layer, every matrix that has an index for it.
    """
    couplings = context.couplings
    written = np.zeros(couplings.count + 1, dtype=bool)  # one more for −1
    vectors: dict[tuple[str, int], npt.NDArray[np.int32]] = {}
    for layer in couplings.layers:
        vector = couplings.channel_maps[layer.outputs]
        written[vector[vector >= 0]] = True
        if layer.weight is not None:
            dim, channel_map = couplings.writing(layer)
            vectors.setdefault((couplings.aliases[layer.weight], dim), couplings.channel_maps[channel_map])
    for layer in mixing_layers(couplings):
        vector = couplings.channel_maps[layer.inputs]
        unwritten = np.where(written[vector], -1, vector)
        if (unwritten >= 0).any():
            vectors.setdefault((couplings.aliases[str(layer.weight)], layer.in_dim), unwritten)
    known = np.zeros(couplings.count + 1, dtype=bool)
    for vector in vectors.values():
        known[vector[vector >= 0]] = True
    tensors = state_tensors(context.trace.graph)
    for name, dims in couplings.tensors.items():
        for dim, map_of_dim in enumerate(dims):
            vector = couplings.channel_maps[map_of_dim] if map_of_dim is not None else np.zeros(0, np.int32)
            fresh = np.where(known[vector], -1, vector)
            if tensors[name].dim() > 1 and tensors[name].is_floating_point() and (fresh >= 0).any():
                vectors.setdefault((name, dim), fresh)
    return [
        (np.moveaxis(tensors[name].detach().float().numpy(), dim, 0).astype(np.float64), vector)
        for (name, dim), vector in vectors.items()
    ]


def magnitude(context: Context) -> FloatArray:
    """L2 norm of a component's filters, over all of them, shape (count,)."""
    couplings = context.couplings
    total = np.zeros(couplings.count)
    for moved, vector in filters(context):
        squares = (moved.reshape(len(moved), -1) ** 2).sum(1)
        free = vector >= 0
        total += np.bincount(vector[free], squares[free], couplings.count)
    return np.sqrt(total)
