"""Budgets in milliseconds and the front, end to end: what is planned, timed and shipped."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

import edgeprune
from edgeprune.cli import main
from edgeprune.deploy.bundle import open_bundle
from edgeprune.errors import BenchError, BudgetError, OutputError, RunError
from edgeprune.pareto.pick import choices, pick
from edgeprune.records import Interval
from edgeprune.report import render_table
from edgeprune.report.budget_check import missed, unmeasured
from edgeprune.run.compress import Result
from edgeprune.search.state import RoundRecord
from edgeprune.session.budget import Budget
from edgeprune.session.measurement_target import MeasurementTarget, open_measurement_target
from edgeprune.session.options import Options


def compressed(*given, output, **settings):
    """The run, also where a busy machine made its file miss the speed that it was planned for."""
    with contextlib.suppress(BudgetError):
        return edgeprune.compress(*given, output=output, **settings)
    report = json.loads((output / "report.json").read_text())
    assert [text for text in report["notes"] if text.startswith("over the budget: --speedup")]
    return Result(output, report)


@pytest.fixture(scope="module")
def run(stripes, tmp_path_factory):
    """The network at twice the speed, with the front and 8 bits."""
    net, data = stripes
    settings = {"epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.6, "profile_seconds": 3.0}
    output = tmp_path_factory.mktemp("front") / "run"
    return compressed(net, data, speedup=1.5, max_drop=30, int8="on", output=output, **settings)


def test_a_speedup_is_planned_from_measured_layers_and_checked_on_whole_files(run):
    """The report says what predicted, and each correction stands with what was predicted and measured."""
    report = run.report
    assert any(note.startswith("planned by profile of") for note in report["notes"])
    timed = report["rounds"][0]["timed"]
    assert timed and all(t["asked"] == pytest.approx(1 / 1.5) and t["measured"] > 0 for t in timed)
    assert report["macs"]["shipped"] < report["macs"]["dense"]
    said = report["timing"]["text"]
    assert said.startswith("timed while planning: layers at many widths, ")
    assert f"the dense file, {len(timed)} whole file" in said


def test_predicted_stands_beside_measured_for_every_float_file(run):
    """Files that corrected the plan and those of the front, in the JSON and on the page."""
    planned = {p["name"]: p for p in run.report["planned"]}
    floats = [r for r in run.report["front"] if not r["int8"]]
    assert {r["name"] for r in floats} | {"round 1, try 1"} <= set(planned)
    for row in floats:
        assert planned[row["name"]]["measured"] == row["ratio"]
        assert 0 < planned[row["name"]]["predicted"] <= 1.001
    assert f"Predicted and measured, {len(planned)} files" in (run.folder / "report.html").read_text()


def test_the_front_has_8_bit_forms_of_its_plans_and_says_where_time_was_up(run):
    """Each was timed beside the others, with its loss; those left out for time are named."""
    rows = run.report["front"]
    made = {r["name"] for r in rows if r["int8"]}
    left = next((n for n in run.report["notes"] if "s were up before" in n), "")
    plans = [r["name"] for r in rows if r["name"].startswith("plan-") and not r["int8"]]
    assert plans and all(f"{name}-int8" in made or name in left for name in plans)
    assert "shipped-int8" in made or "planned-int8" in made
    assert any("8 bits are a gain beyond that plan" in note for note in run.report["notes"])


def test_points_are_only_beaten_by_points_of_the_same_recovery(run):
    """Whatever is called dominated has a rival of its own recovery that is as fast and as accurate."""
    rows = run.report["front"]
    assert {r["recovery"] for r in rows} == {"closed form"}  # no epochs
    for row in (r for r in rows if r["dominated"]):
        rivals = [r for r in rows if r is not row and r["recovery"] == row["recovery"]]
        assert any(r["ratio"] <= row["ratio"] and r["drop"]["value"] <= row["drop"]["value"] for r in rivals)


def test_the_front_has_six_points_and_every_file_of_it_runs(run, stripes):
    """At least six choices, each a file with its loss and its latency from one run; one is chosen."""
    rows = run.report["front"]
    assert len(rows) >= 6
    assert sum(r["chosen"] for r in rows) == 1
    x = stripes[1][0][:3]
    for row in rows:
        session = onnxruntime.InferenceSession(str(run.folder / row["file"]))
        out = session.run(None, {session.get_inputs()[0].name: x})[0]
        assert out.shape == (3, 2) and np.isfinite(out).all()
        assert (
            row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
            and row["drop"]["low"] <= row["drop"]["high"]
        )
    best = min(rows, key=lambda r: r["ratio"])
    assert not best["dominated"]


def test_the_user_picks_another_point_and_ships_it(run, tmp_path, capsys):
    """Every point becomes a folder whose model gives its own recorded outputs; the run stays as it was."""
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")}
    for point in choices(run.folder):
        folder = tmp_path / point.name
        assert pick(run.folder, point.name, folder) == point
        bundle = open_bundle(folder)  # runs the model on the recorded inputs
        assert bundle.manifest["outputs"][0]["shape"] == [4, 2]
        original = run.folder / point.file
        assert (folder / "model.onnx").read_bytes() == original.read_bytes()
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")} == before
    with pytest.raises(SystemExit, match="0"):
        main(["pick", str(run.folder)])
    listed = capsys.readouterr().out
    assert all(p["name"] in listed for p in run.report["front"])


def test_a_point_that_is_not_there_or_was_changed_is_refused(run, tmp_path):
    """Nearest names are offered; a file other than the one measured, or a folder in the way, is refused."""
    with pytest.raises(RunError, match=r"no point 'plan-4'.*plan-"):
        pick(run.folder, "plan-4", tmp_path / "a")
    with pytest.raises(OutputError, match="exists already"):
        pick(run.folder, "shipped", tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    point = next(p for p in choices(copy) if p.file.startswith("front/plan"))
    with (copy / point.file).open("ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(RunError):
        pick(copy, point.name, tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_eight_bits_on_request_are_shipped_with_the_float_file_beside(run):
    """--int8 on: model.onnx is the quantised file, its parity is against its own graph, and this is said."""
    chosen = next(r for r in run.report["front"] if r["chosen"])
    assert chosen["int8"] and chosen["file"] == "model.onnx"
    assert (run.folder / "model-float.onnx").is_file()
    assert run.report["parity"]["reference"] == "its 8-bit graph run unoptimised"
    assert "ONNX differs from its 8-bit graph" in render_table(run.report)


def elsewhere(options, device):
    """This machine's descriptor, as if it described another one of its kind."""
    found = open_measurement_target(options, device)
    return replace(found, descriptor=replace(found.descriptor, local=False))


def test_a_written_profile_plans_without_any_timing(run, stripes, tmp_path, monkeypatch):
    """For a target that is not at hand a profile is enough: only the finished files are timed."""
    net, data = stripes
    timed, time = [], MeasurementTarget.time

    def watched(self, paths, *args, **settings):
        timed.append([p.name for p in paths])
        return time(self, paths, *args, **settings)

    monkeypatch.setattr(MeasurementTarget, "time", watched)
    monkeypatch.setattr(sys.modules["edgeprune.run.compress"], "open_measurement_target", elsewhere)
    monkeypatch.setattr("edgeprune.latency.profile_model", lambda *a, **k: pytest.fail("measured"))
    monkeypatch.setattr("edgeprune.run.prepare.staircase", lambda **k: pytest.fail("measured"))
    settings = {"epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.3, "front": 0, "int8": "off"}
    done = edgeprune.compress(
        net, data, speedup=1.5, profile=str(run.folder / "profile.json"), output=tmp_path / "run", **settings
    )
    notes = done.report["notes"]
    assert any("no board connected" in note for note in notes)
    assert any("--speedup 1.5: planned for host, not measured there" in note for note in notes)
    assert done.report["rounds"][0]["timed"] == []
    assert timed and all("model.onnx" in names for names in timed)
    where = done.report["latency"]["where"]
    said = f"timed while planning: nothing; the final table was timed on {where}, not the target"
    assert done.report["timing"]["text"] == said and said in render_table(done.report, width=200)
    assert done.report["estimate"]["unit"] == "predicted ms (profile)"


def test_a_run_that_goes_on_does_not_time_the_dense_file_anew(stripes, tmp_path, monkeypatch):
    """--target-ms is a share of the dense time; the run's record keeps it, so rounds are found again."""
    net, data = stripes
    settings = {
        "epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.3, "front": 0, "int8": "off",
        "profile_seconds": 2.0, "output": tmp_path / "run", "target_ms": 1000.0, "macs": 0.5,
    }  # fmt: skip
    first = edgeprune.compress(net, data, **settings)
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    del stages["report"]
    (tmp_path / "run" / "stages.json").write_text(json.dumps(stages))
    monkeypatch.setattr("edgeprune.search.rounds.capture_for", lambda *a: pytest.fail("done again"))
    again = edgeprune.compress(net, data, **settings)
    assert again.report["layers"] == first.report["layers"]


def test_weights_alone_are_enough_for_a_speedup(stripes, tmp_path):
    """Without data l2 ranks, score mass takes the place of measured loss, and the time is still planned."""
    net, (x, _) = stripes
    done = compressed(
        net, speedup=1.3, criterion="l2", example_inputs=torch.from_numpy(x[:2]), rounds=1, front=0,
        bench_seconds=0.5, profile_seconds=2.0, why=True, output=tmp_path / "run",
    )  # fmt: skip
    assert done.report["accuracy"] is None and done.report["rounds"][0]["timed"]
    said = "where the time goes" if done.report["latency"]["ratio_high"] < 1 else "why not faster"
    assert any(note.startswith(f"{said}: ") for note in done.report["notes"])


def finished(ratio, p50, p99, size):
    """What was measured of a shipped file."""
    shipped = SimpleNamespace(p50_ms=around(p50), p99_ms=around(p99))
    bench = SimpleNamespace(ratios=[SimpleNamespace(ratio=around(ratio))], models=[None, shipped])
    return SimpleNamespace(bench=bench, shipped=SimpleNamespace(bytes=size), front=[])


def around(value):
    return Interval(value, 0.99 * value, 1.01 * value)


def run_of(options, on_target=True):
    target = SimpleNamespace(measures_target=on_target, descriptor=SimpleNamespace(name="rpi4"))
    return SimpleNamespace(options=options, target=target)


DENSE = SimpleNamespace(data=None)


def test_a_budget_that_was_missed_is_never_reported_as_met():
    """Each kind against what was measured: beyond its interval and planning's own 2% it is missed."""
    asked = run_of(Options(budget=Budget(speedup=2.0, target_ms=10.0, deadline_ms=20.0, size_mb=1.0)))
    state = SimpleNamespace(record=RoundRecord())
    assert missed(DENSE, state, finished(0.5, 10.0, 20.0, 10**6), asked) == []
    lines = missed(DENSE, state, finished(0.56, 11.0, 22.0, 2 * 10**6), asked)
    assert [t.split(":")[0] for t in lines] == [
        "--size-mb 1",
        "--speedup 2",
        "--target-ms 10",
        "--deadline-ms 20",
    ]
    assert "1.79 times as fast" in lines[1] and "11 ms" in lines[2]
    away, elsewhere = finished(0.9, 99.0, 99.0, 10**7), run_of(asked.options, on_target=False)
    assert [t.split()[0] for t in missed(DENSE, state, away, elsewhere)] == ["--size-mb"]
    assert "not measured there" in unmeasured(away, elsewhere)[0]


def test_the_loss_of_8_bits_counts_against_the_budget_where_they_are_shipped():
    """--int8 on ships the file whatever it loses; beyond --max-drop the run ends as missed."""
    asked = run_of(Options(budget=Budget(max_drop=1.0), int8="on"))
    done = finished(0.5, 10.0, 20.0, 10**6)
    state = SimpleNamespace(record=RoundRecord(drop=Interval(0.1, 0.0, 0.2)))
    assert missed(DENSE, state, done, asked) == []
    done.front.append(SimpleNamespace(chosen=True, int8=True, drop=Interval(1.5, 1.2, 1.8)))
    (line,) = missed(DENSE, state, done, asked)
    assert line.startswith("--max-drop 1: 1.50 points were lost on validation (up to 1.80")


def test_what_cannot_be_reached_names_the_floor(stripes, tmp_path):
    """A speed-up beyond what structure allows is refused with the largest possible one; nothing is left."""
    net, data = stripes
    settings = {"epochs": 0, "profile_seconds": 2.0, "calibration": 64, "output": tmp_path / "run"}
    with pytest.raises(BudgetError, match=r"--speedup 5000 keeps .*has to stay.*use --speedup .* or less"):
        edgeprune.compress(net, data, speedup=5000, **settings)
    assert not (tmp_path / "run" / "report.json").exists()
    with pytest.raises(BudgetError, match=r"--size-mb 1e-05.*alone takes"):
        edgeprune.compress(net, data, size_mb=1e-5, **settings)


def test_a_deadline_needs_a_board(stripes, tmp_path):
    """A 99th percentile is not made up from a descriptor."""
    net, data = stripes
    with pytest.raises(BenchError, match=r"--deadline-ms 3: a roofline knows no 99th percentile"):
        edgeprune.compress(net, data, deadline_ms=3, target="rpi4", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("target_ms", 0.0), ("speedup", 0.5), ("size_mb", float("nan"))])
def test_budgets_that_make_no_sense(name, value):
    """Refused where they are made, by the option's name."""
    with pytest.raises(BudgetError, match="--" + name.replace("_", "-")):
        Budget(**{name: value})
