"""What the benchmark of --speedup records of a run is what the run's report says."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune

speedups = pytest.importorskip("benchmarks.latency.speedup")


def test_a_row_has_the_dense_time_and_the_warnings_of_the_report(tmp_path, monkeypatch):
    """A whole run, quick: a name that the report does not have would be an error, not a null."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    report = {}

    def quick(model, **settings):
        settings |= {"speedup": None, "macs": 0.6, "objective": "macs", "bench_seconds": 0.3, "front": 0}
        done = edgeprune.compress(net.eval(), **settings)
        report.update(done.report)
        report["rounds"][-1].setdefault("timed", [])
        return SimpleNamespace(report={**report, "front": []})

    x = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 1, 12, 12)).astype(np.float32))
    monkeypatch.setattr(speedups, "build", lambda name: (net, x))
    monkeypatch.setattr(speedups, "edgeprune", SimpleNamespace(compress=quick))
    row = speedups.row_of("tiny", tmp_path, 2.0, 0.3)
    assert row["dense_ms"] == report["latency"]["dense_p50_ms"] > 0
    assert row["warnings"] == report["bench"]["warnings"]
