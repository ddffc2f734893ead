"""Which elements of a value can a set of other elements reach?

`spread` answers for one node; `observe` follows the graph's inputs through it and so
proves which elements are constant: an all-zero row of weights, a batch norm with scale
zero, and everything computed from such alone. The proof is from weights and structure;
a channel that merely happens to be constant on the inputs at hand is not constant here.

Guarantee: an element that is not marked does not depend on what was asked about (for
finite values). An operator without a rule is reached everywhere. Elsewhere: what to do
with constants (lossless_fold).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.operators import spec_of
from edgeprune.coupling.opspec import naming
from edgeprune.graph.executor import evaluate
from edgeprune.graph.module import concrete

aten = torch.ops.aten
Marks = dict[str, Any]  # node name -> bool tensor of the value's shape, or a list of them


BIASLESS = {aten.mm.default, aten.bmm.default, aten.matmul.default}


def lossless_kind(node: fx.Node) -> str | None:
    """Which analysis covers a node's operator, from the operator table."""
    spec = spec_of(node.target)
    return spec.lossless if spec is not None else None


@dataclass(frozen=True)
class Observation:
    """One run: every node's value, and which of its elements depend on the graph's inputs."""

    values: dict[str, Any]
    depends: Marks

    def constant(self, name: str) -> torch.Tensor:
        """Elements of a single-tensor value that no input can change."""
        return torch.logical_not(self.depends[name])


def observe(graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Observation:
    """Run the graph once and follow its inputs through it; nothing of it changes."""
    facts = Observation({}, {})
    remaining = iter(inputs)
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.op == "output":
                continue
            if node.op == "placeholder":
                value = next(remaining)
            else:
                value = evaluate(graph, node, lambda n: facts.values[n.name])
            facts.values[node.name] = value
            if node.op == "placeholder":
                facts.depends[node.name] = _like(value, True)
            elif node.op == "get_attr":
                facts.depends[node.name] = _like(value, False)
            else:
                facts.depends[node.name] = spread(node, facts.depends, facts)
    return facts


def spread(node: fx.Node, marks: Mapping[str, Any], facts: Observation) -> Any:
    """Elements of the node's value that the marked elements of its operands can change.

    Args:
        marks: for every operand a boolean tensor of its shape (a list for several values).
    """
    value = facts.values[node.name]
    if node.target is operator.getitem:
        source = marks[node.args[0].name]
        return source[node.args[1]] if isinstance(source, list) else _like(value, bool(source.any()))
    reached = [n for n in node.all_input_nodes if _any(marks[n.name])]
    if not reached:
        return _like(value, False)
    spec = spec_of(node.target)
    follow = FOLLOW.get(str(spec.lossless)) if spec is not None else None
    if follow is None:
        return _like(value, True)
    with naming(node, "analysis of what depends on it"):
        try:
            return follow(node, marks, facts, reached)
        except (RuntimeError, TypeError, IndexError):
            # The operator does not take a float indicator in this place: say nothing finer.
            return _like(value, True)


def _elementwise(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    if node.target in (aten.mul.Tensor, aten.mul.Scalar):
        return _multiply(node, marks, facts, reached)
    out = _like(facts.values[node.name], False)
    for source in reached:
        out = out | marks[source.name]
    return out


def _cast(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """Only the type of a second operand matters."""
    return marks[node.args[0].name]


def _constant(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """Of an operand only shape and type matter."""
    return _like(facts.values[node.name], False)


def _multiply(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """A product with a constant zero stays zero."""
    out = _like(facts.values[node.name], False)
    pair = node.args[:2]
    for source, other in (pair, pair[::-1]):
        if isinstance(source, fx.Node):
            alive = _nonzero(other, facts) if isinstance(other, fx.Node) else torch.tensor(other != 0)
            out = out | (marks[source.name] & alive)
    return out


def _product(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """Sums of products: a term counts when one factor is marked and the other can be non-zero."""
    a, b = node.args[:2]
    bias = _at(node, 2, "bias") if node.target not in BIASLESS else None
    if isinstance(bias, fx.Node) and bias in reached:
        return _like(facts.values[node.name], True)
    out = _like(facts.values[node.name], False)
    for left, right in (
        (marks[a.name], _nonzero(b, facts)),
        (_nonzero(a, facts), marks[b.name]),
    ):
        if bool(left.any()) and bool(right.any()):
            quick = _by_channel(node, left, right, out)
            if quick is not None:
                out = out | quick
                continue
            args, kwargs = _resolved(node, facts)
            args[0], args[1] = left.float(), right.float()
            if len(args) > 2 and node.target not in BIASLESS:
                args[2] = None
            kwargs.pop("bias", None)
            # Sums of ones; half a one is far above any rounding of a fast convolution.
            out = out | (node.target(*args, **kwargs) > 0.5)
    return out


def _by_channel(
    node: fx.Node, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor
) -> torch.Tensor | None:
    """The same for marks that treat all positions alike: one small product; None where it does not apply.

    A window that sees nothing but padding counts as reached, which claims less.
    """
    if node.target is aten.linear.default:
        dim, weight = left.dim() - 1, right
    elif (
        lossless_kind(node) == "convolution" and left.dim() == right.dim() and left.shape[1] == right.shape[1]
    ):
        dim, weight = 1, right.flatten(2).any(2)
    elif lossless_kind(node) == "transposed" and left.dim() == right.dim() and out.shape[1] == right.shape[1]:
        dim, weight = 1, right.flatten(2).any(2).T
    else:
        return None
    rows = left.movedim(dim, 0).reshape(left.shape[dim], -1)
    if not bool((rows == rows[:, :1]).all()):
        return None
    reached = (weight.float() @ rows[:, 0].float()) > 0.5
    return reached.reshape([-1 if d == dim else 1 for d in range(out.dim())]).expand(out.shape)


def _addmm(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    bias, a, b = node.args[:3]
    if set(node.kwargs) & {"alpha", "beta"}:
        return _like(facts.values[node.name], True)
    out = _like(facts.values[node.name], False) | marks[bias.name]
    out = out | ((marks[a.name].float() @ _nonzero(b, facts).float()) > 0.5)
    return out | ((_nonzero(a, facts).float() @ marks[b.name].float()) > 0.5)


def _join(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _plain(n, marks, facts))
    return node.target(*args, **kwargs) > 0


def _move(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    source = node.args[0]
    if reached != [source]:
        return _like(facts.values[node.name], True)
    args, kwargs = _resolved(node, facts)
    args[0] = marks[source.name].float()
    moved = node.target(*args, **kwargs)
    return moved > 0 if isinstance(moved, torch.Tensor) else [m > 0 for m in moved]


def _pool(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    args, kwargs = _resolved(node, facts)
    args[0] = marks[node.args[0].name].float()
    out = node.target(*args, **kwargs)
    # Averages of marks are small, never zero; max pooling pads with -inf, never with a mark.
    return out > 0 if isinstance(out, torch.Tensor) else [out[0] > 0] * len(out)


def _reduce(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    requested = concrete(_at(node, 1, "dim"))
    dims = [requested] if isinstance(requested, int) else list(requested or range(mark.dim()))
    out = mark.float().amax(dims, keepdim=True) > 0
    return out.reshape(facts.values[node.name].shape)


def _along(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    return mark.any(node.args[1], keepdim=True).expand(mark.shape)


def _pad(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    args, kwargs = _resolved(node, facts)
    args[0] = marks[node.args[0].name].float()
    if node.target is aten.constant_pad_nd.default or _at(node, 2, "mode", "constant") == "constant":
        return aten.constant_pad_nd.default(args[0], args[1], 0) > 0
    return node.target(*args, **kwargs) > 0


def _gated(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """glu: the first half of a dimension times a gate made of the second."""
    first, second = marks[node.args[0].name].chunk(2, _at(node, 1, "dim", -1))
    return first | second


def _batch_norm(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    x, scale = node.args[:2]
    if reached != [x]:
        return _like(facts.values[node.name], True)
    mark = marks[x.name]
    if scale is None:
        return mark
    alive = facts.values[scale.name] != 0
    return mark & alive.reshape([1, -1] + [1] * (mark.dim() - 2))


def _layer_norm(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    x = node.args[0]
    if reached != [x]:
        return _like(facts.values[node.name], True)
    mark = marks[x.name]
    dims = list(range(mark.dim() - len(node.args[1]), mark.dim()))
    return (mark.float().amax(dims, keepdim=True) > 0).expand(mark.shape)


def _attention(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    """Within a head: any mark on queries, keys or the bias reaches all of it, one on a value its column."""
    query, key, value = (marks[n.name] for n in node.args[:3])
    if any(n not in node.args[:3] for n in reached) or query.shape[:-2] != value.shape[:-2]:
        return _like(facts.values[node.name], True)
    head = query.float().amax((-2, -1), keepdim=True) + key.float().amax((-2, -1), keepdim=True)
    return ((head + value.float().amax(-2, keepdim=True)) > 0).expand(facts.values[node.name].shape)


def _resample(node: fx.Node, marks: Mapping[str, Any], facts: Observation, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    dims = list(range(2, mark.dim()))
    return (mark.float().amax(dims, keepdim=True) > 0).expand(facts.values[node.name].shape)


def _nonzero(node: fx.Node, facts: Observation) -> torch.Tensor:
    """Elements that are, or may become, other than zero."""
    return (facts.values[node.name] != 0) | facts.depends[node.name]


def _resolved(node: fx.Node, facts: Observation) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: facts.values[n.name])
    return list(args), dict(kwargs)


def _plain(node: fx.Node, marks: Mapping[str, Any], facts: Observation) -> Any:
    mark = marks[node.name]
    return mark.float() if isinstance(mark, torch.Tensor) else facts.values[node.name]


def _at(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _any(mark: Any) -> bool:
    if isinstance(mark, list):
        return any(_any(m) for m in mark)
    return isinstance(mark, torch.Tensor) and bool(mark.any())


def _like(value: Any, mark: bool) -> Any:
    """The same mark for every element; None for what is no tensor (sizes)."""
    if isinstance(value, list | tuple):
        return [_like(v, mark) for v in value]
    return torch.full(value.shape, mark) if isinstance(value, torch.Tensor) else None


# How marks pass through an operator, by what its entry in the operator table says (`OpSpec.lossless`).
FOLLOW: dict[str, Callable[..., Any]] = {
    "elementwise": _elementwise,
    "prelu": _elementwise,
    "convolution": _product,
    "transposed": _product,
    "product": _product,
    "addmm": _addmm,
    "join": _join,
    "move": _move,
    "pool": _pool,
    "reduce": _reduce,
    "along": _along,
    "pad": _pad,
    "batch norm": _batch_norm,
    "layer norm": _layer_norm,
    "attention": _attention,
    "resample": _resample,
    "glu": _gated,
    "cast": _cast,
    "constant": _constant,
}
