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
from edgeprune.coupling.rules import OperatorCall, combine, rule
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten


@rule(
    aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
)  # fmt: skip
def creation(ties: Ties, call: OperatorCall) -> Value:
    """Every size that is a plain number may shrink; the batch is a symbol."""
    named = "new_" in str(call.node.target)
    sizes = call.node.args[1 if named else 0]
    return Value(tuple(call.shape), _fresh(ties, call, [not isinstance(s, fx.Node) for s in sizes]))


@rule(
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
    aten.rand_like.default, aten.randn_like.default,
)  # fmt: skip
def like(ties: Ties, call: OperatorCall) -> Value:
    """The shape follows the operand."""
    return Value(tuple(call.shape), call.args[0].labels)


@rule(aten.expand.default)
def expand(ties: Ties, call: OperatorCall) -> Value:
    """Labels move along; a dimension that is made of copies is free by itself."""
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where)
    source, sizes = call.args[0].shape, call.node.args[1]
    lead = len(sizes) - len(source)
    made = [not isinstance(s, fx.Node) and (d < lead or source[d - lead] == 1) for d, s in enumerate(sizes)]
    return Value(moved.shape, (*moved.labels, *_fresh(ties, call, made)))


@rule(aten.expand_as.default)
def expand_as(ties: Ties, call: OperatorCall) -> Value:
    """The shape of the second operand, element by element."""
    return combine(ties, tuple(call.shape), list(call.args[:2]), call.where)


@rule(aten.repeat.default)
def repeat(ties: Ties, call: OperatorCall) -> Value:
    """Copies of one index are free by themselves; copies of a block go together."""
    moved = move(ties, call.node.target, call.args, call.kwargs, call.where)
    source, times = call.args[0].shape, call.node.args[1]
    lead = len(times) - len(source)
    made = [not isinstance(s, fx.Node) and (d < lead or source[d - lead] == 1) for d, s in enumerate(times)]
    return Value(moved.shape, (*moved.labels, *_fresh(ties, call, made)))


@rule(aten.constant_pad_nd.default, aten.pad.default)
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


@rule(aten.glu.default)
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


@rule(aten.prelu.default, aten._prelu_kernel.default)
def prelu(ties: Ties, call: OperatorCall) -> Value:
    """A slope per channel is elementwise on dimension 1."""
    x, slope = call.args[:2]
    if len(slope.shape) == 1 and len(x.shape) > 1:
        tail = (1,) * (len(x.shape) - 2)
        labels = [t.reshape(1, -1, *tail) if t.numel() > 1 else t.reshape(1, 1, *tail) for t in slope.labels]
        slope = Value((1, slope.shape[0], *tail), tuple(labels))
    return combine(ties, x.shape, [x, slope], call.where)


@rule(
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec, aten.upsample_nearest1d.default, aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default, aten.upsample_linear1d.default, aten.upsample_bilinear2d.default,
    aten.upsample_trilinear3d.default, aten.upsample_bicubic2d.default, aten._upsample_bilinear2d_aa.default,
    aten._upsample_bicubic2d_aa.default, aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact2d.default, aten.reflection_pad1d.default, aten.reflection_pad2d.default,
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default,
    aten.im2col.default, aten.grid_sampler.default, aten.grid_sampler_2d.default,
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


@rule(aten.embedding.default)
def embedding(ties: Ties, call: OperatorCall) -> Value:
    """The width of the table is free, its rows (the vocabulary) stay."""
    table = call.args[0]
    atoms = ties.vector(table, 1, call.where)
    ties.pin_others(table, (1,), f"{call.where} looks rows up by number")
    shape = tuple(call.shape)
    return Value(shape, along(shape, len(shape) - 1, atoms))


def _fresh(ties: Ties, call: OperatorCall, made: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    """A uniform label for every dimension of the output that is made of copies."""
    shape = tuple(call.shape)
    labels: list[Any] = []
    for dim, (size, new) in enumerate(zip(shape, made, strict=True)):
        if new and size > 1:
            labels += along(shape, dim, ties.fresh(size, uniform=True))
    return tuple(labels)
