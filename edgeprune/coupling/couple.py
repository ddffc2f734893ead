"""LockstepInterpreter a Trace, let every operator speak, and resolve what was said into components.

Every index of every dimension of every floating-point parameter and constant gets an
integer, its atom. Movement operators are observed on labels, computing operators have
rules, and an operator that nobody knows pins what it touches, with a printed reason.
Background: DepGraph, Fang et al., CVPR 2023; the difference is that this is per index.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgeprune.coupling import (  # noqa: F401  # importing them registers their rules
    rules_attention,
    rules_index,
    rules_norm,
    rules_order,
    rules_products,
    rules_recurrent,
    rules_shape,
)
from edgeprune.coupling.components import Couplings, FactorChoice
from edgeprune.coupling.labels import Value, along
from edgeprune.coupling.movement import CYCLIC, MOVEMENT, join, move, roll
from edgeprune.coupling.resolve import resolve
from edgeprune.coupling.rules import RULES, OperatorCall, blank, elementwise, unknown
from edgeprune.coupling.ties import Ties
from edgeprune.graph.features import is_selection
from edgeprune.graph.module import attribute, concrete, shape_of, source_line
from edgeprune.graph.trace import Trace

aten = torch.ops.aten
# Same shape in and out, one element from one element, but without torch's pointwise tag: other names of
# what has it, copies, and what writes one value everywhere.
_UNTAGGED = """
__and__ __or__ __xor__ absolute alias arctan2 bitwise_or conj contiguous detach divide dropout fill fix
floor_divide greater greater_equal hardswish isclose less less_equal lift_fresh lift_fresh_copy log_sigmoid
masked_fill multiply negative not_equal polar real resolve_conj resolve_neg rsub special_erf special_erfc
special_exp2 special_expit special_expm1 special_log1p special_xlogy subtract to true_divide type_as _to_copy
where xlogy zero
"""


def _overloads(name: str) -> set[Any]:
    """The overloads of an operator that give one new tensor."""
    packet, found = getattr(aten, name), set()
    for overload in packet.overloads():
        if any(word in overload for word in ("out", "Dimname", "prim", "complex")):
            continue
        target = getattr(packet, overload)
        if [str(r.type) for r in target._schema.returns] == ["Tensor"]:
            found.add(target)
    return found


ELEMENTWISE = {t for name in _UNTAGGED.split() for t in _overloads(name) if torch.Tag.pointwise not in t.tags}


class Atoms:
    """Which atoms belong to which dimension of which state tensor."""

    def __init__(self, ties: Ties) -> None:
        self.first: dict[str, tuple[int, ...]] = {}  # state tensor -> first atom per dimension, 0 for none
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.aliases: dict[str, str] = {}
        self._seen: dict[int, str] = {}
        self._ties = ties

    def value(self, name: str, tensor: torch.Tensor) -> Value:
        """The value of a state tensor with fresh atoms, or those of the tensor it is tied to."""
        name = self._seen.setdefault(id(tensor), name)
        shape = tuple(tensor.shape)
        if name not in self.first:
            first = []
            for size in shape:
                free = size > 1 and (tensor.is_floating_point() or is_selection(name))
                first.append(int(self._ties.fresh(size)[0]) if free else 0)
            self.first[name], self.sizes[name] = tuple(first), shape
        labels = [
            label
            for d, start in enumerate(self.first[name])
            if start
            for label in along(shape, d, torch.arange(start, start + shape[d]))
        ]
        constant = None if isinstance(tensor, torch.nn.Parameter) else tensor
        return Value(shape, tuple(labels), constant, name, stored=True)


def couple(
    trace: Trace,
    *,
    keep: Sequence[str] = (),
    frozen: Mapping[str, str] | None = None,
    choice: FactorChoice | None = None,
) -> Couplings:
    """Find the components of a Trace.

    Args:
        keep: names of layers (module paths) or state tensors whose channels stay.
        frozen: nodes whose values must keep every channel, with the reason.
        choice: which of two factors to free: heads or head width, groups or positions.
    """
    ties = Ties(_batch(trace), choice)
    atoms = Atoms(ties)
    values: dict[fx.Node, Any] = {}
    fed: set[fx.Node] = set()  # nodes that depend on the input
    for node in trace.graph.graph.nodes:
        if node.op == "placeholder" or any(n in fed for n in node.all_input_nodes):
            fed.add(node)
        if node.op == "placeholder":
            values[node] = blank(shape_of(node.meta["val"]))
        elif node.op == "get_attr":
            name = str(node.target)
            tensor = attribute(trace.graph, name)
            values[node] = atoms.value(name, tensor) if isinstance(tensor, torch.Tensor) else None
            if isinstance(tensor, torch.Tensor):
                atoms.aliases[name] = values[node].parameter
                if any(name == k or name.startswith(f"{k}.") for k in keep):
                    for label in values[node].labels[:1]:
                        ties.pin(label, "kept by request")
        elif node.op == "output":
            _pin_outputs(ties, node, values)
        else:
            values[node] = _visit(ties, node, values, ties.batch if node in fed else 1)
            if node not in fed and isinstance(values[node], Value):
                values[node] = replace(values[node], stored=True)
        if frozen and node.name in frozen:
            for touched in (node, *node.all_input_nodes):
                _pin_value(ties, values[touched], frozen[node.name])
    return resolve(ties, atoms, values)


def _batch(trace: Trace) -> int:
    """Samples in the example: dimension 0 of the first input that has a free batch, or of the first."""
    shaped = [x for x in trace.inputs if x.dim()]
    free = [x for x, dynamic in zip(trace.inputs, trace.dynamic, strict=True) if dynamic]
    return next((int(x.shape[0]) for x in (*free, *shaped)), 1)


def _visit(ties: Ties, node: fx.Node, values: dict[fx.Node, Any], batch: int) -> Any:
    val = node.meta.get("val")
    if not _holds_tensor(val):
        return concrete(val)
    look: Callable[[fx.Node], Any] = values.__getitem__
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), look)
    name = str(node.target).removesuffix(".default")
    where = f"{name} at {source_line(node)}"
    call = OperatorCall(node, tuple(args), dict(kwargs), shape_of(val), where, batch)
    target = node.target
    if target is operator.getitem:
        return args[0][args[1]]
    if target in RULES:
        return RULES[target](ties, call)
    if target in (aten.cat.default, aten.stack.default):
        return _join(ties, call, new=target is aten.stack.default)
    if target in CYCLIC:
        return roll(ties, args[0], args[1], args[2] if len(args) > 2 else (), where)
    if target in MOVEMENT:
        moved = move(ties, target, call.args, call.kwargs, where)
        return blank(call.shape) if moved is None else moved
    if target in ELEMENTWISE or torch.Tag.pointwise in getattr(target, "tags", ()):
        return elementwise(ties, call)
    return unknown(ties, call)


def _join(ties: Ties, call: OperatorCall, *, new: bool) -> Value:
    operands: list[Value] = list(call.args[0])
    dim = call.arg(1, "dim", 0) % len(call.shape)
    if new:
        operands = [
            Value((*v.shape[:dim], 1, *v.shape[dim:]), tuple(x.unsqueeze(dim) for x in v.labels))
            for v in operands
        ]
    operands = [v for v in operands if v.shape != (0,)]
    return join(ties, operands, dim, tuple(call.shape), call.where)


def _pin_outputs(ties: Ties, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    for source in node.all_input_nodes:
        _pin_value(ties, values[source], f"output '{source.name}'")


def _pin_value(ties: Ties, value: Any, reason: str) -> None:
    for part in value if isinstance(value, list) else [value]:
        for label in part.labels if isinstance(part, Value) else ():
            ties.pin(label, reason)


def _holds_tensor(val: Any) -> bool:
    if isinstance(val, list | tuple):
        return any(_holds_tensor(v) for v in val)
    return isinstance(val, torch.Tensor)
