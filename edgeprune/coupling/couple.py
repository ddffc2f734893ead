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

from edgeprune.coupling.atoms import Atoms
from edgeprune.coupling.components import Couplings, FactorChoice
from edgeprune.coupling.labels import Value
from edgeprune.coupling.operators import spec_of
from edgeprune.coupling.opspec import OperatorCall, naming, operator_name
from edgeprune.coupling.resolve import resolve
from edgeprune.coupling.rules import blank, unknown
from edgeprune.coupling.ties import Ties
from edgeprune.graph.module import attribute, concrete, shape_of, source_line
from edgeprune.graph.trace import Trace


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
    where = f"{operator_name(node)} at {source_line(node)}"
    call = OperatorCall(node, tuple(args), dict(kwargs), shape_of(val), where, batch)
    target = node.target
    if target is operator.getitem:
        return args[0][args[1]]
    spec = spec_of(target)
    with naming(node, "coupling rule"):
        return spec.rule(ties, call) if spec is not None else unknown(ties, call)


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
