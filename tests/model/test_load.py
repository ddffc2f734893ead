"""Loading a model file: by content, into the right module, without running its code."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import archives
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.model.load import LoadedModel, from_module, load_model

NETS = """
import pathlib
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    def __setstate__(self, state):
        pathlib.Path("ran").touch()
        super().__setstate__(state)

def build():
    return Net()

def wide():
    net = Net()
    net.head = nn.Linear(5, 3)
    net.extra = nn.Linear(2, 2)
    return net

def fails():
    raise RuntimeError("no such dataset")

def not_a_module():
    return 3

instance = 7
"""
BUILD = {"factory": "loadnets:build", "input_shapes": [(1, 6, 6)]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with `loadnets.py` in it, not otherwise importable."""
    (tmp_path / "loadnets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("loadnets", None)


@pytest.fixture
def net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """An instance of the folder's class whose normalisation statistics are not the initial ones."""
    monkeypatch.syspath_prepend(str(folder))
    made = importlib.import_module("loadnets").build()
    torch.manual_seed(1)
    made.train()(torch.randn(8, 1, 6, 6))
    return made.eval()


def same(loaded: LoadedModel, net: nn.Module) -> bool:
    assert loaded.module is not None
    x = torch.randn(3, 1, 6, 6)
    return torch.equal(loaded.module(x), net(x))


def write_state(net: nn.Module, form: str, path: Path) -> None:
    state = net.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "old format":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "checkpoint":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif form == "data parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    elif form == "compiled":
        torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize(
    "form", ["state dict", "old format", "safetensors", "checkpoint", "data parallel", "compiled"]
)
@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".jpg", ""])
def test_weights_load_into_the_factory_whatever_the_suffix(
    form: str, suffix: str, net: nn.Module, folder: Path
):
    """The content decides: each way of saving weights gives the same outputs under any file name."""
    path = folder / f"weights{suffix}"
    write_state(net, form, path)
    loaded = load_model(path, **BUILD)
    assert same(loaded, net)
    assert loaded.kind == "module"
    assert not loaded.module.training
    assert [tuple(x.shape) for x in loaded.example_inputs] == [(2, 1, 6, 6)]


@pytest.mark.parametrize(
    ("form", "note"),
    [("checkpoint", "'state_dict'"), ("data parallel", "'module.'"), ("compiled", "'_orig_mod.'")],
)
def test_what_was_undone_is_said(form: str, note: str, net: nn.Module, folder: Path):
    """A wrapper around the state dict or a prefix of its names is undone with a note."""
    write_state(net, form, folder / "w")
    assert any(note in said for said in load_model(folder / "w", **BUILD).notes)


def test_exported_program_needs_neither_class_nor_shape(folder: Path):
    """A .pt2 loads by itself, with the example inputs it was exported with."""
    program = archives.small_program()
    torch.export.save(program, folder / "m.pt2")
    loaded = load_model("m.pt2")
    assert loaded.kind == "exported"
    assert loaded.module is None
    assert torch.equal(loaded.example_inputs[0], program.example_inputs[0][0])
    assert loaded.notes == ()
    assert loaded.parameters_bytes == sum(t.nbytes for t in program.state_dict.values()) + 4


def test_program_without_example_inputs_gets_them_from_its_graph(folder: Path):
    """Shapes and types recorded in the graph are enough."""
    program = archives.small_program()
    program.example_inputs = None
    torch.export.save(program, folder / "m.pt2")
    loaded = load_model("m.pt2")
    assert [tuple(x.shape) for x in loaded.example_inputs] == [(2, 1, 6, 6)]
    assert loaded.program.module()(*loaded.example_inputs).shape == (2, 3)


def test_program_with_a_fixed_batch_stays_usable_and_is_noted(folder: Path):
    """A static batch of 1 loads and runs; the note gives the number."""
    program = torch.export.export(archives.Small().eval(), (torch.randn(1, 1, 6, 6),))
    torch.export.save(program, folder / "m.pt2")
    loaded = load_model("m.pt2")
    assert loaded.program.module()(*loaded.example_inputs).shape == (1, 3)
    assert any("fixed batch of 1" in note for note in loaded.notes)


def test_the_digest_is_of_the_content(folder: Path):
    """Two files of equal content have one digest; another content has another."""
    torch.export.save(archives.small_program(), folder / "a.pt2")
    (folder / "b.pt2").write_bytes((folder / "a.pt2").read_bytes())
    torch.save({"w": torch.zeros(1)}, folder / "c.pt")
    first, second = load_model("a.pt2"), load_model("b.pt2")
    assert first.sha256 == second.sha256
    assert len(first.sha256) == 64


def write_module(net: nn.Module, form: str, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "raw pickle":
            path.write_bytes(pickle.dumps(net))
        elif form == "protocol 2":
            path.write_bytes(pickle.dumps(net, protocol=2))
        elif form == "checkpoint":
            torch.save({"model": net, "epoch": 1}, path)
        else:
            torch.save(net, path, _use_new_zipfile_serialization=form != "old format")


PICKLED = ["torch.save", "old format", "raw pickle", "protocol 2", "checkpoint"]


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


@pytest.mark.parametrize("form", PICKLED)
def test_weights_of_a_pickled_module_load_through_the_factory(form: str, net: nn.Module, folder: Path):
    """With --model the tensors are read out of the pickle and none of its code runs."""
    write_module(net, form, folder / "m.pt")
    loaded = load_model("m.pt", **BUILD)
    assert not (folder / "ran").exists()
    assert same(loaded, net)
    assert any("loadnets.Net" in note for note in loaded.notes)


@pytest.mark.parametrize("form", PICKLED)
def test_trust_pickle_unpickles(form: str, net: nn.Module, folder: Path):
    """Only the explicit option runs the class's own code."""
    write_module(net, form, folder / "m.pt")
    loaded = load_model("m.pt", input_shapes=[(1, 6, 6)], trust_pickle=True)
    assert (folder / "ran").exists()
    assert same(loaded, net)


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


def test_onnx_says_so(folder: Path):
    """An ONNX file is recognised without onnx being imported, whatever it is called."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [output])), folder / "m.pt2"
    )
    with pytest.raises(ModelError, match="ONNX file"):
        load_model("m.pt2")


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


def test_old_batch_norm_without_a_counter_fits(net: nn.Module, folder: Path):
    """Checkpoints from before num_batches_tracked load as they do in torch."""
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(state, folder / "m.pt")
    assert same(load_model("m.pt", **BUILD), net)


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


def test_from_module_leaves_the_callers_module_alone():
    """A module in training stays in training; what is returned is a copy in evaluation mode."""
    module = archives.Small().train()
    loaded = from_module(module, torch.randn(2, 1, 6, 6))
    assert module.training
    assert loaded.module is not module
    assert not loaded.module.training
    assert loaded.source == "Small"


def test_from_module_hashes_the_weights():
    """One weight changed, another digest; the same weights, the same digest."""
    module = archives.Small()
    x = torch.randn(2, 1, 6, 6)
    first = from_module(module, x).sha256
    assert from_module(module, x).sha256 == first
    with torch.no_grad():
        module.head.bias[0] += 1
    assert from_module(module, x).sha256 != first


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


def test_from_module_notes_a_batch_of_one():
    """A batch of 1 would fix the exported batch, so it is said."""
    assert from_module(nn.Linear(2, 2), torch.zeros(1, 2)).notes
    assert not from_module(nn.Linear(2, 2), torch.zeros(2, 2)).notes


def test_tied_parameters_count_once():
    """Two names for one storage are one storage's bytes."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[1].weight = module[0].weight
    assert from_module(module, torch.zeros(2, 4)).parameters_bytes == 64
