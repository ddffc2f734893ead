"""Operators that compute each element from the elements at the same place.

torch tags most of them as pointwise. Listed here are those without that tag: other names of what has
it, copies, and what writes one value everywhere.
"""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.coupling.labels import Value
from edgeprune.coupling.opspec import OperatorCall, OpSpec, operators, pointwise
from edgeprune.coupling.rules import combine, flat
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten
_UNTAGGED = """
__and__ __or__ __xor__ absolute alias arctan2 bitwise_or conj contiguous detach divide dropout fill fix
floor_divide greater greater_equal hardswish isclose less less_equal lift_fresh lift_fresh_copy log_sigmoid
masked_fill multiply negative not_equal polar real resolve_conj resolve_neg rsub special_erf special_erfc
special_exp2 special_expit special_expm1 special_log1p special_xlogy subtract to true_divide _to_copy
where xlogy zero
"""


def _overloads(name: str) -> set[Any]:
    """The overloads of an operator that give one new tensor."""
    packet, overloads = getattr(aten, name), set()
    for overload in packet.overloads():
        if any(word in overload for word in ("out", "Dimname", "prim", "complex")):
            continue
        target = getattr(packet, overload)
        if [str(r.type) for r in target._schema.returns] == ["Tensor"]:
            overloads.add(target)
    return overloads


def elementwise(ties: Ties, call: OperatorCall) -> Value:
    """Operands of equal or broadcast shape: an element goes in all of them or in none."""
    operands = [v for v in flat((call.args, call.kwargs)) if isinstance(v, Value)]
    return combine(ties, tuple(call.shape), operands, call.where)


_LISTED = {t for name in _UNTAGGED.split() for t in _overloads(name) if torch.Tag.pointwise not in t.tags}
_LINEAR = {
    aten.dropout.default, aten.alias.default, aten.contiguous.default, aten.clone.default, aten.neg.default,
}  # fmt: skip
_HOMOGENEOUS = {aten.relu.default, aten.leaky_relu.default, aten.abs.default}
pointwise(OpSpec(elementwise, lossless="elementwise"))
operators(*(_LISTED - _LINEAR - {aten.to.other}), lossless="elementwise")(elementwise)
operators(*_LINEAR, lossless="elementwise", algebra="linear")(elementwise)
operators(*_HOMOGENEOUS, lossless="elementwise", algebra="homogeneous")(elementwise)
