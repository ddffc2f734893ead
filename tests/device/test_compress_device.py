"""`compress --device`: planned, timed and verified on the board, which is told from its own name."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
from edgeprune import latency
from edgeprune.device.identity import board_target, target_of
from edgeprune.device.remote import Device
from edgeprune.errors import BudgetError, DeviceError
from edgeprune.pipeline import latencies
from edgeprune.pipeline.board import board_of
from edgeprune.pipeline.options import Clock, Options, Progress
from edgeprune.targets import load_target

QUICK = {"epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.5, "profile_seconds": 2.0,
         "front": 0, "max_drop": 90}  # fmt: skip


@pytest.fixture(scope="module")
def given():
    """An untrained network and noise: what is asked here is where things run, not how well."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    return net.eval(), (rng.normal(size=(400, 1, 12, 12)).astype(np.float32), rng.integers(0, 4, 400))


def device(**facts):
    """A device that says these things of itself."""
    known = {"problems": [], "architecture": "aarch64", "cores": 4, "board": None, "emulated": None, **facts}
    return Device(SimpleNamespace(destination="pi"), facts=known)


def test_a_board_is_known_by_the_name_that_it_gives_itself():
    """Revisions and memory sizes follow the descriptor's title; a stranger is none."""
    assert board_target("Raspberry Pi 4 Model B Rev 1.4").name == "rpi4"
    assert board_target("Raspberry Pi 5 Model B Rev 1.0").name == "rpi5"
    assert board_target("Some Other Board") is None and board_target(None) is None


def test_a_device_without_a_target_is_its_own_board_with_its_threads():
    """A Pi 4 is planned for as rpi4; an unknown board by its architecture, on one thread, without 8 bits."""
    board = board_of(Options(), device(board="Raspberry Pi 4 Model B Rev 1.4"))
    assert (board.target.name, board.threads, board.described) == ("rpi4", 4, True)
    assert board_of(Options(), device(board="Raspberry Pi 4 Model B Rev 1.4", cores=2)).threads == 2
    assert board_of(Options(threads=3), device(board="Raspberry Pi 4 Model B Rev 1.4")).threads == 3
    other = board_of(Options(), device())
    assert (other.target.name, other.target.arch, other.threads, other.described) == (
        "pi",
        "aarch64",
        1,
        False,
    )
    assert not other.target.local


def test_a_board_that_is_not_the_target_is_refused():
    """A Pi 5 is no rpi4, although both are aarch64; two boards of one core may stand for each other."""
    with pytest.raises(DeviceError, match=r"Raspberry Pi 5 .*Cortex-A76.*--target rpi4 has Cortex-A72"):
        target_of(device(board="Raspberry Pi 5 Model B Rev 1.0"), load_target("rpi4"))
    zero = load_target("rpi-zero2w")
    assert target_of(device(board="Raspberry Pi 3 Model B Plus Rev 1.3"), zero) == zero
    assert target_of(device(), zero) == zero


def test_a_run_on_a_device_is_timed_and_verified_there(native, given, tmp_path, monkeypatch):
    """Without --target: no staircase of this machine, times of the board, outputs compared on the board."""
    monkeypatch.setattr(latencies, "NETWORKS", 10)
    net, data = given
    try:
        run = edgeprune.compress(net, data, speedup=1.2, device="native", output=tmp_path / "run", **QUICK)
        report = run.report
    except BudgetError:  # a busy machine; the result is there
        report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["target"]["name"] == "native" and report["bench"]["device"] == "native"
    assert report["latency"]["threads"] == 1 and report["rounds"][0]["timed"]
    assert report["verified"]["parity"]["max_abs"] < 1e-4
    assert not (tmp_path / "run/staircase.json").exists()
    assert any(note.startswith("8 bits: name the board's --target") for note in report["notes"])


def test_a_run_on_an_emulated_device_proves_outputs_and_shows_no_time(arm, given, tmp_path):
    """Into aarch64: planned by the roofline, outputs of the real runtime compared, no milliseconds."""
    net, data = given
    run = edgeprune.compress(
        net, data, macs=0.5, target="rpi4", device="arm", output=tmp_path / "run", **QUICK
    )
    assert run.report["latency"] is None
    assert run.report["verified"]["parity"]["max_abs"] < 1e-4
    assert any("is an emulator: its times mean nothing" in note for note in run.report["notes"])


def test_a_profile_of_another_runtime_is_warned_of(tmp_path, monkeypatch):
    """What `check` says of the machine that will run it reaches the notes of the run."""
    said = {}

    def check(profile, **asked):
        said.update(asked)
        return ("measured with onnxruntime 1.0, this is 9.9: times may differ",) if "machine" in asked else ()

    monkeypatch.setattr(latency, "read_profile", lambda path: SimpleNamespace(threads=2))
    monkeypatch.setattr("edgeprune.pipeline.board.read_profile", lambda path: SimpleNamespace(threads=2))
    monkeypatch.setattr(latency, "check", check)
    options = Options(profile=str(tmp_path / "p.json"))
    board = board_of(options, None)
    monkeypatch.setattr(type(board), "time", lambda *_, **__: SimpleNamespace(machine={"onnxruntime": "9.9"}))
    _, notes = latencies._profile(None, None, tmp_path, options, None, Clock(Progress()), board)
    assert notes == ("profile: measured with onnxruntime 1.0, this is 9.9: times may differ",)
    assert said["threads"] == board.threads == 2
