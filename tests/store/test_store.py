"""The run folder: a record counts only when it is whole, and belongs to one request."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeprune.errors import OutputError, RunError
from edgeprune.store import RunFolder, write_json


def test_a_finished_stage_is_found_by_a_second_run(tmp_path):
    """JSON and arrays come back as they were."""
    RunFolder(tmp_path / "r", {"a": 1}).save("score", {"x": 1.5}, arrays={"v": np.arange(3)})
    again = RunFolder(tmp_path / "r", {"a": 1})
    assert again.load("score") == {"x": 1.5}
    assert again.arrays("score")["v"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["score.json", "score.npz"])
def test_a_changed_record_is_computed_again(tmp_path, name):
    """One flipped byte in any of a stage's files takes the stage back."""
    RunFolder(tmp_path, {}).save("score", {"x": 1}, arrays={"v": np.arange(3)})
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert RunFolder(tmp_path, {}).load("score") is None


def test_a_missing_file_takes_its_stage_back(tmp_path):
    """A stage vouches for files beside its record."""
    folder = RunFolder(tmp_path, {})
    (tmp_path / "model.bin").write_bytes(b"weights")
    folder.save("round", {}, files=("model.bin",))
    (tmp_path / "model.bin").unlink()
    assert RunFolder(tmp_path, {}).load("round") is None


def test_another_request_is_refused_and_names_the_difference(tmp_path):
    """Only --force may start over in a folder of another run."""
    RunFolder(tmp_path, {"seed": 0, "data": "a"})
    with pytest.raises(RunError, match=r"another request \(differs in: seed\); use --force"):
        RunFolder(tmp_path, {"seed": 1, "data": "a"})
    fresh = RunFolder(tmp_path, {"seed": 1, "data": "a"}, force=True)
    assert fresh.finished() == []


def test_force_never_clears_a_folder_that_is_not_a_run(tmp_path):
    """A home folder given by mistake keeps its files."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds files that are not a run's"):
        RunFolder(tmp_path, {}, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_one_clear_error(tmp_path):
    """The folder's name is taken by a file."""
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="a file is in the way"):
        RunFolder(tmp_path / "out", {})


def test_a_damaged_index_says_so(tmp_path):
    """A half-written stages.json of a foreign program is not silently ignored."""
    RunFolder(tmp_path, {})
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(RunError, match=r"stages\.json: is damaged .*--force"):
        RunFolder(tmp_path, {})


def test_json_never_holds_nan(tmp_path):
    """NaN is not JSON: it becomes null."""
    write_json(tmp_path / "x.json", {"loss": float("nan"), "list": [float("inf"), 1.0]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"loss": None, "list": [None, 1.0]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
