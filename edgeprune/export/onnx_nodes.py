"""The layers of an ONNX graph: its nodes with weights, by names that survive pruning and quantisation.

The exporter names weights after the parameter of the PyTorch model, so "stage1.conv1.conv.weight"
gives the layer "stage1.conv1.conv" in the dense, the pruned and the quantised file alike. Where the
weight has a made-up name, the node's name stands for it.
Guarantee: labels are unique within a file; nothing is run and the model is not changed.
Elsewhere: quantising the layers (onnxfile), timing them (bench).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN")
QUANTISABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # those that onnxruntime has static kernels for
THROUGH = ("DequantizeLinear", "Transpose", "Identity", "Cast")  # between a stored weight and its user
SUFFIX = re.compile(r"(_quantized|_transposed|_DequantizeLinear_Output)+$")
INVENTED = re.compile(r"(val|_val|onnx::\w+|reorder|constant|const)[_:]?\w*", re.IGNORECASE)


@dataclass(frozen=True)
class GraphLayer:
    """A node with weights. `weight_shape` is as stored: (out, in / groups, *kernel) for a convolution,
    (out, in) or (in, out) for a matrix; `quantised` when it is stored in 8 bits."""

    label: str
    node: str
    operator: str
    weight: str
    weight_shape: tuple[int, ...]
    groups: int
    transposed: bool  # the matrix is stored (out, in)
    quantised: bool

    @property
    def width(self) -> int:
        """Output channels."""
        if self.operator == "Conv":
            return self.weight_shape[0]
        if self.operator == "ConvTranspose":
            return self.weight_shape[1] * self.groups
        if self.operator in ("GRU", "LSTM", "RNN"):
            return self.weight_shape[1] // {"GRU": 3, "LSTM": 4, "RNN": 1}[self.operator]
        return self.weight_shape[-2 if self.transposed else -1]

    @property
    def inputs(self) -> int:
        """Input channels."""
        if self.operator == "Conv":
            return self.weight_shape[1] * self.groups
        if self.operator == "ConvTranspose":
            return self.weight_shape[0]
        if self.operator in ("GRU", "LSTM", "RNN"):
            return self.weight_shape[2]
        return self.weight_shape[-1 if self.transposed else -2]


def graph_layers(model: Any) -> tuple[GraphLayer, ...]:
    """Every node of the main graph with a stored weight, in graph order."""
    shapes = {t.name: (tuple(t.dims), t.data_type) for t in model.graph.initializer}
    producers = {out: node for node in model.graph.node for out in node.output}
    layers: list[GraphLayer] = []
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            continue
        weight, turned = _stored_weight(node, shapes, producers)
        if weight is None:
            continue
        shape, kind = shapes[weight]
        attributes = {a.name: a for a in node.attribute}
        label = base = _label(weight, node)
        while label in taken:  # a weight that two nodes share
            label = f"{base}#{len(taken)}"
        taken.add(label)
        groups = attributes["group"].i if "group" in attributes else 1
        flag = node.op_type == "Gemm" and "transB" in attributes and bool(attributes["transB"].i)
        layers.append(
            GraphLayer(label, node.name, node.op_type, weight, shape, groups, flag != turned, kind in (2, 3))
        )
    return tuple(layers)


def _stored_weight(node: Any, shapes: dict[str, Any], producers: dict[str, Any]) -> tuple[str | None, bool]:
    """The initializer behind the weight input, and whether a Transpose lies between."""
    positions = (1, 0) if node.op_type == "MatMul" else (1,)
    for position in positions:
        name, turned = node.input[position], False
        while name not in shapes and name in producers and producers[name].op_type in THROUGH:
            turned ^= producers[name].op_type == "Transpose"
            name = producers[name].input[0]
        if name in shapes and len(shapes[name][0]) >= 2:
            return name, turned
    return None, False


def _label(weight: str, node: Any) -> str:
    name = SUFFIX.sub("", weight)
    if INVENTED.fullmatch(name) or "." not in name:
        return str(node.name or node.output[0])
    return name.rsplit(".", 1)[0] if name.endswith((".weight", ".kernel")) else name
