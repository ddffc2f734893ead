"""The report of a real run: its next steps run as printed, its changed samples are those of the files."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from shop import MODEL, QUICK

from edgeprune.report.next_steps import PYTHON, commands


@pytest.fixture(scope="module")
def run(shop):
    """A run with a front on pictures stored as bytes, and its report."""
    data = shop.data("bytes.npz", x=(shop.x * 255).astype(np.uint8), y=shop.y)
    quick = [*QUICK[: QUICK.index("--front")], "--front", "1", "--int8", "off"]
    request = ("compress", *MODEL, "--data", data, "--macs", "0.4", "--rounds", "1", *quick, "-o", "shown")
    outcome = shop.run(*request)
    assert outcome.code == 0, outcome.err
    return shop.path / "shown", json.loads((shop.path / "shown" / "report.json").read_text())


def test_the_next_steps_run_as_printed(run, monkeypatch):
    """explain, pick and ship --bundle in the run folder, and the three lines of Python."""
    folder, report = run
    steps = [shlex.split(text) for _, text in commands(report)]
    assert [step[1] for step in steps] == ["explain", "pick", "ship", "ship"]
    for step in steps[:3]:
        done = subprocess.run([sys.executable, "-m", *step], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, (step, done.stderr)
    assert (folder.parent / "picked" / "model.onnx").is_file()
    assert (folder.parent / "bundle" / "manifest.json").is_file()
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=folder, capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0 and "array" in done.stdout, done.stderr
    assert len(PYTHON.splitlines()) == 3
    page = (folder / "report.html").read_text()
    assert all(text.replace("'", "&#x27;") in page for _, text in commands(report))


def test_changed_samples_are_those_on_which_the_files_differ(run, shop):
    """Decisions of both files on the samples that are named, recomputed by onnxruntime."""
    folder, report = run
    changes = report["changes"]
    assert changes["decisions"] and changes["samples"] == report["accuracy"]["samples"]
    assert changes["worse"] >= len(changes["examples"]) > 0
    net = 100 * (changes["worse"] - changes["better"]) / changes["samples"]
    assert net == pytest.approx(report["accuracy"]["drop"]["value"], abs=1e-6)
    x = (shop.x * 255).astype(np.uint8).astype(np.float32) / 255
    for example in changes["examples"]:
        at = example["sample"]
        decided = {}
        for name in ("dense", "model"):
            session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
            (out,) = session.run(None, {session.get_inputs()[0].name: x[at : at + 1]})
            decided[name] = f"class {out.argmax()}"
        assert decided["dense"] == example["dense"] == example["target"] == f"class {shop.y[at]}"
        assert decided["model"] == example["shipped"] != example["target"]
        assert base64.b64decode(example["thumbnail"]).startswith(b"\x89PNG")
    for row in changes["classes"]:
        assert row["shipped"] < row["dense"]


def test_the_channels_that_went_first_are_those_of_removed_json(run):
    """Each is removed there, with that score and rank, and no peer of its group went before it."""
    folder, report = run
    removed = json.loads((folder / "removed.json").read_text())
    assert report["first_removed"]
    for entry in report["first_removed"]:
        component = removed["components"][removed["channels"][entry["layer"]][entry["channel"]]]
        assert component["removed"] and component["score"] == entry["score"]
        peers = [
            c["rank"] for c in removed["components"] if c["group"] == component["group"] and c.get("step")
        ]
        assert entry["rank"] == min(peers)
