"""Weights that a layer computes from others (weight norm, spectral norm) become the weight itself.

    conv(x, _weight_norm(conv.weight_v, conv.weight_g))  →  conv(x, conv.weight)

`torch.nn.utils.weight_norm`, `spectral_norm` and everything under `torch.nn.utils.parametrize`
leave such computations in an exported graph. One parameter in their place has channels like any
other; that its inputs are removed no longer changes the length of what stays.

Guarantee: the same operators gave the new parameter, so the function of the graph is the same bit
for bit. What is read elsewhere too, or ends in several tensors, is left as it was.
Elsewhere: masks of `torch.nn.utils.prune` (surgery.lossless_hooks).
"""

from __future__ import annotations

import re

import torch
from torch import fx

from edgeprune.graph.module import attribute

PARAMETRISED = re.compile(r"(?P<owner>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\..+")
HOOKED = re.compile(r"(?P<owner>(?:.*\.)?)(?P<name>[^.]+)_(?P<part>g|v|orig)")
HOOKS = ({"g", "v"}, {"orig"})  # weight norm; spectral norm, whose vectors are constants


def fold_weights(graph: fx.GraphModule) -> None:
    """Put one parameter in the place of each weight that is computed from parametrised tensors, in place."""
    for name, sources in _computed(graph).items():
        inner = _inner(graph, sources)
        ends = [n for n in inner if any(user not in inner for user in n.users)]
        read_elsewhere = any(user not in inner for source in sources for user in source.users)
        owner, _, last = name.rpartition(".")
        if len(ends) != 1 or read_elsewhere or hasattr(graph.get_submodule(owner), last):
            continue
        values = {
            n: attribute(graph, str(n.target)) for m in inner for n in m.all_input_nodes if n not in inner
        }
        shapes = {values[n].shape for n in sources}
        if any(_is_mask(v) and v.shape in shapes for n, v in values.items() if n not in sources):
            continue
        trained = any(values[n].requires_grad for n in sources)
        for node in inner:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)
        folded = torch.nn.Parameter(values[ends[0]].detach().clone(), trained)
        graph.get_submodule(owner).register_parameter(last, folded)
        with graph.graph.inserting_before(ends[0]):
            new = graph.graph.get_attr(name)
        new.meta = dict(ends[0].meta)
        ends[0].replace_all_uses_with(new)
        for node in [*reversed(inner), *sources]:
            graph.graph.erase_node(node)


def _computed(graph: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Name of a weight -> the nodes that read the parameters it is computed from."""
    readers: dict[str, list[fx.Node]] = {}
    hooked: dict[str, dict[str, fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr" or not isinstance(attribute(graph, str(node.target)), torch.nn.Parameter):
            continue
        if match := PARAMETRISED.fullmatch(str(node.target)):
            readers.setdefault(match["owner"] + match["name"], []).append(node)
        elif match := HOOKED.fullmatch(str(node.target)):
            hooked.setdefault(match["owner"] + match["name"], {})[match["part"]] = node
    return readers | {name: list(parts.values()) for name, parts in hooked.items() if set(parts) in HOOKS}


def _inner(graph: fx.GraphModule, sources: list[fx.Node]) -> list[fx.Node]:
    """What depends on these nodes, and beside them on constants alone, in the graph's order."""
    inner: list[fx.Node] = []
    reached = set(sources)
    for node in graph.graph.nodes:
        operands = node.all_input_nodes
        started = node.op == "call_function" and any(n in reached for n in operands)
        if started and all(n in reached or _constant(graph, n) for n in operands):
            reached.add(node)
            inner.append(node)
    return inner


def _is_mask(value: torch.Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _constant(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "get_attr":
        return False
    value = attribute(graph, str(node.target))
    return isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)
