"""Loading a model file: by content, into the right module, without running its code."""

from __future__ import annotations

import argparse
from pathlib import Path

import archives
import pytest
import torch
from loading import BUILD, PICKLED, same, write_module, write_state
from torch import nn

from edgeprune.errors import UnsafeModelError
from edgeprune.frontend.load import from_module, load_model


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


@pytest.mark.parametrize("form", PICKLED)
def test_weights_of_a_pickled_module_load_through_the_factory(form: str, net: nn.Module, folder: Path):
    """With --model the tensors are read out of the pickle and none of its code runs."""
    write_module(net, form, folder / "m.pt")
    loaded = load_model("m.pt", **BUILD)
    assert not (folder / "ran").exists()
    assert same(loaded, net)
    assert any("loadnets.Net" in note for note in loaded.notes)


def test_checkpoint_with_foreign_objects_gives_its_weights(net: nn.Module, folder: Path):
    """A training checkpoint that also pickled its arguments needs no trust: --model reads past them."""
    arguments = argparse.Namespace(lr=0.1)
    torch.save({"epoch": 1, "args": arguments, "state_dict": net.state_dict()}, folder / "m.pt")
    with pytest.raises(UnsafeModelError, match=r"argparse\.Namespace"):
        load_model("m.pt", input_shapes=[(1, 6, 6)])
    assert same(load_model("m.pt", **BUILD), net)


def test_trusted_archive_is_loaded_as_it_is(folder: Path):
    """--trust-pickle hands a .pt2 to torch unvetted; what vetting would refuse then runs."""
    members = archives.members_of(archives.saved(archives.small_program()))
    attacked = archives.guard_code(members, folder / "marker")
    (folder / "m.pt2").write_bytes(archives.pack(attacked))
    loaded = load_model("m.pt2", trust_pickle=True)
    loaded.program.module()(*loaded.example_inputs)
    assert (folder / "marker").exists()


@pytest.mark.parametrize("form", PICKLED)
def test_trust_pickle_unpickles(form: str, net: nn.Module, folder: Path):
    """Only the explicit option runs the class's own code."""
    write_module(net, form, folder / "m.pt")
    loaded = load_model("m.pt", input_shapes=[(1, 6, 6)], trust_pickle=True)
    assert (folder / "ran").exists()
    assert same(loaded, net)


def test_old_batch_norm_without_a_counter_fits(net: nn.Module, folder: Path):
    """Checkpoints from before num_batches_tracked load as they do in torch."""
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(state, folder / "m.pt")
    assert same(load_model("m.pt", **BUILD), net)


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


def test_from_module_notes_a_batch_of_one():
    """A batch of 1 would fix the exported batch, so it is said."""
    assert from_module(nn.Linear(2, 2), torch.zeros(1, 2)).notes
    assert not from_module(nn.Linear(2, 2), torch.zeros(2, 2)).notes


def test_tied_parameters_count_once():
    """Two names for one storage are one storage's bytes."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    module[1].weight = module[0].weight
    assert from_module(module, torch.zeros(2, 4)).parameters_bytes == 64


class Head(nn.Module):
    """A head that gives its feature map beside its boxes unless it is exported."""

    export = False

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(x)
        return features.mean((2, 3)) if self.export else (features.mean((2, 3)), features)


def test_a_module_with_an_export_flag_is_loaded_in_its_export_form():
    """What only training reads is no output of the loaded model; the user's own module keeps its flag."""
    head = Head()
    loaded = from_module(nn.Sequential(head), torch.randn(2, 1, 4, 4))
    assert isinstance(loaded.module(*loaded.example_inputs), torch.Tensor)
    assert any("Head" in note and "export" in note for note in loaded.notes)
    assert head.export is False
    assert isinstance(head(torch.randn(2, 1, 4, 4)), tuple)
