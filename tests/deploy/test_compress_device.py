"""`compress --board`: planned, timed and verified on the board, which is told from its own name."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
from edgeprune import latency
from edgeprune.deploy.identity import require_board, target_of
from edgeprune.deploy.remote import Board
from edgeprune.errors import BudgetError, DeviceError
from edgeprune.session import latency_model
from edgeprune.session.context import RunContext
from edgeprune.session.measurement_target import open_measurement_target
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.targets import load_target
from edgeprune.targets.matching import board_target, match

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


def board_with(**facts):
    """A board that says these things of itself."""
    known = {"problems": [], "architecture": "aarch64", "cores": 4, "board": None, "emulated": None, **facts}
    return Board(SimpleNamespace(destination="pi"), facts=known)


def test_a_board_is_known_by_the_name_that_it_gives_itself():
    """Revisions and memory sizes follow the descriptor's title; a stranger is none."""
    assert board_target("Raspberry Pi 4 Model B Rev 1.4").name == "rpi4"
    assert board_target("Raspberry Pi 5 Model B Rev 1.0").name == "rpi5"
    assert board_target("Some Other Board") is None and board_target(None) is None


def test_a_device_without_a_target_is_its_own_board_with_its_threads():
    """A Pi 4 is planned for as rpi4; an unknown board by its architecture, on one thread, without 8 bits."""
    board = open_measurement_target(Options(), board_with(board="Raspberry Pi 4 Model B Rev 1.4"))
    assert (board.descriptor.name, board.threads, board.described) == ("rpi4", 4, True)
    assert (
        open_measurement_target(
            Options(), board_with(board="Raspberry Pi 4 Model B Rev 1.4", cores=2)
        ).threads
        == 2
    )
    assert (
        open_measurement_target(
            Options(threads=3), board_with(board="Raspberry Pi 4 Model B Rev 1.4")
        ).threads
        == 3
    )
    other = open_measurement_target(Options(), board_with())
    assert (other.descriptor.name, other.descriptor.arch, other.threads, other.described) == (
        "pi",
        "aarch64",
        1,
        False,
    )
    assert not other.descriptor.local


@pytest.mark.parametrize(
    ("board", "cores", "target", "says"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", 4, "rpi4", r"Cortex-A76.*not rpi4 \(Cortex-A72\)"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", 4, "imx8mp", r"which is rpi3b\+"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", 4, "rpi-zero2w", r"which is rpi3b\+"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit", 6, "rpi5", "jetson-orin-nano"),
        ("Radxa ROCK 5B", 8, "rpi4", "which is rk3588"),
        ("Some Other Board", 8, "rpi4", "it has 8 cores, rpi4 has 4"),
    ],
)
def test_a_board_that_is_not_the_target_is_refused(board, cores, target, says):
    """Boards of one core do not stand for each other: clock, caches and memory are others."""
    with pytest.raises(DeviceError, match=says) as caught:
        target_of(board_with(board=board, cores=cores), load_target(target))
    assert "leave --target out" in caught.value.tip


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"board": "Some Other Board"}, "calls itself Some Other Board"),
        ({}, "does not say what board it is"),
        ({"board": "Raspberry Pi 4 Model B Rev 1.4", "cores": 2}, "has 2 cores, rpi4 has 4"),
    ],
)
def test_a_board_that_may_be_the_target_is_not_taken_in_silence(facts, says):
    """What cannot be told is said; a board of the target's own, or of a class of machines, is not doubted."""
    rpi4 = load_target("rpi4")
    assert target_of(board_with(**facts), rpi4) == rpi4
    (said,) = require_board(board_with(**facts), rpi4)
    assert says in said
    assert require_board(board_with(board="Raspberry Pi 4 Model B Rev 1.4"), rpi4) == ()
    assert require_board(board_with(cores=8), load_target("android-big")) == ()


@pytest.mark.parametrize(
    ("target", "facts", "refused", "doubts"),
    [
        ("x86-avx512", {"flags": ["avx", "fma", "avx2"]}, "no avx512_vnni, avx512f", ""),
        ("x86-avx2", {"flags": ["avx", "fma", "avx2", "avx512f"]}, "it has avx512f", ""),
        ("x86-avx2", {"flags": ["avx", "fma", "avx2", "avx_vnni"]}, "", "it has avx_vnni"),
        ("x86-avx2", {"flags": ["avx", "fma", "avx2"]}, "", ""),
        ("android-big", {"flags": ["asimd"], "parts": ["0xd03"]}, "no dotprod, fp16", ""),
        ("rk3588", {"parts": ["0xd05", "0xd0b"], "board": "Radxa ROCK 5B", "cores": 8}, "", ""),
        ("rpi5", {"parts": ["0xd08"], "board": "Raspberry Pi 5"}, "its cores are Cortex-A72", ""),
        ("rpi5", {"parts": ["0xd08"], "flags": ["asimd"], "cores": 64, "emulated": "cortex-a72"}, "", ""),
    ],
)
def test_cores_and_instruction_sets_are_compared(target, facts, refused, doubts):
    """What kernels are chosen by decides; what a machine does not say, and an emulator, decide nothing."""
    found = match(load_target(target), facts)
    assert refused in " ".join(found.refused) and bool(found.refused) == bool(refused)
    assert doubts in " ".join(found.doubts) and bool(found.doubts) == bool(doubts)


def test_a_run_on_a_device_is_timed_and_verified_there(native, given, tmp_path, monkeypatch):
    """Without --target: no staircase of this machine, times of the board, outputs compared on the board."""
    monkeypatch.setattr(latency_model, "NETWORKS", 10)
    net, data = given
    try:
        run = edgeprune.compress(net, data, speedup=1.2, board="native", output=tmp_path / "run", **QUICK)
        report = run.report
    except BudgetError:  # a busy machine; the result is there
        report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["target"]["name"] == "native" and report["bench"]["board"] == "native"
    assert report["latency"]["threads"] == 1 and report["rounds"][0]["timed"]
    assert report["verified"]["parity"]["max_abs"] < 1e-4
    assert not (tmp_path / "run/staircase.json").exists()
    assert any(note.startswith("8 bits: name the board's --target") for note in report["notes"])


def test_a_run_on_an_emulated_device_proves_outputs_and_shows_no_time(arm, given, tmp_path):
    """Into aarch64: planned by the roofline, outputs of the real runtime compared, no milliseconds."""
    net, data = given
    run = edgeprune.compress(
        net, data, macs=0.5, target="rpi4", board="arm", output=tmp_path / "run", **QUICK
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
    monkeypatch.setattr(
        "edgeprune.session.measurement_target.read_profile", lambda path: SimpleNamespace(threads=2)
    )
    monkeypatch.setattr(latency, "check_compatibility", check)
    options = Options(profile=str(tmp_path / "p.json"))
    board = open_measurement_target(options, None)
    monkeypatch.setattr(type(board), "time", lambda *_, **__: SimpleNamespace(machine={"onnxruntime": "9.9"}))
    monkeypatch.setattr(latency, "require_network", lambda *given: None)
    _, notes = latency_model._profile(None, None, tmp_path, RunContext(options, None, Clock(), board))
    assert notes == ("profile: measured with onnxruntime 1.0, this is 9.9: times may differ",)
    assert said["threads"] == board.threads == 2
