"""One rule per computing operator: which atoms it ties, and what its output carries.

A rule must consume every tensor operand; what it leaves must be pinned, because a
forgotten operand gives matching shapes and wrong values. `RULES` maps an ATen
overload to its rule; `rule` registers further ones (rules_attention, rules_recurrent).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.coupling.labels import Value, along, varying
from edgeprune.coupling.ties import LayerAtoms, Ties
from edgeprune.graph.module import concrete, shape_of

aten = torch.ops.aten


@dataclass(frozen=True)
class OperatorCall:
    """One node with Values for tensors and integers for symbolic sizes."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Any  # of the output; a list for several
    where: str  # "aten.conv2d at model.py:41"
    batch: int = 1  # samples that the node computes at once; 1 where it depends on no input

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def name(self, index: int) -> str:
        """Name of the node that feeds a positional argument."""
        given = self.node.args[index]
        return given.name if isinstance(given, fx.Node) else ""


Rule = Callable[[Ties, OperatorCall], Any]
RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register a rule for these overloads."""

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def elementwise(ties: Ties, call: OperatorCall) -> Value:
    """Operands of equal or broadcast shape: an element goes in all of them or in none."""
    operands = [v for v in _flat((call.args, call.kwargs)) if isinstance(v, Value)]
    return combine(ties, tuple(call.shape), operands, call.where)


def combine(ties: Ties, shape: tuple[int, ...], operands: Sequence[Value], where: str) -> Value:
    """Match the labels of operands that broadcast to `shape`; gives the value of that shape.

    A label is matched with the labels of each other operand that depend on the same
    dimensions; where the operand has full size there and no label, nothing can follow.
    """
    if len(operands) == 1 and operands[0].shape == shape:
        return Value(shape, operands[0].labels)
    aligned = [
        ((1,) * (len(shape) - len(v.shape)) + v.shape, [_align(x, shape) for x in ties.distinct(v, where)])
        for v in operands
    ]
    carried: list[torch.Tensor] = []
    for i, (_, labels) in enumerate(aligned):
        for label in labels:
            dims = varying(label)
            carried.append(label)
            for j, (other_shape, others) in enumerate(aligned):
                if i != j and any(other_shape[d] > 1 for d in dims):
                    _match(
                        ties,
                        label,
                        dims,
                        other_shape,
                        [x for x in others if set(varying(x)) & set(dims)],
                        where,
                    )
    out: list[torch.Tensor] = []
    for label in sorted(carried, key=lambda x: -len(varying(x))):
        # What overlaps a wider label was tied to it or pinned: the wider one carries both.
        if not any(set(varying(label)) & set(varying(kept)) for kept in out):
            out.append(label)
    return Value(shape, tuple(out))


def _align(label: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return label.reshape((1,) * (len(shape) - label.dim()) + tuple(label.shape))


def _match(
    ties: Ties,
    label: torch.Tensor,
    dims: tuple[int, ...],
    other_shape: tuple[int, ...],
    partners: list[torch.Tensor],
    where: str,
) -> None:
    why = f"{where} combines it with channels that are not free"
    bare = [d for d in dims if other_shape[d] > 1 and not any(d in varying(x) for x in partners)]
    if len(bare) == len(dims):
        ties.pin(label, why)
    elif bare:  # the partner keeps these positions whatever happens
        ties.defer(
            label, torch.zeros([other_shape[d] if d in bare else 1 for d in range(label.dim())]).long(), why
        )
    for partner in partners:
        theirs = varying(partner)
        if theirs == dims:
            ties.tie(label, partner, why)
        elif set(theirs) < set(dims):
            ties.defer(label, partner, why)
        elif not set(dims) < set(theirs):  # otherwise the partner's own turn defers
            dim = min(set(dims) & set(theirs))
            ties.tie(ties.settle(label, dim, where), ties.settle(partner, dim, where), where)


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


@rule(aten.linear.default)
def linear(ties: Ties, call: OperatorCall) -> Value:
    """x times a stored matrix over the last dimension: inputs are read, outputs made, the rest passes."""
    return linear_like(ties, call, call.args[0], call.args[1], call.arg(2, "bias"), 1, 0, 0)


@rule(aten.addmm.default)
def addmm(ties: Ties, call: OperatorCall) -> Value:
    """bias + x @ w; a bias that is not a vector over outputs is an operand like any other."""
    bias, x, w = call.args[:3]
    if len(bias.shape) == 1:
        return linear_like(ties, call, x, w, bias, 0, 1, 1)
    out = linear_like(ties, call, x, w, None, 0, 1, 1)
    return combine(ties, tuple(call.shape), [bias, out], call.where)


@rule(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
)  # fmt: skip
def convolution(ties: Ties, call: OperatorCall) -> Any:
    """Dimension 1 is read and made; positions of input and kernel are mixed, and stay."""
    return _convolution(ties, call, call.arg(6, "groups", 1), transposed=False)


@rule(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
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


@rule(
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default,
    aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default,
    aten.max_pool2d_with_indices.default,
)  # fmt: skip
def pooling(ties: Ties, call: OperatorCall) -> Any:
    """Windows over the trailing positions: what does not depend on them passes."""
    x = call.args[0]
    several = isinstance(call.shape, list)
    shape = call.shape[0] if several else tuple(call.shape)
    window = call.args[1]
    rank = len(window) if isinstance(window, list | tuple) else 1
    positions = tuple(range(len(x.shape) - rank, len(x.shape)))
    ties_label = [label for label in x.labels if set(varying(label)) & set(positions)]
    for label in ties_label:
        ties.pin(label, f"{call.where} pools over it")
    out = Value(shape, tuple(ties.passing(x, positions)))
    return [out, Value(call.shape[1])] if several else out


@rule(
    aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.var.correction,
    aten.std.correction, aten.linalg_vector_norm.default, aten.logsumexp.default,
    aten.mean.default, aten.sum.default, aten.prod.dim_int, aten.any.dim, aten.any.dims, aten.all.dim,
    aten.all.dims, aten.nansum.default, aten.nanmean.default, aten.count_nonzero.dim_IntList,
    aten.std_mean.correction, aten.var_mean.correction, aten.std_mean.dim, aten.var_mean.dim, aten.std.dim,
    aten.var.dim, aten.norm.ScalarOpt_dim,
)  # fmt: skip
def reduction(ties: Ties, call: OperatorCall) -> Any:
    """Channels may be reduced over, but even a silent one changes a mean or a norm: not exact."""
    x = call.args[0]
    rank = len(x.shape)
    at = 2 if call.node.target in (aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim) else 1
    given = call.arg(at, "dim")
    dims = [given] if isinstance(given, int) else list(given or range(rank))
    reduced = {d % rank for d in dims}
    stay = [d for d in range(rank) if d not in reduced]
    several = isinstance(call.shape, list)  # a spread and its mean, of one shape
    kept = tuple(call.shape[0] if several else call.shape)
    labels = []
    for label in x.labels:
        left = ties.collapse(label, reduced, f"{call.where} reduces over a part of it")
        if left is None:
            ties.mark_inexact(label, reduced, f"{call.where} reduces over it")
        else:
            labels.append(left if len(kept) == rank else left.reshape([left.shape[d] for d in stay]))
    out = Value(kept, tuple(labels))
    return [out] * len(call.shape) if several else out


def unknown(ties: Ties, call: OperatorCall) -> Any:
    """No rule: everything that reaches the operator stays as it is, and so does what it costs."""
    for value in _flat((call.args, call.kwargs)):
        if isinstance(value, Value):
            for label in value.labels:
                ties.pin(label, f"{call.where} has no rule")
    if macs := _counted(call.node):
        ties.cost(call.node.name, macs / call.batch)
    return blank(call.shape)


def _counted(node: fx.Node) -> float:
    """Multiply-accumulates of an operator as torch counts them; 0 where it cannot."""

    def empty(given: fx.Node) -> Any:
        val = given.meta["val"]
        if not isinstance(val, torch.Tensor):
            return concrete(val)
        return torch.empty(shape_of(val), dtype=val.dtype, device="meta")

    try:  # bodies of control flow have no value, some operators none without data
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), empty)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            node.target(*args, **kwargs)
    except Exception:
        return 0.0
    return float(counter.get_total_flops()) / 2


def blank(shape: Any) -> Any:
    """A value without labels, for one output or several."""
    if isinstance(shape, list):
        return [blank(s) for s in shape]
    return None if shape is None else Value(tuple(shape))


def _flat(args: Any) -> Sequence[Any]:
    if isinstance(args, dict):
        args = list(args.values())
    if isinstance(args, list | tuple):
        return [x for a in args for x in _flat(a)]
    return [args]
