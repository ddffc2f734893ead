"""Operators that compare or run along one dimension: sort, topk, maximum and its place, running maximum.

What lies along that dimension is chosen by value, so it stays; what lies in the others passes,
in the values as in the places, for every slice is compared for itself.
"""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.coupling.labels import Value, varying
from edgeprune.coupling.opspec import OperatorCall, operators, unchanged
from edgeprune.coupling.rules import unknown
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten
# Position of `dim` among the arguments, where it is not the second; its value where none is given.
DIM_AT = {aten.topk.default: 2, aten.kthvalue.default: 2}
DIM_OF = {aten.sort.default: -1, aten.argsort.default: -1, aten.topk.default: -1, aten.kthvalue.default: -1}


@operators(
    aten.sort.default, aten.argsort.default, aten.topk.default, aten.kthvalue.default, aten.max.dim,
    aten.min.dim, aten.median.dim, aten.nanmedian.dim, aten.mode.default, aten.argmax.default,
    aten.argmin.default, aten.cummax.default, aten.cummin.default, aten.cumprod.default,
    aten.logcumsumexp.default, rewrite=unchanged,
)  # fmt: skip
def ordered(ties: Ties, call: OperatorCall) -> Any:
    """Pinned along the dimension, free in the others."""
    x, rank = call.args[0], len(call.args[0].shape)
    target = call.node.target
    raw_dim = call.arg(DIM_AT.get(target, 1), "dim", DIM_OF.get(target))
    if raw_dim is None or rank == 0:
        return unknown(ties, call)
    dim = raw_dim % rank
    if any(dim in varying(label) for label in x.labels):
        return unknown(ties, call)
    several = isinstance(call.shape, list)
    values = [_passed(x, dim, shape) for shape in (call.shape if several else [call.shape])]
    return values if several else values[0]


def _passed(x: Value, dim: int, shape: Any) -> Value:
    """Labels of the operand, without the dimension where the output has lost it."""
    lost = len(shape) < len(x.shape)
    return Value(tuple(shape), tuple(label.squeeze(dim) if lost else label for label in x.labels))
