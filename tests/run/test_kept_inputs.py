"""compress with prune_inputs: which sensors the shipped file reads, everywhere that a person looks."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import torch
from torch import nn

import edgeprune
from edgeprune.deploy.bundle_building import build
from edgeprune.report import render_html, render_table
from edgeprune.report.removed import explanation

ASKED = {
    "objective": "macs", "front": 0, "int8": "off", "rounds": 1, "bench_seconds": 0.3, "align": 1,
    "epochs": 0, "macs": 0.4, "criterion": "l2", "prune_inputs": True, "allocation": "uniform",
}  # fmt: skip


def test_the_shipped_file_reads_the_features_that_the_report_lists_and_no_others(tmp_path):
    """Report, recipe, preprocess.json, bundle and explain agree; the rest need not be measured."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net[0].weight[:, 6:] *= 0.01  # six sensors that say next to nothing
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((240, 12)).astype(np.float32), rng.integers(0, 3, 240)
    result = edgeprune.compress(net, (x, y), output=tmp_path, **ASKED)
    (entry,) = result.report["inputs"]
    kept = entry["kept"]
    assert entry["count"] == 12 and kept[:6] == [0, 1, 2, 3, 4, 5] and len(kept) <= 8
    assert (
        result.report["macs"]["shipped"]
        == len(kept) * result.report["layers"][0]["after"] + 3 * (result.report["layers"][0]["after"])
    )
    session = onnxruntime.InferenceSession(result.onnx, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    unmeasured = x[:50].copy()
    gone = np.setdiff1d(np.arange(12), kept)
    unmeasured[:, gone] = np.nan
    assert np.array_equal(session.run(None, {name: x[:50]})[0], session.run(None, {name: unmeasured})[0])
    assert json.loads((tmp_path / "recipe.json").read_text())["inputs"] == [entry]
    assert json.loads((tmp_path / "preprocess.json").read_text())["kept_inputs"] == [entry]
    assert build(tmp_path, None, None).manifest["kept_inputs"] == [entry]
    said = f"{len(kept)} of 12 features are read (dimension 1): 0–5"
    assert said in render_table(result.report) and "dimension 1: 0–5" in render_html(result.report)
    channel = f"input {entry['input']}"
    assert (
        explanation(tmp_path, f"{channel}:{gone[0]}")["removed"]
        and not explanation(tmp_path, f"{channel}:0")["removed"]
    )
    dense = onnxruntime.InferenceSession(tmp_path / "dense.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        dense.run(None, {name: x[:9]})[0], net(torch.from_numpy(x[:9])).detach(), atol=1e-5
    )
