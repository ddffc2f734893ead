"""`edgeprune quantise` on a file of a few kilobytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeprune.cli.quantise import quantise
from edgeprune.errors import DataError, TargetError
from edgeprune.export.onnx_nodes import graph_layers


@pytest.fixture(scope="module")
def shop8(tmp_path_factory) -> Path:
    """net.onnx, Conv, ReLU, Conv, mean, Gemm on 2×8×8, and data.npz labelled by the network itself."""
    folder = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(0)
    weights = {
        "a.weight": rng.standard_normal((8, 2, 3, 3)).astype(np.float32),
        "b.weight": rng.standard_normal((8, 8, 3, 3)).astype(np.float32),
        "c.weight": rng.standard_normal((3, 8)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["h1"], pads=[1] * 4),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Conv", ["h2", "b.weight"], ["h3"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["h3", "axes"], ["h4"], keepdims=0),
        helper.make_node("Gemm", ["h4", "c.weight"], ["y"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]),
    ]
    stored = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    import onnxruntime

    x = rng.standard_normal((600, 2, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.savez(folder / "data.npz", x=x, y=session.run(None, {"x": x})[0].argmax(1))
    return folder


def run(*arguments: object):
    return CliRunner().invoke(quantise, [str(a) for a in arguments])


def test_the_command_writes_a_file_with_its_proof(shop8):
    """JSON holds parity, both accuracies with the paired interval, sizes, the time ratio, every layer."""
    out = shop8 / "small.onnx"
    done = run(
        shop8 / "net.onnx", "--data", shop8 / "data.npz", "--max-drop", 5, "--calibration", 128,
        "--bench-seconds", 0.3, "-o", out, "--json", "--anyway",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (part,) = found["loss"]["parts"]
    assert part["dense"] == 1.0 and part["drop"]["high"] < 20
    assert found["artifact"]["parity"]["max_abs"] <= found["artifact"]["parity"]["atol"]
    assert found["bench"]["ratios"][0]["ratio"]["low"] > 0 and found["source_bytes"] > 0
    quantised = {x["name"] for x in found["layers"] if x["quantised"]}
    assert {x.label for x in graph_layers(onnx.load(out)) if x.quantised} == quantised
    assert all(x["reason"] for x in found["layers"] if not x["quantised"])


def test_a_target_that_gains_little_is_refused_unless_asked(shop8):
    """rpi4 has no dot product; --anyway goes on, and nothing is timed for a target that is not here."""
    arguments = [shop8 / "net.onnx", "--data", shop8 / "data.npz", "--target", "rpi4", "-o", shop8 / "p.onnx"]
    refused = run(*arguments)
    assert isinstance(refused.exception, TargetError) and not (shop8 / "p.onnx").exists()
    done = run(*arguments, "--anyway", "--keep", "c")
    assert done.exit_code == 0, done.output
    assert "time: not measured" in done.output and "c (Gemm) stays in float: kept by --keep" in done.output


def test_without_labels_the_float_file_is_the_reference(shop8):
    """--max-drop then bounds what the outputs reproduce of the float file's."""
    with np.load(shop8 / "data.npz") as arrays:
        np.savez(shop8 / "blind.npz", x=arrays["x"])
    done = run(
        shop8 / "net.onnx", "--data", shop8 / "blind.npz", "--max-drop", 20, "--calibration", 64,
        "--bench-seconds", 0.1, "-o", shop8 / "blind.onnx", "--json", "--anyway",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (part,) = json.loads(done.stdout)["loss"]["parts"]
    assert part["dense"] == 1.0 and "dense model" in part["measure"]


def test_without_data_or_a_target_the_request_is_refused(shop8):
    """Ranges need data; an unknown target offers the nearest."""
    done = run(shop8 / "net.onnx", "-o", shop8 / "n.onnx")
    assert isinstance(done.exception, DataError) and "--data" in str(done.exception)
    done = run(shop8 / "net.onnx", "--target", "rpi-5", "-o", shop8 / "n.onnx")
    assert isinstance(done.exception, TargetError) and "rpi5" in str(done.exception)
