"""Training that the user does: inside the rounds (`train=`), and afterwards (`finish`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.data import open_data
from edgeprune.errors import ModelError, OutputError, RunError
from edgeprune.run.finish import finish_run
from edgeprune.session.options import Options

QUICK = {
    "macs": 0.5, "rounds": 1, "calibration": 64, "bench_seconds": 0.3, "front": 0, "int8": "off", "align": 1,
    "objective": "macs",
}  # fmt: skip


def train(pruned, dense, data):
    """Two passes of plain training on the task's loss."""
    optimizer = torch.optim.Adam(pruned.parameters(), 1e-3)
    for epoch in range(2):
        for inputs, targets in data.batches("train", 64, shuffle_seed=epoch):
            optimizer.zero_grad()
            out = pruned(*inputs)
            data.task.loss((out,) if isinstance(out, torch.Tensor) else tuple(out), targets).backward()
            optimizer.step()


@pytest.fixture(scope="module")
def run(stripes, tmp_path_factory):
    """A run whose rounds were trained by the function above."""
    net, data = stripes
    return edgeprune.compress(net, data, train=train, output=tmp_path_factory.mktemp("own") / "run", **QUICK)


def test_own_training_takes_the_place_of_fine_tuning(run):
    """The stage is there, no epochs are recorded, and the trained weights are those that shipped."""
    names = [stage["name"] for stage in run.report["stages"]]
    assert "round 1: train" in names and "round 1: fine-tune" not in names
    assert run.report["rounds"][0]["epochs"] == []
    assert run.report["accuracy"]["shipped"]["value"] >= 0.95


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda pruned, dense, data: nn.Linear(2, 2), "gave another architecture: .* missing"),
        (lambda pruned, dense, data: 3, "returned a int"),
        (lambda pruned, dense, data: data.indices("test"), "raised OptionError.*the part 'test'"),
        (lambda pruned, dense, data: _poison(pruned), "holds NaN or infinity after training"),
    ],
)
def test_what_training_must_not_do_is_one_sentence(stripes, tmp_path, function, text):
    """Another architecture, no module, a look at the test part, weights that are not finite."""
    net, data = stripes
    with pytest.raises(ModelError, match=f"--train .*{text}"):
        edgeprune.compress(net, data, train=function, output=tmp_path / "run", **QUICK)


def _poison(module):
    next(iter(module.parameters())).data.fill_(float("nan"))


def test_finish_ships_what_was_trained_elsewhere(run, stripes, tmp_path):
    """Other weights of the same shapes: another file, its loss bounded against the dense one, and timed."""
    state = dict(torch.export.load(run.folder / "model.pt2").state_dict)
    state = {f"net.{k}": v * 1.001 if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "trained.pt")
    data = open_data(stripes[1])
    done = finish_run(run.folder, tmp_path / "trained.pt", data, tmp_path / "out", Options(bench_seconds=0.3))
    assert done.onnx.read_bytes() != (run.folder / "model.onnx").read_bytes()
    assert done.artifact.parity.max_abs < 1e-3
    assert done.validation.high >= done.validation.value and done.test.parts[0].measure == "accuracy"
    assert done.bench.ratios[0].ratio.value > 0
    assert {p.name for p in done.folder.iterdir()} >= {"golden.npz", "preprocess.json", "finish.json"}
    with pytest.raises(OutputError, match="exists already"):
        finish_run(run.folder, tmp_path / "trained.pt", data, tmp_path / "out", Options(bench_seconds=0.3))


def test_finish_refuses_weights_of_another_network(run, tmp_path):
    """Missing, unknown and differently shaped tensors are named; nothing is written."""
    state = dict(torch.export.load(run.folder / "model.pt2").state_dict)
    first, *_ = state
    for broken, text in (
        ({k: v for k, v in state.items() if k != first}, f"1 missing \\({first}"),
        ({**state, first: torch.zeros(3)}, "1 of another shape"),
        ({**state, first: torch.full_like(state[first], np.inf)}, "holds NaN or infinity"),
        ({**state, "other.weight": torch.zeros(2)}, "1 unknown \\(other.weight"),
    ):
        with pytest.raises(ModelError, match=text):
            finish_run(run.folder, broken, None, tmp_path / "out", Options(bench_seconds=0.3))
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match=r"has no model\.pt2"):
        finish_run(tmp_path, state, None, tmp_path / "out", Options())
