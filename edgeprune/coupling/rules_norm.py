"""Norms and softmax: what they average over is free but not exact; what they do not, passes.

Removing a channel from a layer norm, an RMS norm or a softmax changes the others even
where the channel carried zeros, so such components are marked and lossless steps avoid
them. Batch and instance norm treat each channel alone and stay exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgeprune.coupling.labels import Value, along, varying
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators, unchanged
from edgeprune.coupling.rules import combine, unknown
from edgeprune.coupling.sizes import Sizes, groups_left, replaced
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten


@operators(aten.batch_norm.default, lossless="batch norm")
@operators(aten.instance_norm.default)
def per_channel_norm(ties: Ties, call: OperatorCall) -> Value:
    """Scale, shift and statistics of a channel go with it; no other channel changes: exact."""
    x, *scales = call.args[:5]
    atoms = ties.vector(x, 1, call.where)
    ties.pin_others(x, (1,), f"{call.where} averages over positions")
    for scale in scales:
        if scale is not None:
            ties.tie(
                ties.vector(scale, 0, call.where), atoms, f"{call.where} norms channels that are not free"
            )
    return Value(x.shape, along(x.shape, 1, atoms))


def rewrite_normed_shape(node: fx.Node, sizes: Sizes) -> NewCall:
    """The shape that is averaged over is that of the narrower operand."""
    source, normed = node.args[:2]
    return node.target, replaced(node.args, 1, list(sizes.shape(source)[-len(normed) :])), node.kwargs


@operators(
    aten.layer_norm.default, aten.rms_norm.default, rewrite=rewrite_normed_shape, lossless="layer norm"
)
@operators(aten.native_layer_norm.default, rewrite=rewrite_normed_shape)
def layer_norm(ties: Ties, call: OperatorCall) -> Any:
    """Scale and shift are elementwise over the normed dimensions; labels there stay free, not exact."""
    x, normed = call.args[:2]
    first = len(x.shape) - len(normed)
    _inexact_over(ties, x, range(first, len(x.shape)), call.where)
    scales = [v for v in call.args[2:4] if isinstance(v, Value)]
    several = isinstance(call.shape, list)
    out = combine(ties, x.shape, [x, *scales], call.where)
    if not several:
        return out
    normed_dims = set(range(first, len(x.shape)))
    left = [ties.collapse(x_, normed_dims, f"{call.where} averages over a part of it") for x_ in out.labels]
    statistics = [x_ for x_ in left if x_ is not None]
    return [out, *(Value(tuple(s), tuple(statistics)) for s in call.shape[1:])]


def rewrite_norm_groups(node: fx.Node, sizes: Sizes) -> NewCall:
    """As many groups as keep a channel."""
    left = groups_left(sizes.masks(node).get(1), node.args[1])
    return node.target, replaced(node.args, 1, left), node.kwargs


@operators(aten.group_norm.default, rewrite=rewrite_norm_groups)
@operators(aten.native_group_norm.default, rewrite=unchanged)
def group_norm(ties: Ties, call: OperatorCall) -> Any:
    """Whole groups go and nothing else changes; with few large groups, the same positions of each."""
    if isinstance(call.shape, list):
        return unknown(ties, call)
    x, groups = call.args[:2]
    atoms = ties.vector(x, 1, call.where)
    ties.pin_others(x, (1,), f"{call.where} averages over positions")
    for scale in call.args[2:4]:
        if isinstance(scale, Value):
            ties.tie(
                ties.vector(scale, 0, call.where), atoms, f"{call.where} norms channels that are not free"
            )
    rows = atoms.reshape(groups, -1)
    if groups >= rows.shape[1]:
        ties.tie(rows[:, :1].expand_as(rows), rows, f"{call.where} norms whole groups")
    else:
        ties.tie(rows[:1].expand_as(rows), rows, f"{call.where} keeps its groups equal")
        ties.mark_inexact(atoms, (0,), f"{call.where} averages over it")
    return Value(x.shape, along(x.shape, 1, atoms))


@operators(
    aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten._log_softmax.default,
    aten._safe_softmax.default, lossless="along",
)  # fmt: skip
def softmax(ties: Ties, call: OperatorCall) -> Value:
    """What it normalises over is free but not exact; the rest passes."""
    x = call.args[0]
    _inexact_over(ties, x, [call.arg(1, "dim") % len(x.shape)], call.where)
    return Value(x.shape, x.labels)


@operators(aten.cumsum.default)
def cumulative(ties: Ties, call: OperatorCall) -> Value:
    """What runs along a dimension keeps it whole."""
    x = call.args[0]
    dim = call.arg(1, "dim") % len(x.shape)
    for label in x.labels:
        if dim in varying(label):
            ties.pin(label, f"{call.where} runs over it")
    return Value(x.shape, tuple(ties.passing(x, (dim,))))


def _inexact_over(ties: Ties, x: Value, dims: Any, where: str) -> None:
    for label in x.labels:
        if set(varying(label)) & set(dims):
            ties.mark_inexact(label, dims, f"{where} averages over it")
