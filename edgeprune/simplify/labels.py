"""Value numbering: elements with equal labels are equal on every input.

Each element of every value gets a 64-bit label that is a hash of how it is computed: of
the bits of the weights in its row, of the labels of its operands, of the operator and
its settings, of its position. So two channels with identical producer rows, biases,
norms and paths carry identical labels, across branches too, and a constant is labelled
by its value alone. What has no rule gets labels of its own and equals nothing else.

Guarantee: equal labels mean equal values, but for a hash collision (about n²/2⁶⁵ for n
elements), which the certificate on real inputs would show. Elsewhere: merging (lossless_twins).
"""

from __future__ import annotations

import operator
import zlib
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.opspec import naming
from edgeprune.simplify.flow import Observation, lossless_kind

aten = torch.ops.aten
K1, K2 = -7046029254386353131, -4658895280553007687  # odd 64-bit multipliers of splitmix64
Labels = dict[str, Any]


def label_values(graph: fx.GraphModule, facts: Observation) -> Labels:
    """Labels of every value, int64 tensors of the values' shapes (lists for several outputs)."""
    labels: Labels = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        value = facts.values[node.name]
        hashes: Any = None
        if node.op == "call_function":
            with naming(node, "numbering of equal values"):
                try:
                    hashes = _apply(node, labels, facts)
                except (RuntimeError, TypeError, IndexError):
                    hashes = None  # an operator that does not run on integers, or in an unusual form
        labels[node.name] = _settle(hashes, value, facts.depends[node.name], node.name)
    return labels


def sequence_hash(labels: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """One label for the whole of `dims`, their order included; the other dimensions stay."""
    rank = labels.dim()
    dims = tuple(d % rank for d in dims)
    rest = [d for d in range(rank) if d not in dims]
    length = 1
    for d in dims:
        length *= labels.shape[d]
    rows = labels.permute(*rest, *dims).reshape(*[labels.shape[d] for d in rest], length)
    return finalise(finalise(rows + K1 * torch.arange(1, rows.shape[-1] + 1)).sum(-1))


def mix(a: torch.Tensor, b: torch.Tensor | int) -> torch.Tensor:
    """A label of the ordered pair (a, b)."""
    return finalise(a * K2 + b)


def finalise(x: torch.Tensor) -> torch.Tensor:
    """A bijection of 64-bit integers that spreads every bit."""
    y = x >> 30  # in place from here on: weights of large models pass through
    y = y.bitwise_xor_(x).mul_(K2)
    z = (y >> 27).bitwise_xor_(y).mul_(K1)
    return (z >> 31).bitwise_xor_(z)


def bits(value: torch.Tensor) -> torch.Tensor:
    """Labels of constants: equal real values, equal labels, whatever their dtype."""
    if value.is_complex():
        return mix(bits(value.real), bits(value.imag))
    return finalise((value.detach().double() + 0.0).contiguous().view(torch.int64))


def text(words: Any) -> int:
    """A number for settings that is the same in every process."""
    encoded = repr(words).encode()
    return zlib.crc32(encoded) + ((zlib.adler32(encoded) & 0x7FFFFFFF) << 32)


def _settle(hashes: Any, value: Any, depends: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        parts = hashes if isinstance(hashes, list) else [None] * len(value)
        return [
            _settle(m, v, d, f"{name}.{i}")
            for i, (m, v, d) in enumerate(zip(parts, value, depends, strict=True))
        ]
    if not isinstance(value, torch.Tensor):
        return None
    if not bool(depends.any()):
        return bits(value)
    if hashes is None or hashes.shape != value.shape:
        hashes = finalise(torch.arange(value.numel()) * K1 + text(name)).reshape(value.shape)
    return torch.where(depends, hashes, bits(value))


def _apply(node: fx.Node, labels: Labels, facts: Observation) -> Any:
    target = node.target
    if target is operator.getitem:
        source = labels[node.args[0].name]
        return source[node.args[1]] if isinstance(source, list) else None
    kind = lossless_kind(node)
    if kind in ("move", "join"):
        return _move(node, labels, facts)
    if kind in ("convolution", "transposed"):
        return _convolution(node, labels, facts)
    if target is aten.linear.default:
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        return _linear(labels, node.args[0], node.args[1], bias, 1)
    if target is aten.addmm.default and not node.kwargs:
        return _linear(labels, node.args[1], node.args[2], node.args[0], 0)
    if kind == "batch norm":
        x, *scales = node.args[:5]
        out = labels[x.name]
        for scale in scales:
            part = torch.zeros(1, dtype=torch.int64) if scale is None else labels[scale.name]
            out = mix(out, part.reshape([1, -1] + [1] * (out.dim() - 2)))
        return mix(out, text(node.args[7]))
    if kind == "pool":
        out = _over_positions(node, labels[node.args[0].name], _rank(node.args[1]), facts)
        return [mix(out, i) for i in range(2)] if isinstance(facts.values[node.name], tuple) else out
    if target is aten.mean.dim or target is aten.sum.dim_IntList:
        dims = node.args[1]
        sequence = sequence_hash(labels[node.args[0].name], (dims,) if isinstance(dims, int) else tuple(dims))
        return mix(sequence, text(str(target))).reshape(facts.values[node.name].shape)
    if kind == "along":
        source = labels[node.args[0].name]
        sequence = sequence_hash(source, (node.args[1],)).unsqueeze(node.args[1])
        return mix(mix(source, sequence), text(str(target)))
    if kind == "resample":
        source = labels[node.args[0].name]
        return _over_positions(node, source, source.dim() - 2, facts)
    if kind == "glu":
        halves = labels[node.args[0].name].chunk(2, node.args[1] if len(node.args) > 1 else -1)
        return mix(mix(halves[0], halves[1]), text("glu"))
    if kind == "cast":
        return mix(labels[node.args[0].name], text(str(facts.values[node.name].dtype)))
    if kind in ("elementwise", "prelu"):
        return _elementwise(node, labels, facts)
    return None


def _move(node: fx.Node, labels: Labels, facts: Observation) -> Any:
    """Movement runs on the labels themselves."""
    sources = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
    moved = {n.name for n in sources}

    def look(n: fx.Node) -> Any:
        return labels[n.name] if n.name in moved else facts.values[n.name]

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), look)
    out = node.target(*args, **kwargs)
    return out if isinstance(out, torch.Tensor) else list(out)


def _elementwise(node: fx.Node, labels: Labels, facts: Observation) -> Any:
    if lossless_kind(node) == "prelu":
        x, slope = (labels[n.name] for n in node.args)
        return mix(mix(x, slope.reshape([1, -1] + [1] * (x.dim() - 2))), text("prelu"))
    out = torch.tensor(text(str(node.target)))
    for key, arg in [*enumerate(node.args), *sorted(node.kwargs.items())]:
        part: Any = text((key, arg))
        if isinstance(arg, fx.Node):
            held = labels[arg.name]
            part = text((key, facts.values[arg.name])) if held is None else held
        out = mix(out, part)
    return out.expand(facts.values[node.name].shape)


def _convolution(node: fx.Node, labels: Labels, facts: Observation) -> Any:
    """An output is its row of weights, its bias, the input channels of its group, its position."""
    x, w = labels[node.args[0].name], labels[node.args[1].name]
    shape = facts.values[node.name].shape
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    if x.dim() != w.dim():
        return None
    if lossless_kind(node) == "transposed":  # weight (I, O/groups, ...): bring the outputs to the front
        w = w.reshape(groups, -1, *w.shape[1:]).transpose(1, 2).reshape(shape[1], -1)
    rows = sequence_hash(w.reshape(shape[1], -1), (1,))
    if bias is not None:
        rows = mix(rows, labels[bias.name])
    blocks = sequence_hash(x.reshape(len(x), groups, -1), (2,))  # (batch, groups)
    each = mix(blocks.repeat_interleave(shape[1] // groups, dim=1), rows)
    settings = fx.node.map_arg((str(node.target), node.args[3:6], node.args[7:]), str)
    return _at_positions(each, shape, text(settings))


def _linear(labels: Labels, x: fx.Node, w: fx.Node, bias: Any, in_dim: int) -> Any:
    rows = sequence_hash(labels[w.name], (in_dim,))
    if bias is not None:
        rows = mix(rows, labels[bias.name])
    return mix(sequence_hash(labels[x.name], (-1,)).unsqueeze(-1), rows)


def _over_positions(node: fx.Node, source: torch.Tensor, rank: int, facts: Observation) -> Any:
    """Operators over the trailing positions of each channel: all of the channel, and the place."""
    value = facts.values[node.name]
    shape = (value[0] if isinstance(value, tuple) else value).shape
    kept = source.dim() - rank
    if tuple(shape[:kept]) != tuple(source.shape[:kept]):
        return None
    sequence = sequence_hash(source, tuple(range(kept, source.dim())))
    return _at_positions(sequence, shape, text((str(node.target), fx.node.map_arg(node.args[1:], str))))


def _at_positions(sequence: torch.Tensor, shape: Any, settings: int) -> torch.Tensor:
    """Spread labels of whole channels over their positions."""
    count = 1
    for size in shape[sequence.dim() :]:
        count *= size
    places = finalise(torch.arange(count) * K1 + settings)
    return mix(sequence.unsqueeze(-1), places).reshape(shape)


def _rank(window: Any) -> int:
    return len(window) if isinstance(window, list | tuple) else 1
