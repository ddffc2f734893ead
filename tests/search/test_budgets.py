"""Whole runs by budgets that test_front leaves out: what is planned by, and that the file keeps to it."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest

import edgeprune
from edgeprune.errors import BudgetError, OptionError
from edgeprune.records import Interval
from edgeprune.search import plans
from edgeprune.session import latency_model
from edgeprune.session.options import Options

QUICK = {"epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.5, "profile_seconds": 2.0,
         "front": 0, "int8": "off"}  # fmt: skip


def test_accuracy_alone_brings_predicted_latency_down(stripes, tmp_path):
    """--max-drop by itself, as the first example of the README: rounds aim at milliseconds, not at MACs."""
    net, data = stripes
    report = edgeprune.compress(net, data, max_drop=40, output=tmp_path / "run", **QUICK).report
    assert all(set(r["asked"]["goals"]) == {"ms"} for r in report["rounds"])
    assert any(note.startswith("planned by profile of") for note in report["notes"])
    assert report["macs"]["shipped"] < 0.6 * report["macs"]["dense"]


def test_a_size_in_megabytes_is_kept_by_the_file_itself(stripes, tmp_path):
    """--size-mb is of the ONNX file, graph included."""
    net, data = stripes
    asked = 0.025
    report = edgeprune.compress(net, data, size_mb=asked, output=tmp_path / "run", **QUICK).report
    assert (tmp_path / "run/model.onnx").stat().st_size == report["file_bytes"]["shipped"] <= asked * 1e6
    assert 0.8 * asked * 1e6 < report["file_bytes"]["shipped"] < report["file_bytes"]["dense"]


def test_a_board_that_is_not_at_hand_is_planned_for_by_its_roofline(stripes, tmp_path):
    """--target rpi4 --speedup 2 with no board: an estimate plans, and nothing claims that it was measured."""
    net, data = stripes
    run = edgeprune.compress(net, data, speedup=2.0, target="rpi4", output=tmp_path / "run", **QUICK)
    notes = run.report["notes"]
    assert any(note.startswith("planned by an estimate: roofline") for note in notes)
    assert any("not measured there" in note for note in notes)
    assert any("was measured on this machine, not on Raspberry Pi 4" in note for note in notes)
    assert run.report["missed"] == [] and run.report["rounds"][0]["timed"] == []
    assert run.report["target"]["name"] == "rpi4"


@pytest.mark.timing
def test_a_deadline_is_planned_and_corrected_by_the_99th_percentile(stripes, tmp_path, monkeypatch):
    """--deadline-ms: what whole files are timed for is their tail, and the report holds it against it.

    The first look is too short for 662 inferences, as ten seconds are for a network of 20 ms.
    """
    monkeypatch.setattr(latency_model, "TAIL_SECONDS", 0.02)
    monkeypatch.setattr(plans, "TAIL_SECONDS", 0.02)
    net, data = stripes
    with contextlib.suppress(BudgetError):  # a busy machine's tail may miss it; then this is said
        edgeprune.compress(net, data, deadline_ms=50.0, output=tmp_path / "wide", **QUICK)
    report = json.loads((tmp_path / "wide/report.json").read_text())
    assert report["bench"]["models"][1]["p99_ms"]["value"] < 50 and report["missed"] == []
    tail = json.loads((tmp_path / "wide/dense latency.json").read_text())["p99_ms"]
    with contextlib.suppress(BudgetError):
        edgeprune.compress(net, data, deadline_ms=0.7 * tail, output=tmp_path / "tight", **QUICK)
    report = json.loads((tmp_path / "tight/report.json").read_text())
    timed = report["rounds"][0]["timed"]
    assert timed and all(t["percentile"] == 99 for t in timed)
    assert report["macs"]["shipped"] < report["macs"]["dense"]
    reached = report["bench"]["models"][1]["p99_ms"]
    assert bool(report["missed"]) == (reached["low"] > 0.7 * tail * 1.02)


def test_the_tail_is_compared_where_there_are_inferences_enough_for_one():
    """Files whose medians are alike and whose tails are not; which of the two was compared is told."""

    def model(p99):
        return SimpleNamespace(p99_ms=None if p99 is None else Interval(p99, p99, p99))

    def share(tail, *p99):
        found = SimpleNamespace(
            models=[model(p) for p in p99], ratios=[SimpleNamespace(ratio=Interval(0.5, 0.5, 0.5))]
        )
        return plans.share_of(found, tail=tail)

    assert share(True, 4.0, 3.0) == (0.75, 99)
    assert share(False, 4.0, 3.0) == share(True, None, 3.0) == (0.5, 50)


def test_the_training_losses_of_the_article_and_of_features_reach_the_fine_tune(stripes, tmp_path):
    """--ib-beta and --features change the weights of the file that is shipped."""
    net, data = stripes
    settings = {**QUICK, "epochs": 1, "macs": 0.5, "objective": "macs"}
    shipped = []
    for name, extra in (("plain", {}), ("beta", {"ib_beta": 0.5}), ("features", {"features": 1.0})):
        run = edgeprune.compress(net, data, output=tmp_path / name, **settings, **extra)
        shipped.append((run.folder / "model.onnx").read_bytes())
    assert len(set(shipped)) == 3


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            {"allocation": "unifrom"},
            "--allocation unifrom: not one of sensitivity, uniform; did you mean uni",
        ),
        ({"objective": "mac"}, "--objective mac: not one of latency, macs"),
        ({"epochs": -1}, "--epochs -1: a number of at least 0"),
        ({"threads": 0}, "--threads 0: a number of at least 1"),
        ({"calibration": True}, "--calibration True: a number"),
        ({"learning_rate": float("nan")}, "--lr nan: a number above 0"),
        ({"distil": 2}, "--distil 2: a number from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused_with_their_name(setting, text):
    """From Python as from the command line: a misspelt word never takes another path in silence."""
    with pytest.raises(OptionError, match=text):
        Options(**setting)
