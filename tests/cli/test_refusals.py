"""Bad input through the command line: one clear sentence, its own exit code, nothing half-written."""

from __future__ import annotations

import json
import pickle
import warnings

import archives
import numpy as np
import pytest
import torch
from shop import HALF, MODEL, QUICK, listing, small_disk

ATTACKS = (*archives.FIRES_ON_LOAD, *archives.FIRES_ON_USE, *archives.OTHERS)
SMALL = ("--model", "shopnet:build", "--input-shape", "1,8,8")
COMPRESS = ("compress", *MODEL, *QUICK, *HALF)


@pytest.fixture(autouse=True)
def untouched(shop):
    """Nothing appears in the shop but what a test wrote itself and reports in `written`."""
    yield
    stray = [n for n in listing(shop.path) if ".partial" in n or ".probe" in n]
    assert not stray


def refuse_model(shop, name, code, kind, *words, more=SMALL):
    """Every command that takes a model refuses this one alike, and writes nothing."""
    for command in (("inspect",), ("export", "-o", "no.onnx"), ("compress", *HALF, "-o", "no")):
        shop.run(command[0], name, *more, *command[1:]).refused(code, kind, name, *words)
    assert not (shop.path / "no.onnx").exists() and not (shop.path / "no").exists()


def test_a_model_that_is_not_there(shop):
    """Missing: named. A folder in its place: its contents named."""
    refuse_model(shop, "absent.pt", 3, "ModelError", "no such file")
    (shop.path / "folder.pt").mkdir(exist_ok=True)
    refuse_model(shop, "folder.pt", 3, "ModelError", "is a folder")


def test_a_model_that_is_damaged(shop):
    """Empty, and truncated weights and programs: told apart from a wrong type."""
    (shop.path / "empty.pt").write_bytes(b"")
    refuse_model(shop, "empty.pt", 3, "ModelError", "empty")
    weights, program = (shop.path / n for n in ("weights.pt", "net.pt2"))
    for source, name in ((weights, "short.pt"), (program, "short.pt2")):
        content = source.read_bytes()
        (shop.path / name).write_bytes(content[: len(content) // 2])
        refuse_model(shop, name, 3, "ModelError", more=SMALL if name.endswith(".pt") else ())


def test_a_model_of_the_wrong_type(shop):
    """Data, text and TorchScript given as a model: named, with what to give instead."""
    (shop.path / "note.pt").write_text("these are not the weights")
    refuse_model(shop, "note.pt", 3, "ModelError", "no known kind")
    refuse_model(shop, "digits.npz", 3, "ModelError")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), shop.path / "script.pt")
    refuse_model(shop, "script.pt", 3, "ModelError", "TorchScript", "torch.export.save", more=())


def test_a_pickled_module_is_not_unpickled(shop):
    """A whole module names its class and the ways on: --trust-pickle, --model, torch.export.save."""
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), shop.path / "whole.pt")
    words = ("Sequential", "--trust-pickle", "--model", "torch.export.save")
    refuse_model(shop, "whole.pt", 4, "UnsafeModelError", *words, more=())
    marker = shop.path / "ran"
    (shop.path / "bomb.pt").write_bytes(pickle.dumps(archives.Bomb(marker)))
    found = shop.run("inspect", "bomb.pt")
    assert found.code in (3, 4) and "Traceback" not in found.err and not marker.exists()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_a_hostile_program_is_refused_and_not_run(shop, attack):
    """Each kind of hostile .pt2: the file is named, its payload does not run, and the code says unsafe."""
    marker = shop.path / "ran"
    members = archives.members_of(archives.saved(archives.small_program()))
    (shop.path / "hostile.pt2").write_bytes(archives.pack(attack(members, marker)))
    found = shop.run("inspect", "hostile.pt2")
    assert not marker.exists()
    if attack is archives.guard_code:  # dropped, not used: what is left is the plain program
        assert found.code == 0
        return
    found.refused(4, "UnsafeModelError", "hostile.pt2")


def test_weights_that_do_not_fit(shop):
    """Another network's factory, none at all, no shape: counts, names and the next step."""
    more = ("--model", "shopnet:other", "--input-shape", "1,8,8")
    refuse_model(shop, "weights.pt", 3, "ModelError", "does not fit", "missing", "unexpected", more=more)
    refuse_model(shop, "weights.pt", 3, "ModelError", "--model", "--input-shape", more=())
    refuse_model(shop, "weights.pt", 3, "ModelError", "--input-shape", more=("--model", "shopnet:build"))
    for factory in ("shopnet:biuld", "shopnett:build"):
        found = shop.run("inspect", "weights.pt", "--model", factory, "--input-shape", "1,8,8")
        found.refused(3, "ModelError", f"--model {factory}")
    found = shop.run("inspect", "weights.pt", "--model", "shopnet:build", "--input-shape", "1,eight,8")
    found.refused(3, "ModelError", "--input-shape 1,eight,8")


def broken_data(shop):
    """Data of every kind of defect: arrays and the words of the refusal."""
    x, y = shop.x[:200], shop.y[:200]
    nan = x.copy()
    nan[17, 0, 3, 3] = np.nan
    beyond = y.copy()
    beyond[3] = 10
    return {
        "nan": ({"x": nan, "y": y}, "sample 17 holds NaN"),
        "wrong shape": ({"x": x[:, :, :7], "y": y}, "7"),
        "one class": ({"x": x, "y": np.zeros_like(y)}, "two classes"),
        "label out of range": ({"x": x, "y": beyond}, "10 outputs"),
        "negative label": ({"x": x, "y": y - 1}, "label"),
        "fewer samples than classes": ({"x": x[:8], "y": np.array([0, 1, 2, 3, 4, 5, 6, 9])}, "8 samples"),
        "lengths": ({"x": x, "y": y[:-1]}, "199"),
        "none": ({"x": x[:0], "y": y[:0]}, "sample"),
    }


@pytest.mark.parametrize("defect", [
    "nan", "wrong shape", "one class", "label out of range", "negative label",
    "fewer samples than classes", "lengths", "none",
])  # fmt: skip
def test_data_that_cannot_be_used(shop, defect):
    """NaN, shape, classes, labels, lengths: the sample or both sides are named; no run folder is left."""
    arrays, words = broken_data(shop)[defect]
    shop.data("bad.npz", **arrays)
    found = shop.run(*COMPRESS, "--data", "bad.npz", "-o", "bad-run")
    found.refused(5, "DataError", "bad.npz", words)
    assert not (shop.path / "bad-run").exists()


def test_data_that_is_not_there(shop):
    """A missing file, a text file and a function that does not exist."""
    (shop.path / "note.npz").write_text("not data")
    for spec in ("absent.npz", "note.npz", "shopnet:load"):
        shop.run(*COMPRESS, "--data", spec, "-o", "bad-run").refused(5, "DataError", spec)
    assert not (shop.path / "bad-run").exists()


def test_a_budget_that_cannot_be_met(shop):
    """Below the floor: what was asked, what has to stay, why, and what would work; nothing is left."""
    for asked in (("--macs", "0.001"), ("--params", "1000x")):
        found = shop.run("compress", *MODEL, *QUICK, "--data", "digits.npz", *asked, "-o", "tight")
        found.refused(6, "BudgetError", asked[0], "has to stay", "pinned", "use " + asked[0])
    for text in ("0", "1.5", "half", "0.5x", "-2x", "nan"):
        shop.run("compress", *MODEL, "--macs", text).refused(6, "BudgetError", f"--macs {text}")


def test_a_drop_that_no_network_keeps_to(shop):
    """A negative allowance is no budget; click names the option and the range."""
    found = shop.run("compress", *MODEL, *QUICK, "--data", "digits.npz", "--max-drop", "-50", "-o", "strict")
    assert found.code == 2 and "'--max-drop': -50.0 is not in the range" in found.err


def test_an_output_that_cannot_be_written(shop):
    """A file where the folder should be, a folder where the file should be, somebody else's folder."""
    (shop.path / "taken").write_text("mine")
    found = shop.run(*COMPRESS, "--data", "digits.npz", "-o", "taken")
    found.refused(7, "OutputError", "taken", "a file is in the way")
    assert (shop.path / "taken").read_text() == "mine"
    for command in ("prune", "export", "score"):
        more = {"prune": ("--macs", "0.5", "--criterion", "l2"), "score": ("--criterion", "l2")}
        asked = (command, *MODEL, *more.get(command, ()))
        shop.run(*asked, "-o", shop.path).refused(7, "OutputError", "folder")
        shop.run(*asked, "-o", "taken/below").refused(7, "OutputError", "taken/below")
    other = shop.path / "theirs"
    other.mkdir(exist_ok=True)
    (other / "thesis.tex").write_text("precious")
    found = shop.run(*COMPRESS, "--data", "digits.npz", "--force", "-o", "theirs")
    found.refused(7, "OutputError", "not a run's")
    assert listing(other) == {"thesis.tex"}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("score", *MODEL, "--criterion", "l2"), "full.npz"),
        (("prune", *MODEL, "--macs", "0.5", "--criterion", "l2"), "full.pt2"),
        (("export", *MODEL), "full.onnx"),
    ],
)
def test_a_full_disk_leaves_what_was_there(shop, command, name):
    """A file that cannot grow is one sentence and code 7; the file of before is whole, no part is left."""
    (shop.path / name).write_bytes(b"before")
    known = listing(shop.path)
    with small_disk(2048):
        found = shop.run(*command, "-o", name)
    found.refused(7, "OutputError", "cannot write")
    assert (shop.path / name).read_bytes() == b"before"
    assert listing(shop.path) == known


def test_a_full_disk_stops_a_run_that_goes_on_later(shop):
    """compress on a full disk ends with code 7 and keeps finished steps; with room again it finishes.

    The data has no labels: then the budget and the report are about agreement with the dense model.
    """
    shop.data("plain.npz", x=shop.x)
    asked = ("compress", *MODEL, *QUICK, "--epochs", "0", "--macs", "0.6", "--rounds", "1")
    asked = (*asked, "--task", "classification", "--data", "plain.npz", "-o", "cramped")
    with small_disk(12_000):
        found = shop.run(*asked)
    found.refused(7, "OutputError", "cannot write")
    folder = shop.path / "cramped"
    assert not (folder / "report.json").exists()
    again = shop.run(*asked)
    assert again.code == 0, again.err
    report = json.loads((folder / "report.json").read_text())
    assert report["accuracy"]["measured_as"] == "same class as the dense model"
    assert report["accuracy"]["dense"]["value"] == 1.0
    assert 0.5 < report["accuracy"]["shipped"]["value"] <= 1.0
    assert "same class as the dense model" in again.out


def test_ctrl_c_in_a_short_command(shop, monkeypatch):
    """An interrupt anywhere is code 130 and one line, not a traceback."""
    import edgeprune.run.analysis as analysis

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "open_trace", stop)
    found = shop.run("export", *MODEL, "-o", "never.onnx")
    assert found.code == 130 and found.last.startswith("interrupted") and "Traceback" not in found.err
    assert not (shop.path / "never.onnx").exists()


def test_options_that_make_no_sense(shop):
    """Usage errors are code 2 and name the option; unknown names offer the nearest."""
    shop.data("beyond.npz", x=shop.x[:50], y=shop.y[:50] + 10)
    for asked, words in (
        (("--metric", "acuracy"), "acuracy"),
        (("--metric", "shopnet:loss"), "share from 0 to 1"),
        (("--eval-data", "digits.npz"), "NAME=DATA"),
        (("--eval-data", "odd=beyond.npz"), "10 outputs"),
        (("--criterion", "ib-gaus"), "ib-gauss"),
        (("--theta", "0.3"), "--criterion ib-gauss has no θ"),
        (("--target", "rpi44"), "rpi4"),
        (("--keep", "nothing"), "nothing"),
    ):
        found = shop.run(*COMPRESS, "--data", "digits.npz", *asked, "-o", "odd-run")
        assert found.code not in (0, 1) and words in found.err and "Traceback" not in found.err, found.err
        assert not (shop.path / "odd-run").exists()


@pytest.mark.parametrize(
    ("asked", "kind", "code"),
    [
        (("inspect", "absent.pt2"), "ModelError", 3),
        (("inspect",), "MissingParameter", 2),
        (("score", *MODEL, "--criterion", "ib-gaus"), "CriterionError", 16),
        (("score", *MODEL, "--criterion", "l2", "--theta", "0.5"), "CriterionError", 16),
        (
            ("prune", *MODEL, "--macs", "0.5", "--criterion", "fpgm", "--theta", "1", "-o", "no.pt2"),
            "CriterionError",
            16,
        ),
        (("prune", *MODEL, "--macs", "0.001", "--criterion", "l2", "-o", "no.pt2"), "BudgetError", 6),
        (("export", *MODEL, "-o", "taken-too/below.onnx"), "OutputError", 7),
        (("bench", "absent.onnx"), "BenchError", 11),
        (("explain", "absent", "0:1"), "RunError", 14),
        (("targets", "rpi44"), "TargetError", 8),
    ],
)
def test_a_failure_is_json_where_json_was_asked_for(shop, asked, kind, code):
    """With --json stdout is one document on failure too, with the sentence that stderr holds."""
    (shop.path / "taken-too").write_text("mine")
    found = shop.run(*asked, "--json")
    error = json.loads(found.out)["error"]
    assert (error["type"], error["exit_code"], found.code) == (kind, code, code)
    assert error["message"] in found.err and error["tip"] in found.err
    assert not shop.run(*asked).out, "without --json a failure leaves stdout empty"


def test_a_shape_that_an_exported_program_does_not_take(shop):
    """--input-shape is refused where it contradicts the program, and taken where it agrees."""
    shop.run("inspect", "net.pt2", "--input-shape", "3,3").refused(
        3, "ModelError", "--input-shape 3,3", "net.pt2", "takes 1,8,8"
    )
    assert shop.run("inspect", "net.pt2", "--input-shape", "1,8,8").code == 0
