"""export_onnx: the file asked for, plain, quiet, reproducible, whole or not at all."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import pytest
import torch
from onnx_programs import Cnn, TokensAndFeatures, cnn, cnn_file, export, images, reference

from edgeprune.errors import ExportError, OutputError
from edgeprune.export.export import export_onnx
from edgeprune.export.files import artifact_record
from edgeprune.export.parity import check_parity


def _leading(path: Path) -> list[str | int]:
    graph = onnx.load(str(path)).graph
    dims = [v.type.tensor_type.shape.dim[0] for v in (*graph.input, *graph.output)]
    return [d.dim_param or d.dim_value for d in dims]


def test_a_dynamic_batch_stays_dynamic_and_is_called_batch(tmp_path):
    """Every leading dimension of a program with a symbolic batch is the parameter "batch"."""
    artifact = artifact_record(cnn_file(tmp_path))
    assert _leading(artifact.path) == ["batch", "batch"]
    assert artifact.dynamic_batch


def test_a_fixed_batch_stays_fixed(tmp_path):
    """A program traced for two images gives a file for two images."""
    _, program = cnn(dynamic=False)
    artifact = export_onnx(program, tmp_path / "m.onnx")
    assert _leading(artifact.path) == [2, 2]
    assert not artifact.dynamic_batch


def test_the_file_has_the_opset_asked_for(tmp_path):
    """The opset in the file and in the record is the one of the request."""
    _, program = cnn(dynamic=True)
    artifact = export_onnx(program, tmp_path / "m.onnx", opset=20)
    imported = {o.domain: o.version for o in onnx.load(str(artifact.path)).opset_import}
    assert artifact.opset == imported[""] == 20
    assert artifact_record(cnn_file(tmp_path)).opset == 18


def test_an_opset_the_exporter_silently_replaces_is_an_error(tmp_path):
    """Asking for 13 gets 18 from torch without an error; here it is one, and nothing is written."""
    _, program = cnn(dynamic=True)
    with pytest.raises(ExportError, match="asked for opset 13; the exporter gave 18") as caught:
        export_onnx(program, tmp_path / "m.onnx", opset=13)
    assert caught.value.tip == "use opset 18"
    assert list(tmp_path.iterdir()) == []


def test_batch_norm_is_folded_and_weights_stay_in_the_file(tmp_path):
    """A convolution with batch norm becomes one Conv, and a small model is one file."""
    artifact = artifact_record(cnn_file(tmp_path))
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(str(artifact.path)).graph.node}
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert artifact.files == (("m.onnx", artifact.sha256, artifact.bytes),)


def test_the_same_program_gives_the_same_bytes_without_source_paths(tmp_path):
    """Two exports have one hash, and no path of this file or of torch is inside."""
    first = artifact_record(cnn_file(tmp_path))
    second = export_onnx(cnn(dynamic=True)[1], tmp_path / "elsewhere" / "b.onnx")
    assert first.sha256 == second.sha256
    content = first.path.read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parent).encode() not in content


def test_names_of_inputs_and_outputs_are_those_given(tmp_path):
    """input_names and output_names are in the file and the record."""
    torch.manual_seed(0)
    program = export(TokensAndFeatures(), (torch.randint(0, 11, (2, 4)), torch.randn(2, 3)), dynamic=True)
    artifact = export_onnx(
        program, tmp_path / "m.onnx", input_names=["tokens", "features"], output_names=["scores", "choice"]
    )
    assert artifact.inputs == ("tokens", "features")
    assert artifact.outputs == ("scores", "choice")


def test_export_is_quiet(tmp_path, capfd):
    """Nothing reaches stdout, stderr, the warnings or the log level of the caller."""
    _, program = cnn(dynamic=True)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        export_onnx(program, tmp_path / "m.onnx")
    out, err = capfd.readouterr()
    assert (out, err, leaked) == ("", "", [])
    assert logging.root.manager.disable == 0


def test_large_weights_go_to_a_second_file_that_the_record_counts(tmp_path):
    """Above the limit the weights lie beside the model; the pair runs, and a small export removes it."""
    module, program = cnn(dynamic=True)
    artifact = export_onnx(program, tmp_path / "m.onnx", external_above=0)
    names = [name for name, _, _ in artifact.files]
    assert names == ["m.onnx", "m.onnx.data"]
    assert artifact.bytes == sum((tmp_path / n).stat().st_size for n in names)
    assert (tmp_path / "m.onnx.data").stat().st_size >= module.head.weight.numel() * 4
    assert check_parity(reference(module), artifact.path, images(3)).max_abs < 1e-5
    export_onnx(program, tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_an_operator_without_onnx_form_is_one_line_and_leaves_the_old_file(tmp_path):
    """An unknown operator is named, the file that was there is untouched, no temporary remains."""

    @torch.library.custom_op("edgeprune_test::odd", mutates_args=())
    def odd(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    odd.register_fake(torch.empty_like)

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.edgeprune_test.odd(x)

    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    with pytest.raises(ExportError, match="edgeprune_test") as caught:
        export_onnx(export(Odd(), (torch.randn(2, 3),), dynamic=False), path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    """A folder in the place of the file, or a file in the place of the folder, is an OutputError."""
    _, program = cnn(dynamic=True)
    with pytest.raises(OutputError, match="is a folder"):
        export_onnx(program, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(program, tmp_path / "file" / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"hello, I am no protobuf", b"\x08\x0a"])
def test_describing_what_is_no_model_says_so(tmp_path, content):
    """Empty, foreign and headless files are refused in one line that names the file."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(
        ExportError, match=r"bad\.onnx: (not an ONNX|the file is empty|holds no graph)"
    ) as caught:
        artifact_record(path)
    assert "\n" not in str(caught.value)


def test_external_data_outside_the_folder_is_refused(tmp_path):
    """A model that points at ../secret is not followed."""
    artifact = artifact_record(cnn_file(tmp_path, external=True))
    model = onnx.load(str(artifact.path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../m.onnx.data"
    artifact.path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="outside the model's folder"):
        artifact_record(artifact.path)


def test_training_state_of_the_caller_is_untouched(tmp_path):
    """Exporting changes neither the weights nor the program it was given."""
    module, program = cnn(dynamic=True)
    before = {k: v.clone() for k, v in program.state_dict.items()}
    text = str(program.graph)
    export_onnx(program, tmp_path / "m.onnx")
    assert all(torch.equal(before[k], v) for k, v in program.state_dict.items())
    assert str(program.graph) == text
    assert isinstance(module, Cnn)


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, external):
    """With files limited to 1 kB the export ends in an OutputError, whole old file, no temporary one."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OutputError, match="cannot write") as caught:
            export_onnx(cnn(dynamic=True)[1], path, **({"external_above": 0} if external else {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_read_back_from_disk_gives_the_same_file(tmp_path):
    """A run that was killed exports what it reads back: module names made the files differ."""
    _, program = cnn(dynamic=True)
    torch.export.save(program, tmp_path / "p.pt2")
    again = torch.export.load(tmp_path / "p.pt2")
    for node in again.graph.nodes:
        node.meta.pop("nn_module_stack", None)
    first = export_onnx(program, tmp_path / "first.onnx").path.read_bytes()
    assert export_onnx(again, tmp_path / "again.onnx").path.read_bytes() == first
