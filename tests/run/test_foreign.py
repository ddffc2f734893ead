"""A target that is not at hand: what is estimated for it, what was timed here, and that these stay apart."""

from __future__ import annotations

import sys

import pytest

import edgeprune
from edgeprune.errors import BudgetError
from edgeprune.report import render_table, words
from edgeprune.session.measurement_target import MeasurementTarget

UNIT = "estimated ms (roofline)"
SMALL = {
    "epochs": 0, "rounds": 1, "calibration": 64, "bench_seconds": 0.3, "front": 1, "int8": "off",
    "target": "rpi4",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(stripes, tmp_path_factory):
    """A plan for a Raspberry Pi 4 that is not there, with the files that were timed, in order."""
    net, data = stripes
    timed, time = [], MeasurementTarget.time

    def watched(self, paths, *args, **settings):
        timed.append([p.name for p in paths])
        return time(self, paths, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeasurementTarget, "time", watched)
        patch.setattr(sys.modules["edgeprune.run.prepare"], "staircase", lambda **k: pytest.fail("timed"))
        output = tmp_path_factory.mktemp("foreign") / "run"
        found = edgeprune.compress(net, data, speedup=1.5, why=True, output=output, **SMALL)
    return found, timed


def test_the_estimate_for_the_target_is_given_with_its_unit(run):
    """Dense and shipped stand in the report, the table and the page, as planning saw them, with the unit."""
    report = run[0].report
    found = report["estimate"]
    assert found["unit"] == UNIT and "nothing was measured" in found["source"]
    assert found["shipped"] <= found["dense"] / 1.5 * (1 + 1e-9)
    page = (run[0].folder / "report.html").read_text()
    for text in (render_table(report, width=200), page):
        assert f"{UNIT}, not measured" in text
        assert all(number in text for number in words.estimate(found))


def test_the_time_of_this_machine_is_never_the_targets(run):
    """Wherever the ratio is given this machine is named; no tile is green."""
    report = run[0].report
    latency = report["latency"]
    assert not latency["on_target"]
    page = (run[0].folder / "report.html").read_text()
    for text in (render_table(report, width=200), page):
        assert f"on {latency['where']}, not the target" in text
    assert 'class="card elsewhere"' in page and 'class="card faster"' not in page


def test_nothing_is_timed_while_planning_and_the_report_says_so(run):
    """Only files that hold the result are timed; the sentence names what the final table was timed on."""
    report, timed = run[0].report, run[1]
    assert timed and all("model.onnx" in names for names in timed)
    assert report["timing"]["planning"] == [] and report["rounds"][0]["timed"] == []
    where = report["latency"]["where"]
    said = f"timed while planning: nothing; the final table was timed on {where}, not the target"
    assert report["timing"]["text"] == said
    assert said in render_table(report, width=200)
    assert said.capitalize()[:30] in (run[0].folder / "report.html").read_text()


def test_what_holds_a_file_up_is_said_of_the_machine_that_was_timed(run):
    """Causes found on this machine are called this machine's."""
    report = run[0].report
    said = "where the time goes" if report["latency"]["ratio_high"] < 1 else "why not faster"
    causes = [note for note in report["notes"] if note.startswith(said)]
    where = report["latency"]["where"]
    assert causes and all(c.startswith(f"{said} on {where}, not the target: ") for c in causes)


def test_a_goal_that_is_met_already_is_said_to_be_by_the_estimate(stripes, tmp_path):
    """The network is shipped as it is, and the report says that the estimate had it within the goal."""
    net, data = stripes
    done = edgeprune.compress(net, data, target_ms=1000.0, output=tmp_path / "run", **{**SMALL, "front": 0})
    assert done.report["macs"]["dense"] == done.report["macs"]["shipped"]
    (said,) = [note for note in done.report["notes"] if "nothing had to be removed" in note]
    assert said.startswith("--target-ms 1000: ") and f"{UNIT}, not measured on the target" in said
    assert not any(note.startswith("why not faster") for note in done.report["notes"])


def test_a_floor_in_estimated_milliseconds_is_labelled(stripes, tmp_path):
    """Neither the message nor the tip offers an estimate as if it were a time."""
    net, data = stripes
    with pytest.raises(BudgetError, match=r"keeps .* of the latency") as caught:
        edgeprune.compress(net, data, target_ms=1e-6, output=tmp_path / "run", **SMALL)
    assert caught.value.message.endswith(f"; this is of {UNIT}, the target was not timed")
    assert caught.value.tip.startswith(f"in {UNIT}, use --target-ms ")
