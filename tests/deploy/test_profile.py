"""`profile --board` through a real OpenSSH server: a board is measured, an emulated one is not."""

import json
import os

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from edgeprune.cli.profile import profile
from edgeprune.coupling.analysis import analyse
from edgeprune.deploy.emulation import count_instructions
from edgeprune.errors import DeviceError
from edgeprune.graph.trace import trace
from edgeprune.latency import instruction_prices, read_profile
from edgeprune.latency.resizing import Resizable, keep_shares
from edgeprune.targets import load_target

MODEL = [
    "examples/checkpoints/demo_cnn.safetensors",
    "--model",
    "examples.nets:demo_cnn",
    "--input-shape",
    "1,28,28",
]
FEW = ["--networks", "2", "--seconds", "0.2"]
WIDE = "x86-avx512" if "avx512f" in load_target("host").isa else "x86-avx2"
HERE, OTHER = ("android-big", WIDE) if os.uname().machine == "aarch64" else (WIDE, "rpi4")


def run(*arguments):
    return CliRunner().invoke(profile, [*MODEL, *FEW, *arguments], standalone_mode=False)


def test_a_profile_of_a_device_has_its_name_and_its_points(native, tmp_path):
    """Over ssh to real hardware the file is complete and says where it was measured."""
    path = tmp_path / "p.json"
    done = run("--board", "native", "--target", HERE, "-o", str(path), "--json")
    assert done.exception is None, done.output
    found = read_profile(path)
    assert (found.board, found.target, found.complete) == ("native", HERE, True)
    assert len(found.points) == 3 * len(found.layers)
    assert json.loads(done.stdout)["points"] == len(found.points)


def test_device_and_target_that_disagree_are_refused_before_anything_runs(native, tmp_path):
    """A Pi's profile is not measured on another architecture; nothing is written."""
    done = run("--board", "native", "--target", OTHER, "-o", str(tmp_path / "p.json"))
    assert isinstance(done.exception, DeviceError)
    assert "but this was made for" in str(done.exception)
    assert not (tmp_path / "p.json").exists()


def test_an_emulated_device_runs_the_networks_and_gives_no_profile(arm, tmp_path):
    """End to end into aarch64: the resized networks run there, no time is kept and no file is written."""
    done = run("--board", "arm", "--target", "rpi4", "-o", str(tmp_path / "p.json"))
    assert isinstance(done.exception, DeviceError)
    assert "emulated (cortex-a72): the network runs there at 3 sets of widths" in str(done.exception)
    assert " ms" not in str(done.exception) + done.output
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize("name", ["nopython", "stranger"])
def test_a_device_that_is_not_fit_is_refused_first(native, tmp_path, name):
    """The reason is the board's, and no file is left."""
    done = run("--board", name, "--target", HERE, "-o", str(tmp_path / "p.json"))
    assert isinstance(done.exception, DeviceError)
    assert not (tmp_path / "p.json").exists()


def test_instruction_counts_rank_widths_that_were_not_counted(sandbox, tmp_path):
    """Fitted to a few emulated networks, the price of another one is near its own count."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )
    traced = trace(model.eval(), (torch.randn(2, 3, 8, 8),))
    couplings = analyse(traced)
    cost = instruction_prices(traced, couplings, "cortex-a72", networks=4).cost_of(traced, couplings)
    assert cost.estimate and cost.unit == "emulated instructions"
    half = keep_shares(couplings, np.full(len(couplings.group_names), 0.5))
    Resizable(traced, couplings, tmp_path).write(tmp_path / "half.onnx", couplings.kept(half))
    counted = count_instructions(tmp_path / "half.onnx", "cortex-a72").per_inference
    assert cost(half) == pytest.approx(counted, rel=0.2)
    assert cost(half) < 0.8 * cost.dense
