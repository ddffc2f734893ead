"""The process that `quantise` guards: onnxruntime.quantization on one file. Not to be imported.

    python -P _quantise_child.py JOB.json

    {"step": "prepare", "source", "prepared"}
    {"step": "calibrate", "model", "batches": [npz], "methods": [...], "ranges": JSON file to write}
    {"step": "build", "model", "ranges", "method", "activations", "reduce_range",
     "files": [{"path", "float": [layer nodes that stay in float]}]}

Prints one JSON line. onnxruntime.quantization logs, prints and keeps every activation of the whole
calibration set; here it is fed one batch at a time, so memory holds the activations of one batch.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune.export.onnx_nodes import QUANTISABLE, graph_layers

# What the CPU provider runs on 8-bit values, or what merely moves them. Anything else stays in float:
# the quantiser would wrap it in conversions that cost time and gain nothing.
BETWEEN = (
    "Add", "Mul", "Concat", "Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice",
    "Resize",
)  # fmt: skip

MOVING = ("MaxPool", "Transpose", "Reshape", "Squeeze", "Unsqueeze")  # what conversions are pulled through


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Fold constants, infer shapes, give every node a name."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    named = onnx.load(job["source"])
    taken = {node.name for node in named.graph.node}
    for n, node in enumerate(named.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{n}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
    onnx.save(named, job["prepared"])
    # Symbolic shape inference needs sympy and fails on some graphs; ONNX's own inference suffices here.
    quant_pre_process(job["prepared"], job["prepared"], skip_symbolic_shape=True)
    layers = graph_layers(onnx.load(job["prepared"]))
    return {"layers": [[layer.label, layer.node, layer.operator] for layer in layers]}


def calibrate(job: dict[str, Any]) -> dict[str, Any]:
    """The range of every tensor that may be quantised, by each method."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    ranges: dict[str, dict[str, list[float]]] = {}
    failed: dict[str, str] = {}
    for name in job["methods"]:
        calibrator = create_calibrator(
            job["model"],
            [*QUANTISABLE, *BETWEEN],
            augmented_model_path=job["model"] + ".augmented",
            calibrate_method=methods[name],
            extra_options={"symmetric": False},
        )
        try:
            for path in job["batches"]:
                with np.load(path) as arrays:
                    calibrator.collect_data(_One({key: arrays[key] for key in arrays.files}))
            collected = calibrator.compute_data()
        except ValueError as error:  # histograms refuse values that hardly differ or are not finite
            failed[name] = str(error)
            continue
        ranges[name] = {t: [float(np.min(v)) for v in d.range_value] for t, d in collected.items()}
    if not ranges:
        raise ValueError("; ".join(failed.values()))
    Path(job["ranges"]).write_text(json.dumps(ranges))
    return {"tensors": {name: len(collected) for name, collected in ranges.items()}, "failed": failed}


class _One:
    """A calibration set of one call, which is all that the calibrator may hold at once."""

    def __init__(self, feeds: dict[str, Any]) -> None:
        self._turns = iter([feeds])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._turns, None)


def build(job: dict[str, Any]) -> dict[str, Any]:
    """One quantised file for each set of layers that stay in float."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantType

    stored = json.loads(Path(job["ranges"]).read_text())[job["method"]]
    pairs = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in stored.items()
    }
    activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[job["activations"]]
    for wanted in job["files"]:
        model = onnx.load(job["model"])
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=job["reduce_range"],
            weight_qType=QuantType.QInt8,
            activation_qType=activations,
            tensors_range=TensorsData(CalibrationMethod.MinMax, dict(pairs)),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(_excluded(model, set(wanted["float"]))),
            op_types_to_quantize=[*QUANTISABLE, *BETWEEN],
            extra_options={},
        )
        quantizer.quantize_model()
        _hold_conversions(quantizer.model.model)
        quantizer.model.save_model_to_file(wanted["path"], False)
    return {"files": len(job["files"])}


def _excluded(model: onnx.ModelProto, floats: set[str]) -> set[str]:
    """Nodes to leave alone: `floats`, and what does not lie between two 8-bit layers.

    An Add between a float and an 8-bit branch would cost two conversions and gain one cheap addition. A
    Concat or Reshape behind the last layers gains nothing, and one scale for boxes up to 640 and scores
    up to 1 makes every score 0.
    """
    weighted = {layer.node for layer in graph_layers(model) if layer.operator in QUANTISABLE} - floats
    constants = {t.name for t in model.graph.initializer}
    eight_bit: set[str] = set()
    candidates: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update(node.output)
        elif node.name in weighted or (
            node.op_type in BETWEEN and all(name in eight_bit for name in _values(node, constants))
        ):
            eight_bit.update(node.output)
            candidates.add(node.name)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):  # readers come before what they read
        if node.name in candidates - weighted:
            after = [reader for name in node.output for reader in readers.get(name, [])]
            # One 8-bit reader is enough: all would unravel a chain of residual sums from its end.
            if outputs & set(node.output) or not any(reader.name in candidates for reader in after):
                candidates.discard(node.name)
    return {node.name for node in model.graph.node} - candidates


def _hold_conversions(model: onnx.ModelProto) -> None:
    """Keep the conversion to 8 bits behind the float operator that merely moves values.

    onnxruntime pulls a QuantizeLinear up through a MaxPool or Transpose; behind a float layer the pool
    then runs in 8 bits, channels first, where it was 14 times slower (57 for 4 µs) and took the whole
    file from 0.87 to 1.32 of its float time. A Relu or Clip at the very limits that the conversion has
    anyway changes no value and is removed by the runtime itself, but only after the pulling.
    """
    producers = {out: node for node in model.graph.node for out in node.output}
    stored = {t.name: t for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if source is not None and source.op_type in MOVING and _in_float(source, producers):
            scale, zero = (onnx.numpy_helper.to_array(stored[name]) for name in node.input[1:3])
            limits = np.iinfo(zero.dtype)
            name = node.name + "_held"
            if zero == limits.min:
                nodes.append(onnx.helper.make_node("Relu", [node.input[0]], [name], name=name))
            else:
                ends = [(np.float32(end) - np.float32(zero)) * scale for end in (limits.min, limits.max)]
                names = [f"{name}_{end}" for end in ("low", "high")]
                for n, value in zip(names, ends, strict=True):
                    model.graph.initializer.append(
                        onnx.numpy_helper.from_array(np.asarray(value, np.float32), n)
                    )
                nodes.append(onnx.helper.make_node("Clip", [node.input[0], *names], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _in_float(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    before = producers.get(node.input[0])
    return before is not None and before.op_type != "DequantizeLinear"


def _values(node: onnx.NodeProto, constants: set[str]) -> Iterator[str]:
    """The inputs that carry data; an empty name is an input left out."""
    yield from (name for name in node.input if name and name not in constants)


def main(path: str) -> None:
    """Do the job of the file, print the answer."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    job = json.loads(Path(path).read_text())
    answer, sys.stdout = sys.stdout, sys.stderr  # what the quantiser prints is no answer
    answer_record = {"prepare": prepare, "calibrate": calibrate, "build": build}[job["step"]](job)
    print(json.dumps(answer_record), file=answer)


if __name__ == "__main__":
    main(sys.argv[1])
