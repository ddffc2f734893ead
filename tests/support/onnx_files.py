"""Small ONNX files for tests, written as text in ONNX's own syntax, and what ONNX Runtime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeprune.frontend.load import load_model
from edgeprune.frontend.loaded import LoadedModel


def parsed(body: str, *, opset: int = 18, domains: str = "", **weights: Any) -> onnx.ModelProto:
    """`(float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }` with arrays for the names that are weights."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]> agraph {body}'
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def imported(model: onnx.ModelProto, folder: Path, **options: Any) -> LoadedModel:
    """The model through a file and `load_model`, which compares it with ONNX Runtime."""
    return load_model(saved(model, folder), **options)


def runtime(path: Path, *inputs: Any) -> list[Any]:
    """What ONNX Runtime gives for these inputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, (np.asarray(x) for x in inputs), strict=True))))


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def small_network(batch: int | str = "N", *, opset: int = 18, kernel: int = 3) -> onnx.ModelProto:
    """Two convolutions and a classifier under the names that an exporter gives."""
    batch_text = str(batch)
    return parsed(
        f"""(float[{batch_text},3,8,8] pixels) => (float[{batch_text},5] scores) {{
            a = Conv <pads=[1,1,1,1]> (pixels, stem_w, stem_b)
            b = Relu (a)
            c = Conv <pads=[1,1,1,1]> (b, body_w, body_b)
            d = Relu (c)
            e = GlobalAveragePool (d)
            f = Flatten (e)
            scores = Gemm <transB=1> (f, head_w, head_b)
        }}""",
        opset=opset,
        stem_w=normal(16, 3, kernel, kernel, seed=1), stem_b=normal(16, seed=2),
        body_w=normal(24, 16, kernel, kernel, seed=3), body_b=normal(24, seed=4),
        head_w=normal(5, 24, seed=5), head_b=normal(5, seed=6),
    )  # fmt: skip


__all__ = [
    "TensorProto", "helper", "imported", "normal", "numpy_helper", "parsed", "runtime", "saved",
    "small_network", "torch",
]  # fmt: skip
