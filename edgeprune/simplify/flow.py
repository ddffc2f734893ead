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

from edgeprune.coupling.couple import ELEMENTWISE
from edgeprune.coupling.movement import CYCLIC, MOVEMENT
from edgeprune.graph.module import attribute, concrete

aten = torch.ops.aten
Marks = dict[str, Any]  # node name -> bool tensor of the value's shape, or a list of them

CONVOLUTIONS = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
}  # fmt: skip
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
PRODUCTS = {aten.linear.default, aten.mm.default, aten.bmm.default, aten.matmul.default}
POOLS = {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default, aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default, aten.max_pool2d_with_indices.default,
}  # fmt: skip
REDUCTIONS = {
    aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.var.correction,
    aten.std.correction, aten.logsumexp.default,
}  # fmt: skip
ALONG = {aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten._log_softmax.default}
JOINS = {aten.cat.default, aten.stack.default}


@dataclass(frozen=True)
class Facts:
    """One run: every node's value, and which of its elements depend on the graph's inputs."""

    values: dict[str, Any]
    depends: Marks

    def constant(self, name: str) -> torch.Tensor:
        """Elements of a single-tensor value that no input can change."""
        return torch.logical_not(self.depends[name])


def observe(graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Facts:
    """Run the graph once and follow its inputs through it; nothing of it changes."""
    facts = Facts({}, {})
    given = iter(inputs)
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.op == "output":
                continue
            if node.op == "placeholder":
                value = next(given)
            elif node.op == "get_attr":
                value = attribute(graph, str(node.target))
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: facts.values[n.name])
                value = node.target(*args, **kwargs)
            facts.values[node.name] = value
            if node.op == "placeholder":
                facts.depends[node.name] = _like(value, True)
            elif node.op == "get_attr":
                facts.depends[node.name] = _like(value, False)
            else:
                facts.depends[node.name] = spread(node, facts.depends, facts)
    return facts


def spread(node: fx.Node, marks: Mapping[str, Any], facts: Facts) -> Any:
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
    rule = _rule(node.target)
    if rule is not None:
        try:
            return rule(node, marks, facts, reached)
        except (RuntimeError, TypeError, IndexError):
            # The operator does not take a float indicator in this place: say nothing finer.
            return _like(value, True)
    return _like(value, True)


def _rule(target: Any) -> Callable[..., Any] | None:
    if target in (aten.mul.Tensor, aten.mul.Scalar):
        return _multiply
    if target in CONVOLUTIONS or target in TRANSPOSED or target in PRODUCTS:
        return _product
    if target is aten.addmm.default:
        return _addmm
    if target in JOINS:
        return _join
    if target in MOVEMENT or target in CYCLIC:
        return _move
    if target in POOLS:
        return _pool
    if target in REDUCTIONS:
        return _reduce
    if target in ALONG:
        return _along
    if target in (aten.constant_pad_nd.default, aten.pad.default):
        return _pad
    if target is aten.batch_norm.default:
        return _batch_norm
    if target is aten.layer_norm.default:
        return _layer_norm
    if target is aten.scaled_dot_product_attention.default:
        return _attention
    if str(target).startswith("aten.upsample"):
        return _resample
    if target is aten.glu.default:
        return _gated
    if (
        target in ELEMENTWISE
        or target is aten.prelu.default
        or torch.Tag.pointwise in getattr(target, "tags", ())
    ):
        return _elementwise
    return None


def _elementwise(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    out = _like(facts.values[node.name], False)
    for source in reached:
        out = out | marks[source.name]
    return out


def _multiply(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    """A product with a constant zero stays zero."""
    out = _like(facts.values[node.name], False)
    pair = node.args[:2]
    for source, other in (pair, pair[::-1]):
        if isinstance(source, fx.Node):
            alive = _nonzero(other, facts) if isinstance(other, fx.Node) else torch.tensor(other != 0)
            out = out | (marks[source.name] & alive)
    return out


def _product(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    """Sums of products: a term counts when one factor is marked and the other can be non-zero."""
    a, b = node.args[:2]
    bias = _at(node, 2, "bias") if node.target not in PRODUCTS - {aten.linear.default} else None
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
            if len(args) > 2 and node.target not in PRODUCTS - {aten.linear.default}:
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
    elif node.target in CONVOLUTIONS and left.dim() == right.dim() and left.shape[1] == right.shape[1]:
        dim, weight = 1, right.flatten(2).any(2)
    elif node.target in TRANSPOSED and left.dim() == right.dim() and out.shape[1] == right.shape[1]:
        dim, weight = 1, right.flatten(2).any(2).T
    else:
        return None
    rows = left.movedim(dim, 0).reshape(left.shape[dim], -1)
    if not bool((rows == rows[:, :1]).all()):
        return None
    reached = (weight.float() @ rows[:, 0].float()) > 0.5
    return reached.reshape([-1 if d == dim else 1 for d in range(out.dim())]).expand(out.shape)


def _addmm(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    bias, a, b = node.args[:3]
    if set(node.kwargs) & {"alpha", "beta"}:
        return _like(facts.values[node.name], True)
    out = _like(facts.values[node.name], False) | marks[bias.name]
    out = out | ((marks[a.name].float() @ _nonzero(b, facts).float()) > 0.5)
    return out | ((_nonzero(a, facts).float() @ marks[b.name].float()) > 0.5)


def _join(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _plain(n, marks, facts))
    return node.target(*args, **kwargs) > 0


def _move(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    source = node.args[0]
    if reached != [source]:
        return _like(facts.values[node.name], True)
    args, kwargs = _resolved(node, facts)
    args[0] = marks[source.name].float()
    moved = node.target(*args, **kwargs)
    return moved > 0 if isinstance(moved, torch.Tensor) else [m > 0 for m in moved]


def _pool(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    args, kwargs = _resolved(node, facts)
    args[0] = marks[node.args[0].name].float()
    out = node.target(*args, **kwargs)
    # Averages of marks are small, never zero; max pooling pads with -inf, never with a mark.
    return out > 0 if isinstance(out, torch.Tensor) else [out[0] > 0] * len(out)


def _reduce(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    given = concrete(_at(node, 1, "dim"))
    dims = [given] if isinstance(given, int) else list(given or range(mark.dim()))
    out = mark.float().amax(dims, keepdim=True) > 0
    return out.reshape(facts.values[node.name].shape)


def _along(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    return mark.any(node.args[1], keepdim=True).expand(mark.shape)


def _pad(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    args, kwargs = _resolved(node, facts)
    args[0] = marks[node.args[0].name].float()
    if node.target is aten.constant_pad_nd.default or _at(node, 2, "mode", "constant") == "constant":
        return aten.constant_pad_nd.default(args[0], args[1], 0) > 0
    return node.target(*args, **kwargs) > 0


def _gated(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    """glu: the first half of a dimension times a gate made of the second."""
    first, second = marks[node.args[0].name].chunk(2, _at(node, 1, "dim", -1))
    return first | second


def _batch_norm(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    x, scale = node.args[:2]
    if reached != [x]:
        return _like(facts.values[node.name], True)
    mark = marks[x.name]
    if scale is None:
        return mark
    alive = facts.values[scale.name] != 0
    return mark & alive.reshape([1, -1] + [1] * (mark.dim() - 2))


def _layer_norm(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    x = node.args[0]
    if reached != [x]:
        return _like(facts.values[node.name], True)
    mark = marks[x.name]
    dims = list(range(mark.dim() - len(node.args[1]), mark.dim()))
    return (mark.float().amax(dims, keepdim=True) > 0).expand(mark.shape)


def _attention(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    """Within a head: any mark on queries, keys or the bias reaches all of it, one on a value its column."""
    query, key, value = (marks[n.name] for n in node.args[:3])
    if any(n not in node.args[:3] for n in reached) or query.shape[:-2] != value.shape[:-2]:
        return _like(facts.values[node.name], True)
    head = query.float().amax((-2, -1), keepdim=True) + key.float().amax((-2, -1), keepdim=True)
    return ((head + value.float().amax(-2, keepdim=True)) > 0).expand(facts.values[node.name].shape)


def _resample(node: fx.Node, marks: Mapping[str, Any], facts: Facts, reached: list[fx.Node]) -> Any:
    mark = marks[node.args[0].name]
    dims = list(range(2, mark.dim()))
    return (mark.float().amax(dims, keepdim=True) > 0).expand(facts.values[node.name].shape)


def _nonzero(node: fx.Node, facts: Facts) -> torch.Tensor:
    """Elements that are, or may become, other than zero."""
    return (facts.values[node.name] != 0) | facts.depends[node.name]


def _resolved(node: fx.Node, facts: Facts) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: facts.values[n.name])
    return list(args), dict(kwargs)


def _plain(node: fx.Node, marks: Mapping[str, Any], facts: Facts) -> Any:
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
