"""Let the features of a model's inputs be removed: a selection in front of the layers that read them.

    opened, notes = open_features(traced)   x -> index_select(x, 1, buffer) -> the network
    kept_features(opened.graph)             which features of which input stay

The buffer counts the features, so the opened network computes what it computed before.
Coupling gives the buffer's indices atoms and surgery slices it like any tensor: what is left
in it is the list of the features that are still read. The file keeps its full input and begins
with one Gather; whoever fills the input may leave the other features unmeasured.

Guarantee: an input whose features are not those of the layers behind it stays, with the reason.
Elsewhere: which features go (criteria, planning), what becomes of the selection (surgery).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgeprune.errors import ModelError
from edgeprune.graph.module import attribute, shape_of, source_line
from edgeprune.graph.trace import Trace

aten = torch.ops.aten
SELECTION = "_features_of_"  # names of the buffers; the rest is the input's name
FIXED = "_kept_features_of_"  # of a network that was cut before: a selection that stays as it is
FLAT, DIMENSION = "flattened sample", "dimension "
LAST = {
    aten.linear.default: 0, aten.addmm.default: 1, aten.mm.default: 0, aten.matmul.default: 0,
    aten.lstm.input: 0, aten.gru.input: 0, aten.rnn_tanh.input: 0, aten.rnn_relu.input: 0,
}  # fmt: skip  # operator -> the argument whose last dimension it reads
SECOND = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding, aten.batch_norm.default,
}  # fmt: skip
RESHAPES = {aten.reshape.default, aten.view.default, aten.flatten.using_ints, aten._unsafe_view.default}
PASSING = RESHAPES | {
    aten.permute.default, aten.transpose.int, aten.unsqueeze.default, aten.squeeze.dim, aten.clone.default,
    aten.contiguous.default, aten.to.dtype, aten._to_copy.default, aten.alias.default, aten.detach.default,
}  # fmt: skip


def is_selection(name: str) -> bool:
    """Whether a state tensor is a list of features that may become shorter."""
    return name.startswith(SELECTION)


def open_features(traced: Trace) -> tuple[Trace, tuple[str, ...]]:
    """The same network with a selection of all features behind every input, and why some inputs stay.

    A selection that an earlier run left is opened again.

    Raises:
        ModelError: no input has features that can be told apart.
    """
    graph = traced.copy()
    stay, opened = [], 0
    earlier = _rename(graph, FIXED, SELECTION)
    for node in [n for n in graph.graph.nodes if n.op == "placeholder"]:
        if f"{SELECTION}{node.name}" in earlier:
            opened += 1
            continue
        place = _place(node)
        if isinstance(place, str):
            stay.append(f"input '{node.name}' stays as it is: {place}")
        else:
            _insert(graph, *place, f"{SELECTION}{node.name}")
            opened += 1
    if not opened:
        raise ModelError(
            f"--prune-inputs: nothing to select from; {'; '.join(stay) or 'the model has no input'}",
            tip="leave --prune-inputs out",
        )
    graph.graph.lint()
    graph.recompile()
    return replace(traced, graph=graph), tuple(stay)


def close_features(traced: Trace) -> Trace:
    """The same network with the selections that it was loaded with as they are: nothing goes unasked."""
    if not any(n.op == "get_attr" and is_selection(str(n.target)) for n in traced.graph.graph.nodes):
        return traced
    graph = traced.copy()
    _rename(graph, SELECTION, FIXED)
    graph.recompile()
    return replace(traced, graph=graph)


def kept_features(graph: fx.GraphModule) -> list[dict[str, Any]]:
    """What each selection of a graph keeps, in the numbers of the input that was given.

    Each entry: input, its name; shape, without the batch; count; kept, ascending; and of: the
    dimension of the input that is counted ("dimension 1"), "flattened sample" where the network
    flattens it first, or the line of the model whose value it is.
    """
    entries = []
    for node in graph.graph.nodes:
        if node.op != "get_attr" or not str(node.target).startswith((SELECTION, FIXED)):
            continue
        select = next(iter(node.users))
        name = str(node.target).removeprefix(SELECTION).removeprefix(FIXED)
        placeholder = next(n for n in graph.graph.nodes if n.op == "placeholder" and n.name == name)
        source, dim = select.args[0], select.args[1]
        shape = shape_of(placeholder.meta["val"])[1:]
        entries.append(
            {
                "input": placeholder.name,
                "shape": list(shape),
                "of": _meaning(placeholder, source, dim),
                "count": int(shape_of(source.meta["val"])[dim]),
                "kept": attribute(graph, str(node.target)).tolist(),
            }
        )
    return entries


def drop_identity_selections(traced: Trace) -> Trace:
    """The trace without the selections that select everything."""
    graph = traced.copy()
    changed = False
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or not is_selection(str(node.target)):
            continue
        select = next(iter(node.users))
        source, dim = select.args[:2]
        if len(attribute(graph, str(node.target))) == shape_of(source.meta["val"])[dim]:
            select.replace_all_uses_with(source)
            graph.graph.erase_node(select)
            graph.graph.erase_node(node)
            delattr(graph, str(node.target))
            changed = True
    if not changed:
        return traced
    graph.recompile()
    return replace(traced, graph=graph)


def selected(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The flat inputs without the features that the graph does not read: what a sliced class is fed.

    An input whose features are flattened first comes back flattened; one whose features only a
    line of the model knows comes back whole.
    """
    entries = {entry["input"]: entry for entry in kept_features(graph)}
    names = [n.name for n in graph.graph.nodes if n.op == "placeholder"]
    kept = []
    for name, x in zip(names, inputs, strict=True):
        of = entries[name]["of"] if name in entries else ""
        if of == FLAT or of.startswith(DIMENSION):
            x = x.flatten(1) if of == FLAT else x
            dim = 1 if of == FLAT else int(of.removeprefix(DIMENSION))
            x = x.index_select(dim, torch.tensor(entries[name]["kept"]))
        kept.append(x)
    return tuple(kept)


def _rename(graph: fx.GraphModule, old: str, new: str) -> list[str]:
    """Give the buffers whose names begin with `old` names that begin with `new`; gives the new names."""
    names = []
    for node in graph.graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith(old):
            names.append(new + str(node.target).removeprefix(old))
            graph.register_buffer(names[-1], attribute(graph, str(node.target)))
            delattr(graph, str(node.target))
            node.target = names[-1]
    return names


def _place(placeholder: fx.Node) -> tuple[fx.Node, int] | str:
    """The value between an input and its layers where one dimension counts the features, or why not."""
    node, value = placeholder, placeholder.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() < 2:
        return "it holds no features"
    while True:
        users = [u for u in node.users if isinstance(u.meta.get("val"), torch.Tensor | list | tuple)]
        dims = {_feature_dim(user, node) for user in users}
        dim = next(iter(dims)) if len(dims) == 1 else None
        if dim is not None:
            return (node, dim) if shape_of(node.meta["val"])[dim] > 1 else "it has one feature"
        if len(users) != 1 or not _passes(users[0], node):
            where = ", ".join(f"{u.target} at {source_line(u)}" for u in users[:2]) or "nothing"
            return f"it is read by {where}, whose features cannot be told apart"
        node = users[0]


def _feature_dim(user: fx.Node, node: fx.Node) -> int | None:
    rank = len(shape_of(node.meta["val"]))
    if user.target in LAST and user.args[LAST[user.target]] is node:
        return rank - 1
    if user.target in SECOND and user.args[0] is node:
        return 1
    return None


def _passes(user: fx.Node, node: fx.Node) -> bool:
    """Whether the next value still holds the same features: moved, cast, or changed one by one."""
    if user.target in PASSING:
        return user.args[0] is node
    pointwise = torch.Tag.pointwise in getattr(user.target, "tags", ())
    return pointwise and shape_of(user.meta["val"]) == shape_of(node.meta["val"])


def _insert(graph: fx.GraphModule, source: fx.Node, dim: int, name: str) -> None:
    """`source` -> index_select(source, dim, every feature), for all that reads it as a tensor."""
    graph.register_buffer(name, torch.arange(shape_of(source.meta["val"])[dim]))
    with graph.graph.inserting_after(source):
        chosen = graph.graph.get_attr(name)
    chosen.meta["val"] = attribute(graph, name)
    with graph.graph.inserting_after(chosen):
        select = graph.graph.call_function(aten.index_select.default, (source, dim, chosen))
    select.meta = {k: v for k, v in source.meta.items() if k in ("val", "stack_trace")}
    tensors = [u for u in source.users if u is not select and u.target is not aten.sym_size.int]
    for user in tensors:
        user.replace_input_with(source, select)


def _meaning(placeholder: fx.Node, source: fx.Node, dim: int) -> str:
    """What a number in the selection counts: the dimension is followed back to the input."""
    shape, before = shape_of(source.meta["val"]), shape_of(placeholder.meta["val"])
    node, at, turned, reshaped = source, dim, False, False
    while node is not placeholder:
        operand = next(n for n in node.all_input_nodes if n.op != "get_attr")
        if node.target in TURNS:
            rank = len(shape_of(node.meta["val"]))
            at = list(TURNS[node.target](list(range(rank)), *node.args[1:]))[at]
            turned = True
        reshaped |= len(shape_of(node.meta["val"])) != len(shape_of(operand.meta["val"]))
        reshaped |= node.target in RESHAPES
        node = operand
    if not reshaped:
        return f"{DIMENSION}{at}"
    flat = len(shape) == 2 and shape[0] == before[0]
    return FLAT if flat and not turned else f"the value at {source_line(source)}"


def _swapped(dims: list[int], a: int, b: int) -> list[int]:
    dims[a], dims[b] = dims[b], dims[a]
    return dims


def _permuted(dims: list[int], order: list[int]) -> list[int]:
    return [dims[d] for d in order]


TURNS: dict[Any, Any] = {aten.permute.default: _permuted, aten.transpose.int: _swapped}
