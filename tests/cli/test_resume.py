"""A run that is stopped, killed, repeated or asked for something else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest
from shop import MODEL, QUICK, listing

from edgeprune.report import validate_report


def until(process, text):
    """Read stderr up to the line that holds `text`; the lines so far."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return "".join(seen)
    raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")


def partial(folder):
    return {name for name in listing(folder) if ".partial" in name or name.rsplit("/")[-1].startswith(".")}


@pytest.mark.timeout(600)
def test_a_run_that_was_stopped_and_killed_gives_the_same_plan(shop, finished, request_of_run):
    """Ctrl-C in round 1 exits 130, nothing half-written; after kill -9 in round 2 the plan is the same."""
    folder = shop.path / "broken"
    process = shop.start(*request_of_run, "-o", folder)
    until(process, "round 1: fine-tune")
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["exit_code"] == 130
    assert err.rstrip().rpartition("\n")[2].startswith("interrupted: ")
    assert "Traceback" not in err
    assert not partial(folder)
    assert "rounds/1" not in json.loads((folder / "stages.json").read_text())

    process = shop.start(*request_of_run, "-o", folder)
    until(process, "round 2: plan")
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "report.json").exists()
    assert "rounds/1" in json.loads((folder / "stages.json").read_text())

    again = shop.finish(*request_of_run, "-o", folder)
    assert again.code == 0, again.err
    assert "round 1: taken from" in again.err and "round 1: fine-tune" not in again.err
    whole, _ = finished
    assert json.loads((folder / "removed.json").read_text()) == json.loads(
        (whole / "removed.json").read_text()
    )
    assert (folder / "recipe.json").read_bytes() == (whole / "recipe.json").read_bytes()
    validate_report(json.loads((folder / "report.json").read_text()))
    assert listing(folder) == listing(whole)


def test_a_finished_run_returns_at_once(shop, finished, request_of_run):
    """The same command again does no work, says so, gives the same report and touches no file."""
    folder, first = finished
    before = {name: (folder / name).stat().st_mtime_ns for name in listing(folder)}
    began = time.process_time()
    again = shop.run(*request_of_run, "-o", folder)
    assert time.process_time() - began < 5.0  # of this process, in which the command runs
    assert again.code == 0 and "finished before; --force starts over" in again.err
    assert json.loads(again.out) == json.loads(first.out)
    assert {name: (folder / name).stat().st_mtime_ns for name in listing(folder)} == before


def test_another_request_in_the_same_folder_is_refused(shop, finished, request_of_run):
    """What differs is named, and the run that is there stays."""
    folder, _ = finished
    before = listing(folder)
    found = shop.run(*request_of_run, "--seed", "1", "-o", folder)
    found.refused(14, "RunError", "another request", "options", "--force")
    assert listing(folder) == before


@pytest.mark.timeout(300)
def test_force_starts_over_and_weights_alone_are_enough(shop, finished):
    """Without data the error offers --criterion l2 --macs 0.5, and exactly that works; --force clears."""
    folder = shop.path / "forced"
    shutil.copytree(finished[0], folder)
    plain = ("compress", *MODEL, *QUICK, "-o", folder)
    found = shop.run(*plain, "--force")
    found.refused(5, "DataError", "no data", "--criterion l2 --macs 0.5")
    assert listing(folder) == listing(finished[0])
    found = shop.run(*plain, "--force", "--criterion", "l2", "--macs", "0.5")
    assert found.code == 0, found.err
    report = json.loads((folder / "report.json").read_text())
    assert report["accuracy"] is None
    assert report["macs"]["shipped"] <= 0.5 * report["macs"]["dense"]
    assert not (folder / "dense.npz").exists()  # the old run's
    assert str(folder / "model.onnx") in found.out and "MACs" in found.out


def test_a_damaged_record_is_named(shop, finished, request_of_run):
    """A run folder whose request cannot be read is refused with the way on."""
    folder = shop.path / "changed"
    shutil.copytree(finished[0], folder)
    (folder / "run.json").write_text("{")
    found = shop.run(*request_of_run, "-o", folder)
    found.refused(14, "RunError", "run.json", "damaged", "--force")
