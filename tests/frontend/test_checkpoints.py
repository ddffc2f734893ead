"""Checkpoints as training tools write them: prefixes in any order, averaged weights, code beside weights."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from loading import BUILD, same
from torch import nn
from torch.nn.utils import prune

from edgeprune.cli import cli
from edgeprune.errors import ModelError
from edgeprune.frontend.load import load_model
from edgeprune.run.torch_prune_compat import load_with_prune_masks

PREFIXES = [
    "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "model._orig_mod.",
    "module.model.", "module.module.", "_forward_module._orig_mod.model.", "backbone.encoder.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("load", [load_model, lambda *a, **k: load_with_prune_masks(*a, **k)[0]])
def test_prefixes_are_undone_in_any_order(prefix: str, load: Any, net: nn.Module, folder: Path):
    """Wrappers wrap each other; what was dropped is said."""
    torch.save({f"{prefix}{k}": v for k, v in net.state_dict().items()}, folder / "w.pt")
    loaded = load(folder / "w.pt", **BUILD)
    assert same(loaded, net)
    assert any("dropped" in note for note in loaded.notes)


def test_compiled_submodules_are_undone(net: nn.Module, folder: Path):
    """torch.compile of a part leaves its mark in the middle of a name."""
    state = {k.replace("conv.", "conv._orig_mod."): v for k, v in net.state_dict().items()}
    torch.save(state, folder / "w.pt")
    assert same(load_model(folder / "w.pt", **BUILD), net)


def test_an_averaged_model_is_taken_as_it_is(net: nn.Module, folder: Path):
    """torch.optim.swa_utils counts its updates in `n_averaged`, which is no weight."""
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), folder / "w.pt")
    loaded = load_model(folder / "w.pt", **BUILD)
    assert same(loaded, net)
    assert not any("left out" in note for note in loaded.notes)


def test_what_lightning_saves_beside_the_network_is_left_out_and_named(net: nn.Module, folder: Path):
    """A loss with weights and a metric's buffers share no prefix with the network."""
    state = {f"model.{k}": v for k, v in net.state_dict().items()} | {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "w.ckpt")
    loaded = load_model(folder / "w.ckpt", **BUILD)
    assert same(loaded, net)
    assert any("left out 1 tensors beside it (loss.weight)" in note for note in loaded.notes)


def test_a_prefix_that_belongs_to_the_network_stays(folder: Path):
    """A factory whose module has a submodule called `module` or `model` is not cut short."""
    (folder / "wrapped.py").write_text(
        "from torch import nn\ndef build():\n    outer = nn.Module()\n    outer.model = nn.Module()\n"
        "    outer.model.module = nn.Linear(3, 2)\n    outer.forward = outer.model.module.forward\n"
        "    return outer\n"
    )
    state = {"model.module.weight": torch.ones(2, 3), "model.module.bias": torch.zeros(2)}
    torch.save(state, folder / "w.pt")
    loaded = load_model(folder / "w.pt", factory="wrapped:build", input_shapes=[(3,)])
    assert loaded.notes == ()
    sys.modules.pop("wrapped")


def test_a_common_prefix_is_named_when_nothing_fits(net: nn.Module, folder: Path):
    """The next step is to give the part of the network that the names speak of."""
    torch.save({"student.body.a": torch.ones(1), "student.body.b": torch.ones(1)}, folder / "w.pt")
    with pytest.raises(ModelError, match=r"all names in the file begin with 'student\.body\.'"):
        load_model(folder / "w.pt", **BUILD)


@pytest.mark.parametrize("key", ["state_dict_ema", "ema", "model_ema", "ema_state_dict", "averaged_model"])
def test_averaged_weights_are_preferred_and_that_is_said(key: str, net: nn.Module, folder: Path):
    """They are what the authors evaluated; --state takes the others."""
    raw = copy.deepcopy(net)
    with torch.no_grad():
        raw.head.bias += 1
    torch.save({"state_dict": raw.state_dict(), key: net.state_dict(), "epoch": 1}, folder / "w.pt")
    loaded = load_model(folder / "w.pt", **BUILD)
    assert same(loaded, net)
    assert any(f"under {key!r}, the averaged weights; 'state_dict'" in note for note in loaded.notes)
    other = load_model(folder / "w.pt", **BUILD, state="state_dict")
    assert same(other, raw)
    assert other.sha256 != loaded.sha256  # a run folder of one is not resumed with the other


def test_averaged_weights_one_level_further_down(net: nn.Module, folder: Path):
    """Their own wrapper may hold a counter beside the weights."""
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    torch.save({"model": {"a": torch.ones(1)}, "ema": {"shadow": state, "updates": 7}}, folder / "w.pt")
    loaded = load_model(folder / "w.pt", **BUILD)
    assert same(loaded, net) and any("'ema.shadow'" in note for note in loaded.notes)


def test_the_command_line_takes_a_state(net: nn.Module, folder: Path):
    """`--state KEY` reaches the file, and a wrong one lists the right ones."""
    torch.save({"net": net.state_dict(), "weights": net.state_dict()}, folder / "w.pt")
    line = ["inspect", "w.pt", "--model", "loadnets:build", "--input-shape", "1,6,6", "--state"]
    assert CliRunner().invoke(cli, [*line, "net"]).exit_code == 0
    refused = CliRunner().invoke(cli, [*line, "other"]).exception
    assert isinstance(refused, ModelError)
    assert "net, weights" in refused.tip


def test_masks_follow_the_names_that_were_undone(net: nn.Module, folder: Path):
    """A pruned network under a prefix: weights, mask and the module's own names belong together."""
    pruned = copy.deepcopy(net)
    prune.l1_unstructured(pruned.conv, "weight", 0.5)
    torch.save({f"model.{k}": v for k, v in pruned.state_dict().items()}, folder / "w.pt")
    loaded, mask = load_with_prune_masks(folder / "w.pt", **BUILD)
    assert mask is not None and set(mask.keep) == {"conv.weight"}
    assert torch.equal(loaded.module.conv.weight, pruned.conv.weight)


def test_a_trusted_pickle_finds_its_class_in_the_current_folder(net: nn.Module, folder: Path):
    """As for `python -m`: the installed command has not put it on the path."""
    torch.save(net, folder / "m.pt")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p not in ('', sys.argv[1])]\n"
        "from edgeprune.frontend.load import load_model\n"
        "print(load_model('m.pt', input_shapes=[(1, 6, 6)], trust_pickle=True).kind)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "module", done.stderr


def test_trust_and_a_factory_work_together_without_the_class(net: nn.Module, folder: Path):
    """The factory builds the network, so a class that is gone since is not needed."""
    torch.save(net, folder / "m.pt")
    source = (folder / "loadnets.py").read_text()
    (folder / "loadnets.py").write_text(
        source.replace("class Net", "class Other").replace("Net()", "Other()")
    )
    sys.modules.pop("loadnets")
    importlib.invalidate_caches()
    loaded = load_model(folder / "m.pt", **BUILD, trust_pickle=True)
    assert torch.equal(loaded.module.head.weight, net.head.weight)
