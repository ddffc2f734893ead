"""Small networks and run folders for the tests of devices."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def write_cnn(path: Path, width: int, *, seed: int = 0, batch="batch") -> Path:
    """A two-layer network of 3x3 convolutions with a classifier, built node by node."""
    rng = np.random.default_rng(seed)

    def constant(name, *shape):
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)

    weights = [constant("w1", width, 1, 3, 3), constant("w2", width, width, 3, 3), constant("w3", 10, width)]
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], **pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], **pads),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 12, 12])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])
    graph = helper.make_graph(nodes, "cnn", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def write_run(folder: Path, *, seed: int = 0, external: bool = False, ballast_mb: int = 0) -> Path:
    """A run folder as compress leaves it: model, report, preprocessing, recorded inputs and outputs.

    `ballast_mb` adds an unused weight of that size, to give an upload some length.
    """
    folder.mkdir(parents=True)
    model = write_cnn(folder / "model.onnx", 8, seed=seed)
    if ballast_mb:
        weight = np.random.default_rng(seed).standard_normal(ballast_mb * 2**18).astype(np.float32)
        heavy = onnx.load(model)
        heavy.graph.initializer.append(numpy_helper.from_array(weight, "ballast"))
        onnx.save(heavy, model)
    if external:
        settings = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
        onnx.save(onnx.load(model), model, **settings)
    x = np.random.default_rng(seed).standard_normal((3, 1, 12, 12)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    np.savez(folder / "golden.npz", input_0=x, output_0=session.run(None, {"image": x})[0])
    facts = {"preprocessing": {"dtype": "float32", "scale": 1 / 255, "mean": [0.5], "std": [0.25]}}
    facts |= {"class_names": [f"class {n}" for n in range(10)]}
    (folder / "preprocess.json").write_text(json.dumps(facts))
    (folder / "report.json").write_text(json.dumps({"model": {"name": "cnn"}, "seed": seed}))
    return folder
