"""Indexing by data: gather, scatter, index, and writes into a part of a tensor.

An index chooses positions; channels that lie in other dimensions pass. Channels along
an indexed dimension stay, because which ones are read depends on the data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgeprune.coupling.labels import Value, along, keep_alive, varying
from edgeprune.coupling.movement import move
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators
from edgeprune.coupling.rules import combine
from edgeprune.coupling.sizes import Sizes, normal_dim, prefix
from edgeprune.coupling.ties import Ties
from edgeprune.graph.features import is_selection
from edgeprune.graph.module import concrete, shape_of

aten = torch.ops.aten


@operators(aten.index.Tensor, aten.index_select.default, replay="elements", lossless="move")
def index(ties: Ties, call: OperatorCall) -> Any:
    """Observed like any movement; an index from data is replayed as zeros on what it leaves alone.

    A selection of the input's features is an index whose own entries may go.
    """
    indices = call.args[2] if len(call.args) > 2 else None
    if isinstance(indices, Value) and indices.parameter is not None and is_selection(indices.parameter):
        return _select(ties, call, call.args[0], indices)
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where, pin=False)
    if moved is not None:
        return moved
    x = call.args[0]
    if call.node.target is aten.index_select.default:
        dims, chosen = {call.args[1] % len(x.shape)}, [call.args[2]]
    else:
        chosen = list(call.args[1])
        dims = {d for d, i in enumerate(chosen) if i is not None}
    for label in (t for v in chosen if isinstance(v, Value) for t in v.labels):
        ties.pin(label, f"{call.where} uses it as an index")
    passing = []
    for label in x.labels:
        if dims & set(varying(label)):
            ties.pin(label, f"{call.where} moves channels by an index that depends on the data")
        else:
            passing.append(label)
    zeros = [torch.zeros(v.shape, dtype=torch.int64) if isinstance(v, Value) else v for v in chosen]
    args = (call.args[1], zeros[0]) if call.node.target is aten.index_select.default else (zeros,)
    labels = [call.node.target(t.expand(x.shape).contiguous(), *args) for t in passing]
    return Value(tuple(call.shape), keep_alive(labels))


def _select(ties: Ties, call: OperatorCall, x: Value, chosen: Value) -> Value:
    """Along `dim` the features that the selection still holds; what else the input carries passes."""
    dim = call.args[1] % len(x.shape)
    _pin_along(ties, x, dim, f"{call.where} selects from it")
    shape = tuple(call.shape)
    passing = tuple(t for t in x.labels if dim not in varying(t))
    return Value(shape, (*passing, *along(shape, dim, ties.vector(chosen, 0, call.where))))


@operators(aten.gather.default)
def gather(ties: Ties, call: OperatorCall) -> Value:
    """Along `dim` positions are read; elsewhere source and index go together."""
    x, dim, index_ = call.args[:3]
    dim %= len(x.shape)
    shape = tuple(call.shape)
    _pin_along(ties, x, dim, f"{call.where} reads it by an index that depends on the data")
    same = Value(shape, tuple(t for t in x.labels if dim not in varying(t)))
    if any(a != b for d, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if d != dim):
        for t in same.labels:
            ties.pin(t, f"{call.where} reads only a part of it")
        same = Value(shape)
    return combine(ties, shape, [same, index_], call.where)


@operators(aten.scatter.src, aten.scatter.value, aten.scatter_add.default, aten.scatter_reduce.two)
def scatter(ties: Ties, call: OperatorCall) -> Value:
    """Along `dim` positions are written; elsewhere target, index and source go together."""
    x, dim, index_, source = call.args[:4]
    dim %= len(x.shape)
    operands = [v for v in (x, index_, source) if isinstance(v, Value)]
    for value in operands:
        _pin_along(ties, value, dim, f"{call.where} writes it by an index that depends on the data")
    partial = any(v.shape[d] != n for v in operands for d, n in enumerate(x.shape) if d != dim)
    labels = []
    for value in operands:
        kept = tuple(t for t in value.labels if dim not in varying(t))
        if partial:
            for t in kept:
                ties.pin(t, f"{call.where} writes only a part of it")
            kept = ()
        shape = tuple(1 if d == dim else n for d, n in enumerate(value.shape))
        labels.append(Value(shape, kept))
    shape = tuple(1 if d == dim else n for d, n in enumerate(x.shape))
    return Value(x.shape, combine(ties, shape, labels, call.where).labels)


def rewrite_slice_scatter(node: fx.Node, sizes: Sizes) -> NewCall:
    """The bounds of the part, counted in the indices that stay."""
    target, source = node.args[:2]
    dim, start, end, step = _slice_arguments(node)
    shape = shape_of(target.meta["val"])
    mask = sizes.masks(target).get(normal_dim(dim, len(shape)))
    if mask is None:
        return node.target, node.args, node.kwargs
    size = shape[normal_dim(dim, len(shape))]
    begin = prefix(mask, 0 if start is None else concrete(start), size)
    stop = prefix(mask, size if end is None else concrete(end), size)
    return node.target, (target, source, dim, begin, stop, step), {}


def rewrite_select_scatter(node: fx.Node, sizes: Sizes) -> NewCall:
    """The place of the part, counted in the indices that stay."""
    target, source, dim, index = node.args
    shape = shape_of(target.meta["val"])
    at = normal_dim(dim, len(shape))
    index = index + shape[at] if index < 0 else index
    return node.target, (target, source, dim, prefix(sizes.masks(target).get(at), index, shape[at])), {}


@operators(aten.slice_scatter.default, rewrite=rewrite_slice_scatter)
@operators(aten.select_scatter.default, rewrite=rewrite_select_scatter)
def write_part(ties: Ties, call: OperatorCall) -> Value:
    """The part that is written over goes with its source; the rest of the target goes on its own."""
    x, source, *rest = call.args
    part_of = aten.slice.Tensor if call.node.target is aten.slice_scatter.default else aten.select.int
    part = move(ties, part_of, (x, *rest), call.kwargs, call.where)
    combine(ties, source.shape, [part, source], call.where)
    return Value(x.shape, x.labels)


@operators(aten.copy.default)
def copy(ties: Ties, call: OperatorCall) -> Value:
    """The source, expanded to the target's shape."""
    return combine(ties, call.args[0].shape, list(call.args[:2]), call.where)


def _pin_along(ties: Ties, value: Any, dim: int, reason: str) -> None:
    for label in value.labels:
        if dim in varying(label):
            ties.pin(label, reason)


def _slice_arguments(node: fx.Node) -> tuple[Any, Any, Any, Any]:
    arguments = dict(zip(("dim", "start", "end", "step"), (0, None, None, 1), strict=True))
    arguments.update(zip(arguments, node.args[2:], strict=False))
    arguments.update(node.kwargs)
    return arguments["dim"], arguments["start"], arguments["end"], arguments["step"]
