"""Layers that 8 bits are likely to hurt: heads, inputs of softmax and norms, readers of unlike ranges.

One scale per tensor has 256 steps for its whole range. The last layer of an output is read by people, softmax
and norms amplify what the steps leave, and in a concatenation of unlike ranges (boxes to 640 beside scores
to 1) the smaller one has no steps left.
Guarantee: nothing is run; whether a layer really is hurt is measured by the caller (quantisation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune.export.onnx_nodes import QUANTISABLE, graph_layers

# Between a layer and what reads it: these change no value.
MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
AMPLIFYING = (
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "LpNormalization",
)  # fmt: skip
UNLIKE = 16.0  # ranges of inputs of one concatenation: 256 steps leave the smaller one 16


def sensitive_layers(model: Any, ranges: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Label of a quantisable layer -> why it should keep float, unless measured harmless.

    Args:
        model: an ONNX model whose nodes have names. ranges: tensor -> lowest and highest calibrated value.
    """
    layers = {layer.node: layer.label for layer in graph_layers(model) if layer.operator in QUANTISABLE}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in layers:
            if not any(reader.name in layers for reader in _downstream(node, readers, set(), stop=layers)):
                reasons[layers[node.name]] = "is the last layer before an output"
            amplifier = _amplifier(node, readers)
            if amplifier:
                reasons.setdefault(layers[node.name], f"is the input of {amplifier}")
        elif node.op_type == "Concat" and _unlike(node, ranges):
            for reader in _downstream(node, readers, set(), stop=layers):
                if reader.name in layers:
                    reasons.setdefault(layers[reader.name], "reads a concatenation of unlike ranges")
    return reasons


def _downstream(
    node: Any, readers: Mapping[str, list[Any]], seen: set[int], *, stop: Mapping[str, str]
) -> Iterator[Any]:
    """Every node that reads this one, through others, layers included but not passed."""
    pending = [reader for name in node.output for reader in readers.get(name, [])]
    while pending:
        reader = pending.pop()
        if id(reader) in seen:
            continue
        seen.add(id(reader))
        yield reader
        if reader.name not in stop:
            pending += [r for name in reader.output for r in readers.get(name, [])]


def _amplifier(node: Any, readers: Mapping[str, list[Any]]) -> str:
    pending = [reader for name in node.output for reader in readers.get(name, [])]
    while pending:
        reader = pending.pop()
        if reader.op_type in AMPLIFYING:
            return str(reader.op_type)
        if reader.op_type in MOVING:
            pending += [r for name in reader.output for r in readers.get(name, [])]
    return ""


def _unlike(node: Any, ranges: Mapping[str, tuple[float, float]]) -> bool:
    sizes = [max(map(abs, ranges[name])) for name in node.input if name in ranges]
    sizes = [size for size in sizes if size > 0]
    return len(sizes) > 1 and max(sizes) > UNLIKE * min(sizes)
