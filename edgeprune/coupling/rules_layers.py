"""Layers with stored weights: linear and convolution, grouped and transposed ones included."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.labels import Value, along
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators
from edgeprune.coupling.rules import combine, unknown
from edgeprune.coupling.sizes import Sizes, groups_left, replaced
from edgeprune.coupling.ties import LayerAtoms, Ties

aten = torch.ops.aten


def linear_like(
    ties: Ties,
    call: OperatorCall,
    x: Value,
    w: Value,
    b: Value | None,
    in_dim: int,
    out_dim: int,
    x_index: int,
) -> Value:
    """x[..., I] times a two-dimensional weight: I is consumed, O is produced, the rest passes."""
    last = len(x.shape) - 1
    why = f"{call.where} reads channels that are not free"
    xin, win = ties.vector(x, last, call.where), ties.vector(w, in_dim, call.where)
    wout = ties.vector(w, out_dim, call.where)
    ties.tie(xin, win, why)
    if b is not None:
        ties.tie(ties.vector(b, len(b.shape) - 1, call.where), wout, f"{call.where} adds a fixed bias")
        ties.pin_others(b, (len(b.shape) - 1,), call.where)
    shape = tuple(call.shape)
    if w.stored:
        ties.read(win)
    else:
        ties.mark_contracted(win, f"{call.where} multiplies two activations over it")
    ties.layers.append(
        LayerAtoms(
            call.node.name, "linear", call.name(x_index), w.parameter, b.parameter if b else None,
            w.axis(in_dim), w.axis(out_dim), last, len(shape) - 1, win, wout, 1,
        )
    )  # fmt: skip
    ties.cost(call.node.name, math.prod(shape[:-1]) / call.batch, win, wout)
    passing = [label for label in ties.passing(x, (last,)) if label.dim() == len(shape)]
    return Value(shape, (*passing, *along(shape, len(shape) - 1, wout)))


@operators(aten.linear.default, lossless="product")
def linear(ties: Ties, call: OperatorCall) -> Value:
    """x times a stored matrix over the last dimension: inputs are read, outputs made, the rest passes."""
    return linear_like(ties, call, call.args[0], call.args[1], call.arg(2, "bias"), 1, 0, 0)


@operators(aten.addmm.default, lossless="addmm")
def addmm(ties: Ties, call: OperatorCall) -> Value:
    """bias + x @ w; a bias that is not a vector over outputs is an operand like any other."""
    bias, x, w = call.args[:3]
    if len(bias.shape) == 1:
        return linear_like(ties, call, x, w, bias, 0, 1, 1)
    out = linear_like(ties, call, x, w, None, 0, 1, 1)
    return combine(ties, tuple(call.shape), [bias, out], call.where)


def rewrite_groups(node: fx.Node, sizes: Sizes) -> NewCall:
    """A grouped convolution that lost whole groups has fewer of them."""
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    if groups == 1:
        return node.target, node.args, node.kwargs
    left = groups_left(sizes.masks(node).get(1), groups)
    if len(node.args) > 6:
        return node.target, replaced(node.args, 6, left), node.kwargs
    return node.target, node.args, {**node.kwargs, "groups": left}


@operators(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
    rewrite=rewrite_groups, lossless="convolution",
)  # fmt: skip
def convolution(ties: Ties, call: OperatorCall) -> Any:
    """Dimension 1 is read and made; positions of input and kernel are mixed, and stay."""
    return _convolution(ties, call, call.arg(6, "groups", 1), transposed=False)


@operators(
    aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
    rewrite=rewrite_groups, lossless="transposed",
)  # fmt: skip
def convolution_transposed(ties: Ties, call: OperatorCall) -> Any:
    """As a convolution, with a weight whose dimension 0 reads and whose dimension 1 makes."""
    return _convolution(ties, call, call.arg(6, "groups", 1), transposed=True)


def _convolution(ties: Ties, call: OperatorCall, groups: int, *, transposed: bool) -> Any:
    x, w, b = call.args[0], call.args[1], call.arg(2, "bias")
    if len(x.shape) != len(w.shape):  # no batch dimension
        return unknown(ties, call)
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    xin = ties.vector(x, 1, call.where)
    ties.pin_others(x, (1,), f"{call.where} mixes positions")
    ties.pin_others(w, (0, 1), "")
    shape = tuple(call.shape)
    taps = math.prod(w.shape[2:])
    counted = x.shape if transposed else shape
    positions = math.prod((counted[0], *counted[2:])) / call.batch
    if groups == 1:
        win, wout = ties.vector(w, in_dim, call.where), ties.vector(w, out_dim, call.where)
        ties.read(win)
        ties.tie(xin, win, f"{call.where} reads channels that are not free")
        ties.cost(call.node.name, positions * taps, win, wout)
    else:
        grouped = _grouped_transposed if transposed else _grouped
        win, wout = grouped(ties, call, xin, w, groups)
        ties.cost(call.node.name, positions * taps, win, wout)
    if b is not None:
        ties.tie(ties.vector(b, 0, call.where), wout, f"{call.where} adds a fixed bias")
    ties.layers.append(
        LayerAtoms(
            call.node.name, "conv", call.name(0), w.parameter, b.parameter if b else None,
            w.axis(in_dim), w.axis(out_dim), 1, 1, win, wout, groups,
        )
    )  # fmt: skip
    return Value(shape, along(shape, 1, wout))


def _grouped(
    ties: Ties, call: OperatorCall, xin: torch.Tensor, w: Value, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (O, I/g): whole groups go, or on request the same positions of each; gives inputs, outputs."""
    why = f"{call.where} reads channels that are not free"
    wout, shared = ties.vector(w, 0, call.where), ties.vector(w, 1, call.where)
    reads, writes = xin.reshape(groups, -1), wout.reshape(groups, -1)
    if ties.choice.groups == "position" and min(reads.shape[1], writes.shape[1]) > 1:
        ties.tie(reads, shared.expand_as(reads), why)
        ties.tie(writes, writes[:1].expand_as(writes), f"{call.where} keeps its groups equal")
        ties.read(shared)
        return shared, wout
    ties.pin(shared, "")
    rows = torch.cat([reads, writes], 1)
    ties.tie(rows[:, :1].expand_as(rows), rows, why)
    return torch.zeros_like(shared), wout


def _grouped_transposed(
    ties: Ties, call: OperatorCall, xin: torch.Tensor, w: Value, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (I, O/g): an output has no index of its own; it goes with its group or its position."""
    win, shared = ties.vector(w, 0, call.where), ties.vector(w, 1, call.where)
    ties.tie(xin, win, f"{call.where} reads channels that are not free")
    rows = win.reshape(groups, -1)
    if ties.choice.groups == "position" and min(rows.shape[1], len(shared)) > 1:
        ties.tie(rows, rows[:1].expand_as(rows), f"{call.where} keeps its groups equal")
        ties.read(win)
        return win, shared.repeat(groups)
    ties.pin(shared, "")
    ties.tie(rows[:, :1].expand_as(rows), rows, f"{call.where} works on whole groups")
    return torch.zeros(rows.shape[1], dtype=torch.int64), rows[:, :1].expand(groups, len(shared)).reshape(-1)
