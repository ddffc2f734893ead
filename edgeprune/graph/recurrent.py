"""Split recurrent operators of several layers into one operator per layer.

One `aten.lstm` holds all its layers, and one tensor all their states, so every layer would
need the same width. Split apart, each layer keeps its own. A reader of the final states
that takes one layer out reads that layer's operator directly.

Guarantee: the graph computes the same, operator by operator.
"""

from __future__ import annotations

import contextlib
import operator
from typing import Any

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.graph.module import source_line

aten = torch.ops.aten
RECURRENT = {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
CREATION = {aten.zeros.default, aten.ones.default, aten.full.default}


def split_layers(graph: fx.GraphModule) -> None:
    """Replace every recurrent operator of more than one layer; nothing else changes.

    Raises:
        TraceError: dropout between the layers is on, which the split would take away.
    """
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in RECURRENT and node.args[4] > 1:
            dropout, train = node.args[5], node.args[6]
            if dropout and train:
                raise TraceError(
                    f"the model is no function of its input: dropout with p={dropout} between the recurrent"
                    f" layers at {source_line(node)} is on",
                    tip="call model.eval() before it is exported, and leave train() out of forward",
                )
            _split(graph.graph, node)


def unshare(graph: fx.GraphModule) -> None:
    """Give each reader of a created tensor its own: shared zeros would tie whoever starts from them."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in CREATION:
            continue
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(node):
                twin = graph.graph.node_copy(node)
            user.replace_input_with(node, twin)


def _split(graph: fx.Graph, node: fx.Node) -> None:
    x, initial, weights, biased, layers, dropout, train, both, first = node.args
    states = list(initial) if isinstance(initial, list | tuple) else [initial]
    directions = 2 if both else 1
    per = len(weights) // layers
    finals: list[list[fx.Node]] = []  # per layer: the final states
    with graph.inserting_before(node):
        for layer in range(layers):
            start = [_part(graph, s, layer * directions, directions) for s in states]
            begin: Any = start if isinstance(initial, list | tuple) else start[0]
            layer_weights = list(weights[layer * per : (layer + 1) * per])
            args = (x, begin, layer_weights, biased, 1, dropout, train, both, first)
            step = _layer(graph, node, args, layer * directions, directions)
            x, *final = [_call(graph, node, operator.getitem, (step, i)) for i in range(len(states) + 1)]
            finals.append(final)
        for user in list(node.users):  # every reader is a getitem
            index = user.args[1]
            if index == 0:
                user.replace_all_uses_with(x)
                continue
            _serve(graph, user, [final[index - 1] for final in finals], directions)
    for user in list(node.users):
        if not user.users:
            graph.erase_node(user)
    graph.erase_node(node)


def _serve(graph: fx.Graph, state: fx.Node, parts: list[fx.Node], directions: int) -> None:
    """Readers of the stacked final states get the layer that they take, or the layers joined."""
    total = len(parts) * directions
    for user in list(state.users):
        taken = _taken(user, total)
        if taken is None or taken[0] // directions != (taken[1] - 1) // directions:
            continue
        layer, begin = taken[0] // directions, taken[0] % directions
        with graph.inserting_before(user):
            if user.target is aten.select.int:
                new = _call(graph, user, aten.select.int, (parts[layer], 0, begin))
            elif taken[1] - taken[0] == directions:
                new = parts[layer]
            else:
                new = _call(
                    graph, user, aten.slice.Tensor, (parts[layer], 0, begin, begin + taken[1] - taken[0])
                )
        user.replace_all_uses_with(new)
        graph.erase_node(user)
    if state.users:
        with graph.inserting_before(state):
            joined = _call(graph, state, aten.cat.default, (parts, 0))
        state.replace_all_uses_with(joined)


def _taken(user: fx.Node, total: int) -> tuple[int, int] | None:
    """First and last+1 index that a select or slice along dimension 0 takes."""
    if user.target is aten.select.int and user.args[1] == 0:
        at = user.args[2] % total
        return at, at + 1
    if user.target is aten.slice.Tensor and (len(user.args) < 2 or user.args[1] == 0) and len(user.args) < 5:
        start, end = [*user.args[2:4], None, None][:2]
        begin, stop, _ = slice(start, end).indices(total)
        return (begin, stop) if begin < stop else None
    return None


def _part(graph: fx.Graph, state: fx.Node, start: int, count: int) -> fx.Node:
    """The initial state of one layer: created anew where it was created, else cut out."""
    if state.target in CREATION:
        size = [count, *state.args[0][1:]]
        return _call(graph, state, state.target, (size, *state.args[1:]), dict(state.kwargs))
    return _call(graph, state, aten.slice.Tensor, (state, 0, start, start + count))


def _layer(graph: fx.Graph, node: fx.Node, args: tuple[Any, ...], start: int, count: int) -> fx.Node:
    """The operator of one layer; its values are those of the whole one, which has the same widths.

    The kernel itself cannot run on fake tensors: for float32 it asks for a size that is symbolic.
    """
    output, *states = node.meta["val"]
    new = graph.call_function(node.target, args, {})
    new.meta = {k: v for k, v in node.meta.items() if k in ("stack_trace", "nn_module_stack")}
    mode = torch._guards.detect_fake_mode([output])
    with mode if mode is not None else contextlib.nullcontext():
        new.meta["val"] = (output, *(s.narrow(0, start, count) for s in states))
    return new


def _call(
    graph: fx.Graph, like: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> fx.Node:
    """A node with its value worked out on the fake tensors of its operands."""
    new = graph.call_function(target, args, kwargs or {})
    new.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
    fake_args, fake_kwargs = fx.node.map_arg((new.args, new.kwargs), lambda n: n.meta["val"])
    mode = torch._guards.detect_fake_mode([like.meta["val"], *(n.meta["val"] for n in new.all_input_nodes)])
    if mode is None:
        new.meta["val"] = target(*fake_args, **fake_kwargs)
    else:
        with mode:
            new.meta["val"] = target(*fake_args, **fake_kwargs)
    return new
