"""Whole runs on networks whose layers do not read samples first."""

from __future__ import annotations

import nets_ordered
import numpy as np
import pytest

import edgeprune


@pytest.mark.parametrize(
    ("name", "criterion", "more"),
    [
        ("encoder", "ib-gauss", {"epochs": 1, "ib_beta": 0.1, "features": 0.1}),
        ("encoder, sequence first", "ib-jmi", {"epochs": 0}),
    ],
)
def test_compress_goes_all_the_way(name, criterion, more, tmp_path):
    """Fewer multiply-adds, and what every removed unit told of the label is on record."""
    net, shape = nets_ordered.build(name)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, *shape)).astype(np.float32)
    y = (x.mean((1, 2)) > 0).astype(np.int64) + (x[:, 0, 0] > 1)
    result = edgeprune.compress(
        net, (x, y), macs=0.6, criterion=criterion, objective="macs", front=0, int8="off", rounds=1,
        bench_seconds=0.3, align=1, calibration=64, output=tmp_path / "run", **more,
    )  # fmt: skip
    assert result.report["macs"]["shipped"] <= 0.6 * result.report["macs"]["dense"]
    arrays = np.load(next((tmp_path / "run" / "rounds").glob("*.npz")))
    assert np.isfinite(arrays["label_nats"]).all() and arrays["label_nats"].any()
