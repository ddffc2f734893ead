"""What several operator rules share: matching labels, giving up with a reason, counting products.

A rule gives the output's labels and must consume every tensor operand that contributes values; what
it leaves must be pinned, because a forgotten operand gives matching shapes and wrong values.
Elsewhere: the rules (rules_*), the table that holds them (opspec).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.coupling.labels import Value, varying
from edgeprune.coupling.opspec import OperatorCall
from edgeprune.coupling.ties import Ties
from edgeprune.graph.module import concrete, shape_of


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


def unknown(ties: Ties, call: OperatorCall) -> Any:
    """No rule: everything that reaches the operator stays as it is, and so does what it costs."""
    schema = getattr(call.node.target, "_schema", None)
    written = schema is not None and schema.is_mutable
    reason = "writes to a tensor of the model" if written else "has no rule"
    for value in flat((call.args, call.kwargs)):
        if isinstance(value, Value):
            for label in value.labels:
                ties.pin(label, f"{call.where} {reason}")
    if macs := _counted(call.node):
        ties.cost(call.node.name, macs / call.batch)
    return blank(call.shape)


def _counted(node: fx.Node) -> float:
    """Multiply-accumulates of an operator as torch counts them; 0 where it cannot."""

    def empty(operand: fx.Node) -> Any:
        val = operand.meta["val"]
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


def flat(args: Any) -> Sequence[Any]:
    if isinstance(args, dict):
        args = list(args.values())
    if isinstance(args, list | tuple):
        return [x for a in args for x in flat(a)]
    return [args]
