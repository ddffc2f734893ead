"""Bring an exported graph into the one form that rules and surgery know.

Gives: no guards or assertions (surgery changes the very shapes that they assert),
batch norm as one node with one output and a training flag, recurrent layers one by one,
constants folded, unused state dropped. Guarantee: the function that the graph computes stays the same.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.model.graph import source_line
from edgeprune.model.inplace import fold_constants, replace_writes
from edgeprune.model.recurrent import split_layers, unshare

aten = torch.ops.aten
ASSERTIONS = ("_assert", "sym_constrain_range")


def functional(program: torch.export.ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """The program as a graph without guards and without operators that write to an operand.

    `run_decompositions({})` does it for every program, by tracing it again; it is asked only
    where the writes cannot be replaced in place.

    Args:
        inputs: flat example inputs.
    """
    graph = program.module()
    drop_guards(graph)
    restore_batch_norm(graph)
    if not replace_writes(graph, inputs):
        graph = program.run_decompositions({}).module()
    return graph


def normalise(graph: fx.GraphModule) -> None:
    """Apply every step to `graph` in place and recompile it."""
    drop_guards(graph)
    restore_batch_norm(graph)
    loosen_views(graph)
    split_layers(graph)
    unshare(graph)
    fold_constants(graph)
    graph.graph.eliminate_dead_code()
    drop_unused_state(graph)
    graph.graph.lint()
    graph.recompile()


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


def loosen_views(graph: fx.GraphModule) -> None:
    """Views become reshapes: another width, or another kernel, may give another memory layout."""
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def drop_unused_state(graph: fx.GraphModule) -> None:
    """Forget tensors that no node reads (num_batches_tracked, sources of folded tables)."""
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for prefix, module in graph.named_modules():
        for table in (module._parameters, module._buffers):
            for name in list(table):
                if (f"{prefix}.{name}" if prefix else name) not in used:
                    delattr(module, name)
