"""compress from Python: what it takes, what it refuses, what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.errors import BudgetError, DataError, ModelError

QUICK = {
    "objective": "macs",
    "front": 0,
    "int8": "off",
    "criterion": "l2",
    "rounds": 1,
    "bench_seconds": 0.3,
    "align": 1,
}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def test_a_module_and_arrays_give_a_result_and_stay_as_they_were(net, tmp_path):
    """The caller's module keeps its mode and weights; a second call finds the run finished."""
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((240, 6)).astype(np.float32), rng.integers(0, 3, 240)
    asked = {**QUICK, "macs": "2x", "epochs": 0, "metrics": ("top5",), "output": tmp_path / "run"}
    result = edgeprune.compress(net, (x, y), **asked)
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert result.onnx.is_file() and result.folder == tmp_path / "run"
    assert result.report["macs"]["shipped"] <= result.report["macs"]["dense"] / 2
    assert result.report["accuracy"]["measured_as"] == "top5"
    assert edgeprune.compress(net, (x, y), **asked).report == result.report


def test_what_cannot_be_compressed_is_named(net, tmp_path):
    """Another type, no inputs, no data, a share that is none, an option that does not exist."""
    at = {"output": tmp_path / "never"}
    with pytest.raises(ModelError, match="cannot compress a dict"):
        edgeprune.compress({}, None, **at)
    with pytest.raises(DataError, match="example_inputs"):
        edgeprune.compress(net, None, macs=0.5, criterion="l2", **at)
    with pytest.raises(DataError, match=r"--criterion l2 --macs 0\.5"):
        edgeprune.compress(net, None, example_inputs=torch.randn(2, 6), **at)
    for share in (0, 1.5, True, [0.5]):
        with pytest.raises(BudgetError, match="not a share"):
            edgeprune.compress(net, None, example_inputs=torch.randn(2, 6), macs=share, **at)
    with pytest.raises(TypeError, match="epoch"):
        edgeprune.compress(net, None, example_inputs=torch.randn(2, 6), macs=0.5, epoch=3, **at)
    assert not (tmp_path / "never").exists()


def test_programs_are_told_apart_by_their_weights(net):
    """Two exported programs of one architecture are two requests; the same one twice is one."""
    from edgeprune.api import _from_program

    first = torch.export.export(net.eval(), (torch.randn(2, 6),))
    again = _from_program(first).sha256
    assert _from_program(first).sha256 == again
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    assert _from_program(torch.export.export(net, (torch.randn(2, 6),))).sha256 != again
