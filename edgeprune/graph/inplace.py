"""Replace operators that write to an operand by ones that give a new tensor.

`run_decompositions({})` does that for any program, by tracing it once more; that second
trace is most of the time that a network needs. Where every write goes to a tensor that
nobody looks at under another name afterwards (`relu_` after a convolution, `add_` of a
residual), the write can be replaced in the graph itself.

Guarantee: a graph with writes was run before and after, on the example inputs or on one
sample of them where the batch is free, and every output is the same, bit for bit. Where a
write may be seen elsewhere, nothing is changed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from edgeprune.graph.executor import flat_outputs
from edgeprune.graph.module import attribute

aten = torch.ops.aten
FOLD_LIMIT = 1 << 24  # elements; a larger constant bloats the file more than it saves time
# Composite operators whose schema names no alias and whose result is always a new tensor.
# Any other composite one may give its operand back (dropout in evaluation does).
FRESH = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
    aten.conv3d.padding, aten.conv_transpose1d.default, aten.conv_transpose2d.input,
    aten.conv_transpose3d.input, aten.linear.default, aten.matmul.default, aten.batch_norm.default,
    aten.layer_norm.default, aten.group_norm.default, aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default, aten.max_pool1d.default,
    aten.max_pool2d.default, aten.max_pool3d.default, aten.softmax.int, aten.log_softmax.int,
    aten.scaled_dot_product_attention.default, aten.embedding.default, aten.silu.default,
    aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec, aten.sym_size.int,
}  # fmt: skip
DROPOUT = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default)
NEW = (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default)
# Composite views that need no simpler terms.
VIEWS = {
    aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int, aten.chunk.default,
    aten.narrow.default, aten.contiguous.default, aten.swapaxes.default, aten.swapdims.default,
    aten.movedim.int, aten.movedim.intlist, aten.to.dtype, aten.to.device, aten.to.dtype_layout,
    aten.expand_as.default, aten.numpy_T.default, aten.mT.default, aten.pad.default, aten.type_as.default,
}  # fmt: skip


def writes(node: fx.Node) -> bool:
    """Whether the node writes to an operand, or is of a higher order, whose body may."""
    if isinstance(node.target, torch._ops.OpOverload):
        return bool(node.target._schema.is_mutable)
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def replace_writes(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Replace every write in `graph`, in place; False, with `graph` spoilt, where one may be seen elsewhere.

    False as well where a composite view is met that the coupling has no rule for: functionalisation
    writes it in simpler terms.

    Args:
        inputs: flat example inputs, on which the change is proven.
    """
    if any(not _understood(n.target) for n in graph.graph.nodes if n.op == "call_function"):
        return False
    written = [n for n in graph.graph.nodes if n.op == "call_function" and writes(n)]
    before = _outputs(graph, inputs) if written else []
    drop_dropout(graph)
    if not fold_constants(graph, frozenset(_state(graph))):
        return False
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and writes(node) and not _replace(graph, node):
            return False
    after = _outputs(graph, inputs) if written else []
    return before is not None and after is not None and _identical(before, after)


def _understood(target: Any) -> bool:
    """Not a composite view other than those listed, and not of a higher order."""
    if not isinstance(target, torch._ops.OpOverload):
        return not isinstance(target, torch._ops.HigherOrderOperator)
    view = any(r.alias_info is not None for r in target._schema.returns) and not target._schema.is_mutable
    return target in VIEWS or not (view and _composite(target))


def drop_dropout(graph: fx.GraphModule) -> None:
    """Dropout in evaluation gives back its operand."""
    for node in list(graph.graph.nodes):
        if node.target in DROPOUT and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def fold_constants(graph: fx.GraphModule, state: frozenset[int] = frozenset()) -> bool:
    """Compute once what depends on no input, no parameter and no free batch.

    A buffer that some node writes is no constant: the next call reads another value.
    Writes are carried out in their order, on values that the graph itself made. False
    where one would go to a tensor of the model (storages in `state`).
    """
    parameters = {id(p) for p in graph.parameters()}
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = attribute(graph, str(node.target))
            constant = id(value) not in parameters and not any(_writes_to(u, node) for u in node.users)
            if isinstance(value, torch.Tensor) and constant:
                known[node] = value
        elif node.target in NEW and all(n is node.args[0] or n in known for n in node.all_input_nodes):
            val = node.meta["val"]  # made like an operand in type only
            if _elements(node) > FOLD_LIMIT:
                continue
            like = torch.empty(0, dtype=val.dtype)
            args, kwargs = fx.node.map_arg((node.args[1:], node.kwargs), known.__getitem__)
            known[node] = node.target(like, *args, **{**kwargs, "device": None})
        elif node.op == "call_function" and all(n in known for n in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                continue
            if not writes(node) and _elements(node) > FOLD_LIMIT:
                continue  # never made: a shape is only a claim
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            if writes(node) and (not args or args[0].untyped_storage().data_ptr() in state):
                return False
            value = node.target(*args, **kwargs)
            known[node] = value
    folded = [
        (node, value)
        for node, value in known.items()
        if node.op == "call_function"
        and isinstance(value, torch.Tensor)
        and any(user not in known for user in node.users)
    ]
    taken = sum(1 for name, _ in graph.named_buffers() if name.startswith("_folded_"))
    for count, (node, value) in enumerate(folded, taken):
        name = f"_folded_{count}"
        graph.register_buffer(name, value.detach().clone(), persistent=False)
        with graph.graph.inserting_before(node):
            new = graph.graph.get_attr(name)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user not in known)
    _write_numbers(known)
    for node in reversed(list(known)):
        if node.op == "call_function" and not node.users:
            graph.graph.erase_node(node)
    return True


def _writes_to(node: fx.Node, operand: fx.Node) -> bool:
    return writes(node) and bool(node.args) and node.args[0] is operand


def _write_numbers(known: dict[fx.Node, Any]) -> None:
    """Numbers read from constants, as arguments of operators that are no constants themselves."""
    numbers = {
        n: v for n, v in known.items() if n.op == "call_function" and isinstance(v, int | float | bool)
    }

    def written(operand: fx.Node) -> Any:
        return numbers.get(operand, operand)

    for node in numbers:
        for user in [u for u in node.users if u not in known]:
            user.args, user.kwargs = fx.node.map_arg((user.args, user.kwargs), written)


def _elements(node: fx.Node) -> int:
    """Of a node's value, as its shape claims; 0 where it is no tensor or its size is free."""
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor) or not all(isinstance(n, int) for n in val.shape):
        return 0
    return math.prod(val.shape)


def _replace(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Turn one write into its functional form; False where that may change what others read."""
    new = _functional(node)
    base = node.args[0] if node.args else None
    if new is None or not isinstance(base, fx.Node):
        return False
    same = _same_storage(base, node)
    if same is None or any(_used_after(other, node) for other in same - {base, node}):
        return False
    others = [n.meta["val"] for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    kind = base.meta["val"].dtype
    if any(v.dtype not in (kind, torch.bool) for v in others):  # a write keeps the type, its twin promotes
        return False
    for user in [u for u in base.users if node < u]:
        user.replace_input_with(base, node)
    node.target = new
    return True


def _functional(node: fx.Node) -> Any:
    """`relu` for `relu_`; None where there is none with the same arguments."""
    schema = node.target._schema
    name = schema.name.removeprefix("aten::")
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not name.endswith("_") or len(written) != 1 or written[0].name != schema.arguments[0].name:
        return None
    packet = getattr(aten, name[:-1], None)
    if packet is None or node.target._overloadname not in packet.overloads():
        return None
    new = getattr(packet, node.target._overloadname)
    same = [a.name for a in new._schema.arguments] == [a.name for a in schema.arguments]
    return new if same and not new._schema.is_mutable else None


def _same_storage(node: fx.Node, write: fx.Node) -> set[fx.Node] | None:
    """Every node that may share memory with this one; None where the model's own state or an input does.

    What shares it by way of the write itself sees the new value, and is left out.
    """
    aliases, ahead = {node}, [node]
    while ahead:
        now = ahead.pop()
        if now.op != "call_function":
            return None
        near = [*_shared(now), *(u for u in now.users if u is not write and now in _shared(u))]
        for other in near:
            if other.op != "output" and other not in aliases and _is_tensor(other):
                aliases.add(other)
                ahead.append(other)
    return aliases


def _shared(node: fx.Node) -> list[fx.Node]:
    """The operands whose memory a node's value may be."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(node.all_input_nodes)  # getitem of a list of views
    schema = node.target._schema
    if any(r.alias_info is not None for r in schema.returns):
        named = {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)} | node.kwargs
        aliased = [named.get(a.name) for a in schema.arguments if a.alias_info is not None]
        return [n for n in aliased if isinstance(n, fx.Node)] if len(aliased) == 1 else node.all_input_nodes
    if node.target in FRESH:
        return []
    return list(node.all_input_nodes) if _composite(node.target) else []


def _composite(target: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd"))


def _is_tensor(node: fx.Node) -> bool:
    val = node.meta.get("val")
    return isinstance(val, torch.Tensor | list | tuple)


def _used_after(node: fx.Node, write: fx.Node) -> bool:
    return any(write < user for user in node.users)


def _state(graph: fx.GraphModule) -> set[int]:
    """Storages of the model's own tensors."""
    values = (attribute(graph, str(n.target)) for n in graph.graph.nodes if n.op == "get_attr")
    return {v.untyped_storage().data_ptr() for v in values if isinstance(v, torch.Tensor)}


def _outputs(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor] | None:
    sources = [n.meta.get("val") for n in graph.graph.nodes if n.op == "placeholder"]
    copies = [  # copies: a model may write to its input
        (x[:1] if _free(val) else x).detach().clone() for x, val in zip(inputs, sources, strict=True)
    ]
    buffers = {name: tensor.detach().clone() for name, tensor in graph.named_buffers()}
    try:
        with torch.no_grad():
            return [x.clone() for x in flat_outputs(graph, copies)]  # an output may be a buffer
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None
    finally:  # nor may the model's state move on: its first call would be lost
        with torch.no_grad():
            for name, tensor in graph.named_buffers():
                tensor.copy_(buffers[name])


def _free(val: Any) -> bool:
    """Whether any number of samples will do."""
    size = val.shape[0] if isinstance(val, torch.Tensor) and val.dim() else 0
    return isinstance(size, torch.SymInt) and bool(size.node.expr.is_symbol)


def _identical(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and torch.equal(x.nan_to_num(), y.nan_to_num())
        for x, y in zip(a, b, strict=True)
    )
