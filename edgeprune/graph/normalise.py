"""Bring an exported graph into the one form that rules and surgery know.

Gives: no guards or assertions (surgery changes the very shapes that they assert),
batch norm as one node with one output and a training flag, recurrent layers one by one,
weights in place of what they are computed from, constants folded, unused state dropped.
Guarantee: the function that the graph computes stays the same.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.graph.inplace import fold_constants, replace_writes
from edgeprune.graph.module import layer_of, source_line
from edgeprune.graph.normalise_weights import fold_weights
from edgeprune.graph.recurrent import split_layers, unshare

aten = torch.ops.aten
ASSERTIONS = ("_assert", "sym_constrain_range")


def functional(program: torch.export.ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """The program as a graph without guards and without operators that write to an operand.

    `run_decompositions({})` does it for every program, by tracing it again; it is asked only
    where the writes cannot be replaced in place.

    Args:
        inputs: flat example inputs.
    """
    graph = program.module(check_guards=False)
    graph._forward_pre_hooks.clear()  # what is left of the guards
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
    name_squeezes(graph)
    settle_attention(graph)
    slice_batch(graph)
    spell_shuffles(graph)
    split_layers(graph)
    unshare(graph)
    fold_weights(graph)
    fold_constants(graph)
    graph.graph.eliminate_dead_code()
    drop_unused_state(graph)
    graph.graph.lint()
    graph.recompile()


def drop_guards(graph: fx.GraphModule) -> None:
    """Forget assertions and what is left of the guards: they assert the shapes that surgery changes."""
    for node in reversed(list(graph.graph.nodes)):
        asserts = node.op == "call_function" and any(k in str(node.target) for k in ASSERTIONS)
        if asserts or (node.op == "call_module" and node.target == "_guards_fn"):
            graph.graph.erase_node(node)
    if hasattr(graph, "_guards_fn"):
        delattr(graph, "_guards_fn")


def restore_batch_norm(graph: fx.GraphModule) -> None:
    """Batch norm in evaluation becomes the one operator with one output and a training flag.

    Raises:
        TraceError: batch norm that normalises by the statistics of the batch: in training mode, or because
            the layer keeps none.
    """
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if "_native_batch_norm_legit.no_stats" in str(node.target):
            raise _without_statistics(node)
        training = "batch_norm_legit_functional" in str(node.target)
        if training or (node.target is aten.batch_norm.default and node.args[5]):
            if node.target is aten.batch_norm.default and node.args[3] is None:
                raise _without_statistics(node)
            place = f"batch norm{layer_of(node)} at {source_line(node)}"
            raise TraceError(
                f"the program was exported in training mode ({place})",
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


def _without_statistics(node: fx.Node) -> TraceError:
    return TraceError(
        f"batch norm{layer_of(node)} at {source_line(node)} keeps no running statistics"
        " (track_running_stats=False), so what it gives for one sample depends on the others of its batch",
        tip="set track_running_stats=True and let it see training data once in train() mode, or replace it by"
        " GroupNorm or InstanceNorm and train again",
    )


def loosen_views(graph: fx.GraphModule) -> None:
    """Views become reshapes: another width, or another kernel, may give another memory layout."""
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def name_squeezes(graph: fx.GraphModule) -> None:
    """A squeeze of whatever has size 1 names its dimensions, or it would take a last channel with them."""
    for node in graph.graph.nodes:
        if node.target is aten.squeeze.default:
            source = node.args[0]
            ones = [d for d, n in enumerate(source.meta["val"].shape) if isinstance(n, int) and n == 1]
            node.target, node.args = aten.squeeze.dims, (source, ones)


def settle_attention(graph: fx.GraphModule) -> None:
    """Attention's memory layout depends on the kernel that is chosen; a copy makes it the same for all.

    Otherwise a reshape that was a view for one kernel is refused when the exporter takes another.
    """
    for node in list(graph.graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        if any(user.target is aten.clone.default for user in node.users):
            continue
        with graph.graph.inserting_after(node):
            copy = graph.graph.call_function(
                aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
            )
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)


def slice_batch(graph: fx.GraphModule) -> None:
    """A split of the free batch becomes slices: ONNX has no split by a size that is not a number."""
    for node in list(graph.graph.nodes):
        if node.target not in (aten.chunk.default, aten.split.Tensor):
            continue
        source, count = node.args[:2]
        dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if not isinstance(source.meta["val"].shape[dim], torch.SymInt):
            continue
        with graph.graph.inserting_before(node):
            step = count
            if node.target is aten.chunk.default:
                size = _sized(graph, aten.sym_size.int, source, dim)
                more = _sized(graph, operator.add, size, count - 1)
                step = _sized(graph, operator.floordiv, more, count)
            for use in list(node.users):
                index = use.args[1]
                start = _sized(graph, operator.mul, step, index) if index else 0
                end = _sized(graph, operator.mul, step, index + 1) if index else step
                new = graph.graph.call_function(aten.slice.Tensor, (source, dim, start, end))
                new.meta = dict(use.meta)
                use.replace_all_uses_with(new)
                graph.graph.erase_node(use)
        graph.graph.erase_node(node)


def spell_shuffles(graph: fx.GraphModule) -> None:
    """A channel shuffle becomes reshape, transpose and reshape, which tell groups from positions."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.channel_shuffle.default:
            continue
        shuffled, groups = node.args[0], node.args[1]
        width = int(shuffled.meta["val"].shape[1])
        steps: tuple[tuple[Any, tuple[Any, ...]], ...] = (
            (aten.unflatten.int, (1, [groups, width // groups])),
            (aten.transpose.int, (1, 2)),
            (aten.flatten.using_ints, (1, 2)),
        )
        with graph.graph.inserting_before(node):
            for target, args in steps:
                value = target(shuffled.meta["val"], *args)
                shuffled = graph.graph.call_function(target, (shuffled, *args))
                shuffled.meta = {**node.meta, "val": value}
        node.replace_all_uses_with(shuffled)
        graph.graph.erase_node(node)


def _sized(graph: fx.GraphModule, target: Any, *args: Any) -> fx.Node:
    """A node that computes a size."""
    node = graph.graph.call_function(target, args)
    values = fx.node.map_arg(args, lambda n: n.meta["val"])
    node.meta["val"] = values[0].shape[values[1]] if target is aten.sym_size.int else target(*values)
    return node


def drop_unused_state(graph: fx.GraphModule) -> None:
    """Forget tensors that no node reads (num_batches_tracked, sources of folded tables)."""
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for prefix, module in graph.named_modules():
        for table in (module._parameters, module._buffers):
            for name in list(table):
                if (f"{prefix}.{name}" if prefix else name) not in used:
                    delattr(module, name)
