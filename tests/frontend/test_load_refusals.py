"""What cannot or must not be loaded: one clear line, and nothing in the file has run."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path

import archives
import pytest
import torch
from loading import BUILD, PICKLED, write_module, write_state
from torch import nn

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.frontend.load import from_module, load_model


@pytest.mark.parametrize("form", PICKLED)
def test_pickled_module_names_its_class_and_the_ways_on(form: str, net: nn.Module, folder: Path):
    """Refused without running __setstate__: the class, --trust-pickle, --model and a snippet are named."""
    write_module(net, form, folder / "m.pt")
    with pytest.raises(UnsafeModelError) as caught:
        load_model("m.pt", input_shapes=[(1, 6, 6)])
    assert not (folder / "ran").exists()
    assert "loadnets.Net" in caught.value.message
    for way in ("--trust-pickle", "--model", "torch.export.save", "torch.randn(2, 1, 6, 6)"):
        assert way in caught.value.tip
    assert "\n" not in str(caught.value)


def test_several_state_dicts_are_a_choice_for_the_user(net: nn.Module, folder: Path):
    """A checkpoint with two networks, neither of them averaged, names both and the option."""
    torch.save({"net": net.state_dict(), "weights": net.state_dict()}, folder / "m.pt")
    with pytest.raises(ModelError, match="several state dicts: net, weights; choose one, as in --state net"):
        load_model("m.pt", **BUILD)
    with pytest.raises(ModelError, match="no state dict under 'teacher'; --state takes one of: net, weights"):
        load_model("m.pt", **BUILD, state="teacher")


@pytest.mark.parametrize("factory", [None, "loadnets:build"])
@pytest.mark.parametrize("form", ["zip", "old format", "raw pickle", "nested"])
def test_bomb_in_a_pickle_does_not_go_off(form: str, factory: str | None, folder: Path):
    """Neither naming the classes nor reading the weights executes a reduce."""
    marker = folder / "marker"
    if form == "raw pickle":
        content = pickle.dumps(archives.Bomb(marker))
    else:
        buffer = io.BytesIO()
        value = {"state_dict": {"w": archives.Bomb(marker)}} if form == "nested" else archives.Bomb(marker)
        torch.save(value, buffer, _use_new_zipfile_serialization=form != "old format")
        content = buffer.getvalue()
    (folder / "m.pt").write_bytes(content)
    with pytest.raises(ModelError):
        load_model("m.pt", factory=factory, input_shapes=[(1, 6, 6)])
    assert not marker.exists()


def test_attributes_set_by_a_pickle_do_not_reach_torch(folder: Path):
    """A pickle may BUILD attributes onto what it was given; torch's own functions stay as they are."""
    code = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00evilK\x01sbcloadnets\nNet\n0."
    (folder / "m.pkl").write_bytes(code)
    with pytest.raises(ModelError):
        load_model("m.pkl", **BUILD)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil")


def test_torchscript_says_what_to_do_instead(folder: Path):
    """TorchScript cannot be pruned; the original module or its state dict can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(folder / "m.pt")
    with pytest.raises(ModelError, match="TorchScript") as caught:
        load_model("m.pt", **BUILD)
    assert "torch.export.save" in caught.value.tip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(200), "truncated or damaged"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x00\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"hello world, this is text", "no known kind"),
        (b"\x80\x02}q\x00", "truncated or damaged"),
        (bytes(64), "no known kind"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b'"a":1' + bytes(70), "safetensors"),
    ],
)
def test_what_is_no_model_is_named(content: bytes, text: str, folder: Path):
    """Wrong, empty and damaged files each get one line that says what they are."""
    (folder / "m.pt").write_bytes(content)
    with pytest.raises(ModelError, match=text) as caught:
        load_model("m.pt", **BUILD)
    assert "m.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["exported", "state dict", "safetensors", "old format"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files_are_model_errors(form: str, share: float, net: nn.Module, folder: Path):
    """Cut anywhere, each format is a ModelError and nothing else."""
    path = folder / "m"
    if form == "exported":
        torch.export.save(archives.small_program(), path.with_suffix(".pt2"))
        path = path.with_suffix(".pt2")
    else:
        write_state(net, form, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError):
        load_model(path, **BUILD)


def test_missing_file_and_folder(folder: Path):
    """A path that is not there, or is a folder, is said in so many words."""
    with pytest.raises(ModelError, match=r"nothing\.pt2: no such file"):
        load_model("nothing.pt2")
    with pytest.raises(ModelError, match="is a folder"):
        load_model(folder)


def test_misfit_lists_missing_unexpected_and_mis_shaped_keys(net: nn.Module, folder: Path):
    """All three kinds are counted and named, with both shapes."""
    state = {**net.state_dict(), "old.weight": torch.zeros(1)}
    torch.save(state, folder / "m.pt")
    with pytest.raises(ModelError) as caught:
        load_model("m.pt", factory="loadnets:wide", input_shapes=[(1, 6, 6)])
    text = caught.value.message
    assert "2 missing (extra.weight, extra.bias)" in text
    assert "1 unexpected (old.weight)" in text
    assert "1 of another shape (head.weight (3×4 in the file, 3×5 in the model))" in text


def test_only_the_first_keys_are_listed(net: nn.Module, folder: Path):
    """A wholly different network gives counts and three names, not hundreds."""
    torch.save({f"other.{i}": torch.zeros(1) for i in range(50)}, folder / "m.pt")
    with pytest.raises(ModelError, match=r"50 unexpected \(other\.0, other\.1, other\.2, …\)"):
        load_model("m.pt", **BUILD)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "weights only"),
        ({"factory": "loadnets:build"}, "input is not known"),
        ({**BUILD, "factory": "loadnets:fails"}, "RuntimeError: no such dataset"),
        ({**BUILD, "factory": "loadnets:nothing"}, "has no nothing"),
        ({**BUILD, "factory": "loadnets:instance"}, "not a function"),
        ({**BUILD, "factory": "loadnets:not_a_module"}, "returned a value of type int"),
        ({**BUILD, "factory": "nosuchmodule:build"}, "no module named nosuchmodule"),
        ({**BUILD, "factory": "loadnets.py:build"}, "file name"),
        ({**BUILD, "factory": "loadnets"}, "expected package.module:name"),
        ({**BUILD, "input_shapes": [(1, 0, 6)]}, "size below 1"),
        ({**BUILD, "input_dtypes": ["float31"]}, "float31"),
        ({**BUILD, "input_dtypes": ["float32", "int64"]}, "2 input dtypes for 1"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict[str, object], text: str, net: nn.Module, folder: Path):
    """A factory or shape that cannot be used is named with its cause."""
    torch.save(net.state_dict(), folder / "m.pt")
    with pytest.raises(ModelError, match=text) as caught:
        load_model("m.pt", **options)
    assert "\n" not in str(caught.value)


def test_factory_module_that_fails_to_import_is_named(net: nn.Module, folder: Path):
    """An exception or a missing dependency inside the user's module is theirs to see."""
    torch.save(net.state_dict(), folder / "m.pt")
    (folder / "broken_a.py").write_text("1 / 0\n")
    (folder / "broken_b.py").write_text("import nosuchdependency\n")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        load_model("m.pt", factory="broken_a:build", input_shapes=[(1, 6, 6)])
    with pytest.raises(ModelError, match="needs nosuchdependency"):
        load_model("m.pt", factory="broken_b:build", input_shapes=[(1, 6, 6)])


def test_factory_beside_a_program_is_a_contradiction(folder: Path):
    """--model is not dropped in silence when the file needs none."""
    torch.export.save(archives.small_program(), folder / "m.pt2")
    with pytest.raises(ModelError, match="needs no --model"):
        load_model("m.pt2", **BUILD)


@pytest.mark.parametrize(
    ("module", "inputs", "text"),
    [
        (3, torch.zeros(2), "not a torch.nn.Module"),
        (nn.Linear(2, 2), (), "none at all"),
        (nn.Linear(2, 2), ("x",), "not str"),
    ],
)
def test_from_module_refuses_what_is_no_model(module: object, inputs: object, text: str):
    """A wrong type is named."""
    with pytest.raises(ModelError, match=text):
        from_module(module, inputs)
