"""From an ONNX file to a smaller one: the same names, shapes and free batch; the file's names in reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_files import imported, parsed, runtime, saved, small_network

from edgeprune.cli import cli
from edgeprune.frontend.load import load_model
from edgeprune.graph.trace import save
from edgeprune.run.analysis import analyse_model
from edgeprune.run.inspect import inspect_model
from edgeprune.run.open_trace import open_trace


def ports(path: Path) -> list[tuple[str, list[Any]]]:
    """Name and sizes of every input and output."""
    graph = onnx.load(path).graph
    return [
        (v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize("batch", ["samples", 1, 4])
def test_an_exported_file_keeps_names_shapes_and_batch(batch: str | int, tmp_path: Path):
    """A free batch stays free under its name, a fixed one keeps its size, and outputs are equal."""
    source = saved(small_network(batch), tmp_path, "source.onnx")
    out = tmp_path / "out.onnx"
    result = CliRunner().invoke(cli, ["export", str(source), "-o", str(out), "--no-simplify"])
    assert result.exit_code == 0, result.output
    assert ports(out) == ports(source)
    x = (
        np.random.default_rng(3)
        .standard_normal((3 if batch == "samples" else batch, 3, 8, 8))
        .astype(np.float32)
    )
    assert np.allclose(runtime(source, x)[0], runtime(out, x)[0], atol=1e-4)


def test_a_compressed_file_keeps_names_and_its_recipe_the_weights(tmp_path: Path):
    """`compress model.onnx` ships a smaller file under the source's names; the recipe names its weights."""
    source = saved(small_network(), tmp_path, "source.onnx")
    folder = tmp_path / "run"
    quick = ["--front", "0", "--bench-seconds", "0.1", "--int8", "off"]
    arguments = ["compress", str(source), "-o", str(folder), "--criterion", "l2", "--macs", "0.5", *quick]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert ports(folder / "model.onnx") == ports(source)
    recipe = json.loads((folder / "recipe.json").read_text())
    assert {"stem_w", "body_w"} <= set(recipe["tensors"])
    smaller = load_model(folder / "model.onnx")
    assert smaller.parameters_bytes < load_model(source).parameters_bytes


def test_apply_is_for_classes(tmp_path: Path):
    """There is no class behind an ONNX file; the shipped file is what apply would give."""
    from edgeprune.errors import ModelError

    (tmp_path / "recipe.json").write_text('{"schema": 1, "tensors": {}, "attributes": {}}')
    source = saved(small_network(), tmp_path)
    arguments = ["apply", str(tmp_path / "recipe.json"), str(source)]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, ModelError) and "came from an ONNX file" in result.exception.message


def test_names_survive_the_saved_program(tmp_path: Path):
    """The .pt2 of a network from an ONNX file carries the names, so a file exported from it has them."""
    traced, _ = open_trace(imported(small_network("samples"), tmp_path))
    save(traced, tmp_path / "m.pt2")
    again = load_model(tmp_path / "m.pt2")
    assert again.interface == traced.interface and traced.interface is not None
    assert (traced.interface.inputs, traced.interface.batch_name) == (("pixels",), "samples")


def test_a_damaged_list_of_names_is_refused(tmp_path: Path):
    """What is written beside a program is read by the schema reader."""
    from dataclasses import replace

    from edgeprune.errors import ModelError
    from edgeprune.records import Interface

    traced, _ = open_trace(imported(small_network(), tmp_path))
    broken: Any = Interface(inputs=3, outputs=("y",))  # type: ignore[arg-type]
    save(replace(traced, interface=broken), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"interface\.json"):
        load_model(tmp_path / "m.pt2")


def test_pins_name_nodes_of_the_file(tmp_path: Path):
    """A reason says which node of the file it is about; layers bear the names of their weights."""
    model = small_network()
    model.graph.node[0].name = "/stem/Conv"
    inspection = inspect_model(analyse_model(imported(model, tmp_path)))
    assert any("/stem/Conv" in pin.reason for pin in inspection.pinned)
    assert [layer.name for layer in inspection.layers] == ["stem_w", "body_w", "head_w"]


def test_arithmetic_on_sizes_keeps_the_batch_free(tmp_path: Path):
    """Shape, Gather, Concat and Reshape with the batch in them leave it free."""
    model = parsed(
        """(float[N,4,6] x) => (float[N,M] y) {
            s = Shape (x)
            b = Slice (s, zero, one)
            t = Concat <axis=0> (b, minus)
            y = Reshape (x, t)
        }""",
        zero=np.array([0]), one=np.array([1]), minus=np.array([-1]),
    )  # fmt: skip
    traced, _ = open_trace(imported(model, tmp_path))
    assert traced.dynamic == (True,)
