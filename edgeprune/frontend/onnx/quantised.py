"""Files with 8-bit layers: refused, or turned back into floats on request.

De-quantising removes pairs of QuantizeLinear and DequantizeLinear between layers and replaces stored
integers by the floats that they stand for. What the file rounds away is not brought back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.errors import ModelError

PAIR = ("QuantizeLinear", "DequantizeLinear")
INTEGER = (
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearAdd",
    "QGemm", "QLinearGlobalAveragePool", "DynamicQuantizeMatMul", "MatMulNBits",
)  # fmt: skip


def require_float(model: Any, source: str, dequantise: bool, notes: list[str]) -> Any:
    """The model itself where it computes in floats, else its float form if that was asked for.

    Raises:
        ModelError: 8-bit layers, and they were not to be turned back or cannot be.
    """
    nodes = [n for n in model.graph.node if n.op_type in (*PAIR, *INTEGER)]
    if not nodes:
        return model
    integer = [n for n in nodes if n.op_type in INTEGER]
    if integer or not dequantise:
        first = (integer or nodes)[0]
        raise ModelError(
            f"{source}: computes in 8 bits ({len(nodes)} nodes such as {first.op_type} {first.name!r})",
            tip="give the float model"
            + ("" if integer else ", or add --dequantise to turn its weights back into floats"),
        )
    fresh = type(model)()
    fresh.CopyFrom(model)
    _remove_pairs(fresh.graph, source)
    notes.append(
        f"{len(nodes)} quantise and dequantise nodes were removed: the network computes in floats, with the"
        " weights that 8 bits left"
    )
    return fresh


def _remove_pairs(graph: Any, source: str) -> None:
    """Names lead past each pair; stored integers become floats under the name of their output."""
    import onnx

    stored = {t.name: t for t in graph.initializer}
    constant = {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    quantised = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type == "DequantizeLinear":
            if node.input[0] in quantised:
                renamed[node.output[0]] = quantised[node.input[0]]
                continue
            known: dict[str, Any] = {**constant, **stored}
            parts = [known[name] for name in node.input if name in known]
            if len(parts) < len([name for name in node.input if name]):
                raise ModelError(
                    f"{source}: DequantizeLinear node {node.name!r} reads integers that the network computes",
                    tip="give the float model",
                )
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            value = _floats([onnx.numpy_helper.to_array(p) for p in parts], axis)
            graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
            continue
        kept.append(node)
    for node in kept:
        for i, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[i] = name
    for value in graph.output:
        if value.name in renamed:
            target = renamed[value.name]
            while target in renamed:
                target = renamed[target]
            kept.append(onnx.helper.make_node("Identity", [target], [value.name]))
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input} | {v.name for v in graph.output}
    left = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(left)


def _floats(parts: list[Any], axis: int) -> Any:
    """(integers − zero point) · scale along an axis."""
    integers, scale, *zero = parts
    shape = [1] * integers.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[axis] = scale.size
    point = zero[0].astype(np.int32).reshape(shape if zero[0].size > 1 else ()) if zero else 0
    scaled = (integers.astype(np.int32) - point) * scale.reshape(shape if scale.size > 1 else ())
    return scaled.astype(np.float32)
