"""`quantise` on files that it cannot take: the sentences of `bench`, never a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from edgeprune.cli.quantise import quantise
from edgeprune.errors import EdgepruneError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Labelled samples of four numbers."""
    path = tmp_path_factory.mktemp("data") / "d.npz"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4), dtype=np.float32)
    np.savez(path, x=x, y=rng.integers(0, 2, 64))
    return path


def save(
    path: Path, nodes: list[onnx.NodeProto], *, kind=TensorProto.FLOAT, shape=("n", 4), opset=18
) -> None:
    ends = [helper.make_tensor_value_info("x", kind, shape)]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", ends, outs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)


def node(kind: str, *inputs: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs or ("x",), ["y"], **attributes)


def write(path: Path, what: str) -> None:
    """A file of one kind that cannot be quantised."""
    content = {"empty": b"", "zip": b"PK\x03\x04rest", "noise": bytes(range(256)) * 9, "text": b"not a model"}
    if what in content:
        path.write_bytes(content[what])
    elif what == "unknown operator":
        save(path, [node("Nonsense")])
    elif what == "missing input":
        save(path, [node("Add", "x", "nowhere")])
    elif what == "future opset":
        save(path, [node("Relu")], opset=9000)
    elif what == "two producers":
        save(path, [node("Relu"), node("Abs")])
    elif what == "unknown domain":
        save(path, [node("Thing", domain="com.example")])
    elif what == "wrong type":
        save(path, [node("Conv", "x", "x")], kind=TensorProto.STRING)
    elif what == "no input":
        graph = helper.make_graph([node("Constant", value_float=1.0)], "g", [],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])  # fmt: skip
        onnx.save(helper.make_model(graph, ir_version=9), path)
    elif what == "scalar input":
        save(path, [node("Relu")], shape=())
    elif what == "external data":
        save(path, [node("Relu")])
        model = onnx.load(path)
        tensor = TensorProto(name="w", dims=[4], data_type=1, data_location=TensorProto.EXTERNAL)
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="../../etc/passwd"))
        model.graph.initializer.append(tensor)
        path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "what",
    ["missing", "folder", "empty", "zip", "noise", "text", "unknown operator", "missing input",
     "future opset", "two producers", "unknown domain", "wrong type", "no input", "scalar input",
     "external data"],
)  # fmt: skip
def test_a_file_that_cannot_be_quantised_is_one_line_with_its_name(tmp_path, data, what):
    """The error names the file, is one line with a tip, and nothing is written."""
    path = tmp_path / "odd.onnx"
    if what == "folder":
        path.mkdir()
    else:
        write(path, what)
    output = tmp_path / "out.onnx"
    command = [str(path), "--data", str(data), "--anyway", "-o", str(output)]
    done = CliRunner().invoke(quantise, command, standalone_mode=False)
    assert isinstance(done.exception, EdgepruneError), done.exception
    assert str(path) in done.exception.message and "Wire format" not in done.exception.message
    assert not output.exists()
