"""Bad ONNX files: one line each that says what was found, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import imported, normal, parsed, saved, small_network

from edgeprune.errors import ModelError
from edgeprune.frontend.load import load_model


def refused(model: Any, folder: Path, match: str) -> ModelError:
    """The error of loading it, on one line."""
    with pytest.raises(ModelError, match=match) as caught:
        imported(model, folder)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_truncated_file_is_damaged(tmp_path: Path):
    """The first half of a file does not parse."""
    content = small_network().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="truncated or damaged") as caught:
        load_model(tmp_path / "m.onnx")
    assert "download it again" in caught.value.tip


def test_a_cycle_is_named(tmp_path: Path):
    """Two nodes that read each other can never run."""
    model = parsed("(float[2,4] x) => (float[2,4] y) { y = Add (x, z)\n z = Relu (y) }")
    refused(model, tmp_path, "2 nodes wait for each other in a circle, such as Add")


def test_unsorted_nodes_are_sorted(tmp_path: Path):
    """Nodes out of order have an order in which they run."""
    model = small_network()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert imported(model, tmp_path).module is not None


def test_a_value_that_nothing_gives_is_named(tmp_path: Path):
    """A node that reads a name from nowhere is named with it."""
    model = parsed("(float[2,4] x) => (float[2,4] y) { y = Relu (x) }")
    model.graph.node[0].input[0] = "lost"
    refused(model, tmp_path, "Relu node '' reads 'lost', which nothing gives")


def test_wrong_inferred_shapes_are_not_believed(tmp_path: Path):
    """An output's declared shape that contradicts the nodes is noted; what is computed counts."""
    model = parsed("(float[2,4] x) => (float[2,7] y) { y = Relu (x) }")
    loaded = imported(model, tmp_path)
    assert any("declared as 2×7, but its nodes give 2×4" in note for note in loaded.notes)


def test_unknown_operators_are_named_all_at_once(tmp_path: Path):
    """Operators of other domains and of the standard, each with its first node and how many there are."""
    model = parsed(
        """(float[2,4] x) => (float[2,4] y) {
            a = my.company.Magic (x)
            b = my.company.Magic (a)
            c = Bernoulli (b)
            y = Relu (c)
        }""",
        domains=', "my.company" : 1',
    )
    model.graph.node[0].name = "first"
    model.graph.node[2].name = "dice"
    error = refused(
        model, tmp_path, r"my.company.Magic \(node 'first' and 1 more\), Bernoulli \(node 'dice'\)"
    )
    assert "PyTorch model" in error.tip


def test_opset_7_is_lifted(tmp_path: Path):
    """A file of 2018 is imported like today's."""
    loaded = imported(small_network(opset=7), tmp_path)
    assert "opset 7" in loaded.notes[0]


def test_an_opset_that_cannot_be_lifted_is_said(tmp_path: Path):
    """A file without the standard operator set's version has no meaning."""
    model = small_network()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("my.company", 1))
    refused(model, tmp_path, "names no version of the standard operators")


@pytest.mark.parametrize(("kind", "text"), [("sequence", "sequence"), ("optional", "optional")])
def test_sequences_and_optional_values_are_no_inputs(kind: str, text: str, tmp_path: Path):
    """Only tensors are inputs; another type is named."""
    model = small_network()
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    make = helper.make_sequence_type_proto if kind == "sequence" else helper.make_optional_type_proto
    model.graph.input.append(helper.make_value_info("extra", make(inner)))
    refused(model, tmp_path, f"'extra' is of type {text}; only tensors")


def external(folder: Path, location: str, *, length: int | None = None) -> Path:
    """The small network with its largest weight in a file beside it, under this location."""
    model = small_network()
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    raw = tensor.raw_data
    (folder / "weights.bin").write_bytes(raw)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length or len(raw)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return saved(model, folder)


def test_weights_beside_the_file_are_read_and_count_for_its_digest(tmp_path: Path):
    """External data of the same folder is read; other data is another model."""
    path = external(tmp_path, "weights.bin")
    first = load_model(path)
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[3] ^= 0x01
    (tmp_path / "weights.bin").write_bytes(bytes(content))
    assert load_model(path).sha256 != first.sha256


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin"])
def test_external_data_outside_of_the_folder_is_not_opened(location: str, tmp_path: Path):
    """A path that leaves the folder is refused, whether it exists or not."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(99999))
    with pytest.raises(ModelError, match="outside of the file's folder"):
        load_model(external(inner, location))


def test_external_data_through_a_link_is_not_opened(tmp_path: Path):
    """A symbolic link beside the file leads elsewhere."""
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner, "weights.bin")
    (inner / "weights.bin").rename(tmp_path / "secret.bin")
    (inner / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside of the file's folder"):
        load_model(path)


def test_external_data_that_is_missing_or_short_is_named(tmp_path: Path):
    """Sizes are compared with the file before it is read."""
    with pytest.raises(ModelError, match="which has"):
        load_model(external(tmp_path, "weights.bin", length=10**9))
    path = external(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="not a file beside it"):
        load_model(path)


def test_weights_that_are_listed_as_inputs_are_weights(tmp_path: Path):
    """Old files list every initialiser as an input; the network takes one."""
    model = small_network()
    model.graph.input.append(helper.make_tensor_value_info("stem_w", TensorProto.FLOAT, [16, 3, 3, 3]))
    loaded = imported(model, tmp_path)
    assert len(loaded.example_inputs) == 1 and loaded.interface and loaded.interface.inputs == ("pixels",)
    assert any("listed as inputs" in note for note in loaded.notes)


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path):
    """Two weights of one name, or a node that gives a weight's name."""
    model = small_network()
    model.graph.initializer.append(numpy_helper.from_array(normal(16), "stem_b"))
    refused(model, tmp_path, "'stem_b' is given 2 times")


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_a_few_bytes_do_not_become_gigabytes(operator: str, tmp_path: Path):
    """A constant that some bytes blow up to terabytes is refused before it is computed."""
    huge = {"n": np.array([1 << 20, 1 << 20])}
    bodies = {
        "ConstantOfShape": ("c = ConstantOfShape (n)", huge),
        "Expand": ("c = Expand (one, n)", {**huge, "one": np.ones((1, 1), np.float32)}),
        "Tile": ("c = Tile (one, n)", {**huge, "one": np.ones((1, 1), np.float32)}),
        "Range": ("c = Range (a, b, s)", {"a": np.float32(0), "b": np.float32(1e12), "s": np.float32(1)}),
    }
    line, weights = bodies[operator]
    rest = "m = ReduceMax <keepdims=0> (c)\n y = Add (x, m)"
    model = parsed(f"(float[2,4] x) => (float[2,4] y) {{ {line}\n {rest} }}", **weights)
    refused(model, tmp_path, f"{operator} node .* gives a constant of .* bytes")


def test_constant_nodes_are_weights(tmp_path: Path):
    """A file that keeps its weights in Constant nodes is imported as if they were initialisers."""
    model = small_network()
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    loaded = imported(model, tmp_path)
    assert loaded.module is not None and "stem_w" in dict(loaded.module.named_parameters())


def quantised(folder: Path) -> Path:
    """A linear layer between pairs of QuantizeLinear and DequantizeLinear, with an integer weight."""
    weight = np.random.default_rng(0).integers(-127, 127, (4, 3)).astype(np.int8)
    model = parsed(
        """(float[2,4] x) => (float[2,3] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            w = DequantizeLinear (wq, ws, wz)
            y = MatMul (d, w)
        }""",
        s=np.float32(0.05), z=np.int8(0), wq=weight, ws=np.float32(0.01), wz=np.int8(0),
    )  # fmt: skip
    return saved(model, folder)


def test_8_bit_files_are_refused_or_turned_back_into_floats(tmp_path: Path):
    """The float model is asked for; on request the weights become the floats that they stand for."""
    path = quantised(tmp_path)
    with pytest.raises(ModelError, match=r"computes in 8 bits \(3 nodes") as caught:
        load_model(path)
    assert "give the float model" in caught.value.tip and "--dequantise" in caught.value.tip
    loaded = load_model(path, dequantise=True)
    assert loaded.module is not None
    weights = dict(loaded.module.named_parameters())
    stored = numpy_helper.to_array(next(t for t in onnx.load(path).graph.initializer if t.name == "wq"))
    assert np.allclose(weights["w"].detach().numpy(), stored * np.float32(0.01))


def test_sizes_that_are_free_are_asked_for(tmp_path: Path):
    """A file with free height and width needs --input-shape, and a shape that contradicts it is refused."""
    model = parsed("(float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu (x) }")
    with pytest.raises(ModelError, match="sizes of input x are free: N×3×H×W") as caught:
        imported(model, tmp_path)
    assert "3,224,224" in caught.value.tip
    assert imported(model, tmp_path, input_shapes=[(3, 8, 9)]).example_inputs[0].shape == (2, 3, 8, 9)
    with pytest.raises(ModelError, match="takes x of N×3×H×W"):
        imported(model, tmp_path, input_shapes=[(4, 8, 9)])
