"""Bring an exported graph into the one form that rules and surgery know.

Gives: no guards or assertions (surgery changes the very shapes that they assert),
batch norm as one node with one output and a training flag, recurrent layers one by one,
constants folded, unused state dropped. Guarantee: the function that the graph computes stays the same.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.model.graph import attribute, source_line
from edgeprune.model.recurrent import split_layers, unshare

aten = torch.ops.aten
FOLD_LIMIT = 1 << 24  # elements; a larger constant bloats the file more than it saves time
ASSERTIONS = ("_assert", "sym_constrain_range")


def normalise(graph: fx.GraphModule) -> None:
    """Apply every step to `graph` in place and recompile it."""
    drop_guards(graph)
    restore_batch_norm(graph)
    split_layers(graph)
    unshare(graph)
    fold_constants(graph)
    graph.graph.eliminate_dead_code()
    drop_unused_state(graph)
    graph.graph.lint()
    graph.recompile()


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without in-place operators; one that has none is given back as it is.

    `run_decompositions({})` keeps every operator and only functionalises, at the price of a
    second trace.
    """
    graphs = [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    if any(_mutates(node.target) for g in graphs for node in g.graph.nodes if node.op == "call_function"):
        return program.run_decompositions({})
    return program


def _mutates(target: Any) -> bool:
    """Operators that write to an operand, and higher-order ones, whose bodies may."""
    if isinstance(target, torch._ops.OpOverload):
        return bool(target._schema.is_mutable)
    return isinstance(target, torch._ops.HigherOrderOperator)


def drop_guards(graph: fx.GraphModule) -> None:
    for node in reversed(list(graph.graph.nodes)):
        asserts = node.op == "call_function" and any(k in str(node.target) for k in ASSERTIONS)
        if asserts or (node.op == "call_module" and node.target == "_guards_fn"):
            graph.graph.erase_node(node)
    if hasattr(graph, "_guards_fn"):
        delattr(graph, "_guards_fn")


def restore_batch_norm(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        training = "batch_norm_legit_functional" in str(node.target)
        if training or (node.target is aten.batch_norm.default and node.args[5]):
            raise TraceError(
                f"the program was exported in training mode (batch norm at {source_line(node)})",
                tip="call model.eval() before torch.export.export",
            )
        if node.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        x, weight, bias, mean, var, momentum, eps = node.args
        with graph.graph.inserting_before(node):
            new = graph.graph.call_function(
                aten.batch_norm.default, (x, weight, bias, mean, var, False, momentum, eps, False)
            )
        new.meta = {**node.meta, "val": node.meta["val"][0]}
        for use in list(node.users):
            if use.target is operator.getitem and use.args[1] == 0:
                use.replace_all_uses_with(new)
                graph.graph.erase_node(use)


def fold_constants(graph: fx.GraphModule) -> None:
    """Compute once what depends on no input, no parameter and no free batch."""
    parameters = {id(p) for p in graph.parameters()}
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = attribute(graph, str(node.target))
            if isinstance(value, torch.Tensor) and id(value) not in parameters:
                known[node] = value
        elif node.op == "call_function" and all(n in known for n in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            value = node.target(*args, **kwargs)
            if not isinstance(value, torch.Tensor) or value.numel() <= FOLD_LIMIT:
                known[node] = value
    folded = [
        (node, value)
        for node, value in known.items()
        if node.op == "call_function"
        and isinstance(value, torch.Tensor)
        and any(user not in known for user in node.users)
    ]
    for count, (node, value) in enumerate(folded):
        name = f"_folded_{count}"
        graph.register_buffer(name, value.detach().clone(), persistent=False)
        with graph.graph.inserting_before(node):
            new = graph.graph.get_attr(name)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)


def drop_unused_state(graph: fx.GraphModule) -> None:
    """Forget tensors that no node reads (num_batches_tracked, sources of folded tables)."""
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for prefix, module in graph.named_modules():
        for table in (module._parameters, module._buffers):
            for name in list(table):
                if (f"{prefix}.{name}" if prefix else name) not in used:
                    delattr(module, name)
