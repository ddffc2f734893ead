"""Operators that make, repeat, pad, halve, resample or look up: rules where observation is not enough.

Content that is the same everywhere (zeros, padding, an expanded dimension) has no
identity: it carries fresh atoms that follow whatever it meets, so the size written into
the operator can shrink with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.labels import Value, along, keep_alive, varying
from edgeprune.coupling.movement import move
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators, unchanged
from edgeprune.coupling.rules import combine
from edgeprune.coupling.sizes import Sizes, replaced
from edgeprune.coupling.ties import Ties
from edgeprune.graph.module import shape_of

aten = torch.ops.aten


def rewrite_created(node: fx.Node, sizes: Sizes) -> NewCall:
    """Sizes of what is made, where they are numbers."""
    at = 1 if "new_" in str(node.target) else 0
    shape = sizes.shape(node)
    kept = [s if isinstance(s, fx.Node) else shape[d] for d, s in enumerate(node.args[at])]
    return node.target, replaced(node.args, at, kept), node.kwargs


@operators(
    aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
    rewrite=rewrite_created, lossless="constant",
)  # fmt: skip
def creation(ties: Ties, call: OperatorCall) -> Value:
    """Every size that is a plain number may shrink; the batch is a symbol."""
    named = "new_" in str(call.node.target)
    sizes = call.node.args[1 if named else 0]
    return Value(tuple(call.shape), _fresh(ties, call, [not isinstance(s, fx.Node) for s in sizes]))


@operators(
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
    lossless="constant",
)  # fmt: skip
@operators(aten.rand_like.default, aten.randn_like.default)
@operators(aten.randint_like.default, aten.randint_like.low_dtype, rewrite=unchanged)
def like(ties: Ties, call: OperatorCall) -> Value:
    """The shape follows the operand."""
    return Value(tuple(call.shape), call.args[0].labels)


@operators(aten.type_as.default, aten.to.other, lossless="cast")
def cast(ties: Ties, call: OperatorCall) -> Value:
    """Another type, read off a second operand whose values and channels do not matter."""
    return Value(tuple(call.shape), call.args[0].labels)


def rewrite_expand(node: fx.Node, sizes: Sizes) -> NewCall:
    """Sizes that shrink, where they are numbers."""
    old, new = shape_of(node.meta["val"]), sizes.shape(node)
    expanded = [
        a if isinstance(a, fx.Node) or b == c else c for a, b, c in zip(node.args[1], old, new, strict=True)
    ]
    return node.target, replaced(node.args, 1, expanded), node.kwargs


@operators(aten.expand.default, rewrite=rewrite_expand, replay="view", lossless="move")
def expand(ties: Ties, call: OperatorCall) -> Value:
    """Labels move along; a dimension that is made of copies is free by itself."""
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where)
    source, sizes = call.args[0].shape, call.node.args[1]
    lead = len(sizes) - len(source)
    new_dims = [
        not isinstance(s, fx.Node) and (d < lead or source[d - lead] == 1) for d, s in enumerate(sizes)
    ]
    return Value(moved.shape, (*moved.labels, *_fresh(ties, call, new_dims)))


@operators(aten.expand_as.default, replay="elements", lossless="move")
def expand_as(ties: Ties, call: OperatorCall) -> Value:
    """The shape of the second operand, element by element."""
    return combine(ties, tuple(call.shape), list(call.args[:2]), call.where)


def rewrite_repeat(node: fx.Node, sizes: Sizes) -> NewCall:
    """Copies of one index shrink by their number; copies of a block shrink with the block."""
    source, times = node.args[:2]
    shape, new = shape_of(source.meta["val"]), sizes.shape(node)
    lead = len(times) - len(shape)
    out = [
        new[d] if not isinstance(t, fx.Node) and (d < lead or shape[d - lead] == 1) else t
        for d, t in enumerate(times)
    ]
    return node.target, replaced(node.args, 1, out), node.kwargs


@operators(aten.repeat.default, rewrite=rewrite_repeat, replay="elements", lossless="move")
def repeat(ties: Ties, call: OperatorCall) -> Value:
    """Copies of one index are free by themselves; copies of a block go together."""
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where)
    source, times = call.args[0].shape, call.node.args[1]
    lead = len(times) - len(source)
    new_dims = [
        not isinstance(s, fx.Node) and (d < lead or source[d - lead] == 1) for d, s in enumerate(times)
    ]
    return Value(moved.shape, (*moved.labels, *_fresh(ties, call, new_dims)))


def rewrite_pad(node: fx.Node, sizes: Sizes) -> NewCall:
    """Padded channels that go make the padding smaller."""
    masks, size, amounts = sizes.masks(node), shape_of(node.meta["val"]), list(node.args[1])
    rank = len(size)
    for dim, mask in masks.items():
        at = 2 * (rank - 1 - dim)
        if at < len(amounts) and (amounts[at] or amounts[at + 1]):
            before, after = amounts[at], amounts[at + 1]
            amounts[at : at + 2] = [int(mask[:before].sum()), int(mask[size[dim] - after :].sum())]
    return node.target, replaced(node.args, 1, amounts), node.kwargs


@operators(aten.constant_pad_nd.default, aten.pad.default, rewrite=rewrite_pad, lossless="pad")
def padding(ties: Ties, call: OperatorCall) -> Value:
    """Padding of positions passes channels. Channels padded with a constant are free on their own."""
    x, amounts = call.args[0], call.args[1]
    constant = (
        call.node.target is aten.constant_pad_nd.default or call.arg(2, "mode", "constant") == "constant"
    )
    rank, shape = len(x.shape), tuple(call.shape)
    out = list(x.labels)
    for i in range(0, len(amounts), 2):
        dim, before, after = rank - 1 - i // 2, amounts[i], amounts[i + 1]
        touched = [label for label in out if dim in varying(label)]
        if not (before or after) or not touched:
            continue
        out = [label for label in out if dim not in varying(label)]
        if constant and min(before, after) >= 0 and all(varying(t) == (dim,) for t in touched):
            middle = ties.vector(Value(x.shape, tuple(touched)), dim, call.where)
            atoms = torch.cat([ties.fresh(before, uniform=True), middle, ties.fresh(after, uniform=True)])
            out += along(shape, dim, atoms)
            continue
        for label in touched:
            ties.pin(label, f"{call.where} pads it")
    return Value(shape, tuple(out))


@operators(aten.glu.default, lossless="glu")
def glu(ties: Ties, call: OperatorCall) -> Value:
    """Value and gate at the same position go together."""
    x = call.args[0]
    dim = call.arg(1, "dim", -1) % len(x.shape)
    shape, half = tuple(call.shape), x.shape[dim] // 2
    halves = []
    for start in (0, half):
        labels = [t.narrow(dim, start, half) if t.shape[dim] > 1 else t for t in x.labels]
        halves.append(Value(shape, keep_alive(labels)))
    return combine(ties, shape, halves, call.where)


@operators(aten.prelu.default, lossless="prelu")
@operators(aten._prelu_kernel.default, lossless="elementwise")
def prelu(ties: Ties, call: OperatorCall) -> Value:
    """A slope per channel is elementwise on dimension 1."""
    x, slope = call.args[:2]
    if len(slope.shape) == 1 and len(x.shape) > 1:
        tail = (1,) * (len(x.shape) - 2)
        labels = [t.reshape(1, -1, *tail) if t.numel() > 1 else t.reshape(1, 1, *tail) for t in slope.labels]
        slope = Value((1, slope.shape[0], *tail), tuple(labels))
    return combine(ties, x.shape, [x, slope], call.where)


@operators(
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec, aten.upsample_nearest1d.default, aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default, aten.upsample_linear1d.default, aten.upsample_bilinear2d.default,
    aten.upsample_trilinear3d.default, aten.upsample_bicubic2d.default, aten._upsample_bilinear2d_aa.default,
    aten._upsample_bicubic2d_aa.default, aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact2d.default, rewrite=unchanged, lossless="resample",
)  # fmt: skip
@operators(
    aten.reflection_pad1d.default, aten.reflection_pad2d.default,
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default,
    aten.im2col.default, aten.grid_sampler.default, aten.grid_sampler_2d.default, rewrite=unchanged,
)  # fmt: skip
def per_channel_resampling(ties: Ties, call: OperatorCall) -> Value:
    """Positions are mixed, channels (dimension 1) pass; what other operands carry stays."""
    x = call.args[0]
    others = [v for v in (*call.args[1:], *call.kwargs.values()) if isinstance(v, Value)]
    if call.node.target is aten.im2col.default or len(x.shape) < 3:
        others.append(x)
    for value in others:
        for label in value.labels:
            ties.pin(label, f"{call.where} reads it as positions")
    if x in others:
        return Value(tuple(call.shape))
    atoms = ties.vector(x, 1, call.where)
    ties.pin_others(x, (1,), f"{call.where} mixes positions")
    return Value(tuple(call.shape), along(tuple(call.shape), 1, atoms))


@operators(aten.embedding.default, rewrite=unchanged)
def embedding(ties: Ties, call: OperatorCall) -> Value:
    """The width of the table is free, its rows (the vocabulary) stay."""
    table = call.args[0]
    atoms = ties.vector(table, 1, call.where)
    ties.pin_others(table, (1,), f"{call.where} looks rows up by number")
    shape = tuple(call.shape)
    return Value(shape, along(shape, len(shape) - 1, atoms))


def _fresh(ties: Ties, call: OperatorCall, new_dims: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    """A uniform label for every dimension of the output that is made of copies."""
    shape = tuple(call.shape)
    labels: list[Any] = []
    for dim, (size, new) in enumerate(zip(shape, new_dims, strict=True)):
        if new and size > 1:
            labels += along(shape, dim, ties.fresh(size, uniform=True))
    return tuple(labels)
