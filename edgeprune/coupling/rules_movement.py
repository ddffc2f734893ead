"""Operators that only move elements, with how their arguments follow a removal.

Their rule is the operator itself, run on labels (movement); each is proven to commute with removal (replay).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgeprune.coupling.labels import Value
from edgeprune.coupling.movement import join, move, roll
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators, unchanged
from edgeprune.coupling.rules import blank
from edgeprune.coupling.sizes import Sizes, normal_dim, prefix, replaced
from edgeprune.coupling.ties import Ties
from edgeprune.errors import TraceError
from edgeprune.graph.module import shape_of, source_line

aten = torch.ops.aten


def rewrite_view(node: fx.Node, sizes: Sizes) -> NewCall:
    """A view becomes a reshape: the narrower operand may have another memory layout."""
    new = _new_sizes(node, node.args[1], shape_of(node.meta["val"]), sizes.shape(node))
    return aten.reshape.default, replaced(node.args, 1, new), node.kwargs


def rewrite_unflatten(node: fx.Node, sizes: Sizes) -> NewCall:
    """Sizes of the parts that shrink."""
    source, dim, parts = node.args[:3]
    at = normal_dim(dim, len(shape_of(source.meta["val"])))
    old, new = shape_of(node.meta["val"]), sizes.shape(node)
    out = _new_sizes(node, parts, old[at : at + len(parts)], new[at : at + len(parts)])
    return node.target, replaced(node.args, 2, out), node.kwargs


def rewrite_slice(node: fx.Node, sizes: Sizes) -> NewCall:
    """The bounds, counted in the indices that stay."""
    source = node.args[0]
    shape = shape_of(source.meta["val"])
    dim = normal_dim(node.args[1] if len(node.args) > 1 else 0, len(shape))
    mask = sizes.masks(source).get(dim)
    if mask is None:
        return node.target, node.args, node.kwargs
    start, end = [*node.args[2:4], None, None][:2]
    start = prefix(mask, 0 if start is None else start, shape[dim])
    end = prefix(mask, shape[dim] if end is None else end, shape[dim])
    return node.target, (source, dim, start, end, *node.args[4:]), node.kwargs


def rewrite_select(node: fx.Node, sizes: Sizes) -> NewCall:
    """The place, counted in the indices that stay."""
    source, dim, index = node.args
    shape = shape_of(source.meta["val"])
    dim = normal_dim(dim, len(shape))
    index = index + shape[dim] if index < 0 else index
    return node.target, (source, dim, prefix(sizes.masks(source).get(dim), index, shape[dim])), node.kwargs


def rewrite_narrow(node: fx.Node, sizes: Sizes) -> NewCall:
    """Start and length, counted in the indices that stay."""
    source, dim, start, length = node.args
    shape = shape_of(source.meta["val"])
    mask = sizes.masks(source).get(normal_dim(dim, len(shape)))
    size = shape[normal_dim(dim, len(shape))]
    begin, end = prefix(mask, start, size), prefix(mask, start + length, size)
    return node.target, (source, dim, begin, end - begin), node.kwargs


def rewrite_split(node: fx.Node, sizes: Sizes) -> NewCall:
    """Equal parts need not stay equal: all become explicit sizes."""
    source = node.args[0]
    shapes = shape_of(node.meta["val"])
    raw_dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    dim = normal_dim(raw_dim, len(shapes[0]))
    if dim not in sizes.masks(source):
        return node.target, node.args, node.kwargs
    parts = [sizes.shape(node, i)[dim] for i in range(len(shapes))]
    return aten.split_with_sizes.default, (source, parts, dim), {}


@operators(
    aten.view.default, aten.reshape.default, aten._unsafe_view.default,
    rewrite=rewrite_view, replay="reshape", lossless="move", algebra="linear",
)  # fmt: skip
@operators(aten.flatten.using_ints, replay="reshape", lossless="move", algebra="linear")
@operators(aten.unflatten.int, rewrite=rewrite_unflatten, replay="reshape", lossless="move")
@operators(aten.permute.default, aten.transpose.int, replay="permute", lossless="move", algebra="linear")
@operators(
    aten.t.default, aten.numpy_T.default, aten.movedim.int, aten.movedim.intlist, aten.swapaxes.default,
    aten.swapdims.default, aten.mT.default, replay="permute", lossless="move",
)  # fmt: skip
@operators(
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    replay="view", lossless="move", algebra="linear",
)  # fmt: skip
@operators(aten.slice.Tensor, rewrite=rewrite_slice, replay="view", lossless="move")
@operators(aten.select.int, rewrite=rewrite_select, replay="view", lossless="move")
@operators(aten.narrow.default, rewrite=rewrite_narrow, replay="view", lossless="move")
@operators(
    aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.tensor_split.sections,
    rewrite=rewrite_split, replay="view", lossless="move",
)  # fmt: skip
@operators(aten.unbind.int, aten.diagonal.default, replay="view", lossless="move")
@operators(
    aten.flip.default, aten.tile.default, aten.repeat_interleave.self_int, aten.unfold.default,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.view_as.default,
    rewrite=unchanged, replay="elements", lossless="move",
)  # fmt: skip
def movement(ties: Ties, call: OperatorCall) -> Any:
    """Observed: the operator moves the labels of its first operand."""
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where)
    return blank(call.shape) if moved is None else moved


@operators(aten.roll.default, rewrite=unchanged, replay="elements", lossless="move")
def rolled(ties: Ties, call: OperatorCall) -> Value:
    """Channels that are rolled around stay; others pass."""
    return roll(ties, call.args[0], call.args[1], call.arg(2, "dims", ()), call.where)


@operators(aten.cat.default, replay="join", lossless="join")
def concatenated(ties: Ties, call: OperatorCall) -> Value:
    """Branches keep their own channels along the dimension, and share those of the others."""
    return _joined(ties, call, list(call.args[0]), call.arg(1, "dim", 0) % len(call.shape))


@operators(aten.stack.default, replay="join", lossless="join")
def stacked(ties: Ties, call: OperatorCall) -> Value:
    """A concatenation along a new dimension."""
    dim = call.arg(1, "dim", 0) % len(call.shape)
    operands = [
        Value((*v.shape[:dim], 1, *v.shape[dim:]), tuple(x.unsqueeze(dim) for x in v.labels))
        for v in call.args[0]
    ]
    return _joined(ties, call, operands, dim)


def _joined(ties: Ties, call: OperatorCall, operands: list[Value], dim: int) -> Value:
    operands = [v for v in operands if v.shape != (0,)]
    return join(ties, operands, dim, tuple(call.shape), call.where)


def _new_sizes(node: fx.Node, sizes: Any, old: tuple[int, ...], new: tuple[int, ...]) -> list[Any]:
    """A list of sizes with those that shrink replaced: integers by integers, symbols by -1."""
    out = list(sizes)
    for i, (size, before, after) in enumerate(zip(sizes, old, new, strict=True)):
        if before != after and size != -1:
            out[i] = -1 if isinstance(size, fx.Node) else after
    if sum(1 for s in out if isinstance(s, int) and s == -1) > 1:
        raise TraceError(f"two sizes of {node.target} at {source_line(node)} shrink with a free batch")
    return out
