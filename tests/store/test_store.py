"""The run folder: a record counts only when it is whole, and belongs to one request."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from edgeprune import store
from edgeprune.errors import OutputError, RunError
from edgeprune.store import RunFolder, read_record, whole_folder, write_json


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


@pytest.mark.parametrize("name", ["run.json", "stages.json"])
@pytest.mark.parametrize("content", ["[]", "7", "null", '"run"', "[" * 100_000, '{"dense": 3}', "\xff"])
def test_records_of_another_kind_are_one_line(tmp_path, name, content):
    """Lists, numbers, deep nesting, undecodable bytes: damaged, with the way out, never a traceback."""
    RunFolder(tmp_path, {"a": 1})
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=r"damaged|another request") as caught:
        RunFolder(tmp_path, {"a": 1})
    assert "--force" in caught.value.tip
    assert "\n" not in str(caught.value)
    RunFolder(tmp_path, {"a": 1}, force=True)


def test_a_request_that_is_no_table_is_another_request(tmp_path):
    """run.json with a list for its request."""
    RunFolder(tmp_path, {"a": 1})
    (tmp_path / "run.json").write_text('{"schema": 1, "request": [1]}')
    with pytest.raises(RunError, match="differs in: a"):
        RunFolder(tmp_path, {"a": 1})


def test_a_deeply_nested_record_is_damaged(tmp_path):
    """`pick` and `explain` read records of finished runs."""
    (tmp_path / "report.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="nested too deeply"):
        read_record(tmp_path / "report.json")


def test_a_leftover_alone_does_not_make_a_folder_unusable(tmp_path):
    """A run that was killed while it wrote run.json left nothing else."""
    (tmp_path / ".run.json.partial").write_text("{")
    (tmp_path / ".probe").write_text("0")
    RunFolder(tmp_path, {"a": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path):
    """Temporary files and folders of writers that are gone; a user's hidden files stay."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    RunFolder(tmp_path, {"a": 1})
    (tmp_path / "rounds").mkdir()
    leftovers = [".model.onnx.k3j2_1ab", f".front.{gone.pid}"]
    for name in leftovers:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    for name in (".dense.json.partial", "rounds/.1.npz.partial.npz", f".mask.npz.{gone.pid}.partial"):
        (tmp_path / name).write_text("")
    stay = [".gitignore", ".git", f".front.{os.getpid()}", ".config.settings", "rounds"]
    (tmp_path / ".gitignore").write_text("*")
    (tmp_path / ".config.settings").write_text("")
    for name in (".git", f".front.{os.getpid()}"):
        (tmp_path / name).mkdir()
    RunFolder(tmp_path, {"a": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*stay, "run.json"])
    assert list((tmp_path / "rounds").iterdir()) == []


def test_leftovers_in_a_folder_that_is_no_run_are_not_touched(tmp_path):
    """A folder given by mistake keeps its files, hidden ones too."""
    (tmp_path / ".run.json.partial").write_text("")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not a run's"):
        RunFolder(tmp_path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".run.json.partial", "thesis.tex"]


def test_force_does_not_follow_a_link(tmp_path):
    """`--force` on a link to a run: the run stays, and the folder itself is asked for."""
    RunFolder(tmp_path / "run", {"a": 1})
    (tmp_path / "link").symlink_to("run")
    with pytest.raises(OutputError, match="a link to run, which is never removed"):
        RunFolder(tmp_path / "link", {"a": 2}, force=True)
    assert (tmp_path / "run" / "run.json").is_file()
    RunFolder(tmp_path / "link", {"a": 1})  # without --force a link is as good as the folder


def test_force_does_not_empty_a_mount_point(tmp_path, monkeypatch):
    """A volume that is mounted there is not the run's to remove."""
    RunFolder(tmp_path / "run", {"a": 1})
    monkeypatch.setattr(store.os.path, "ismount", lambda path: True)
    with pytest.raises(OutputError, match="a mount point, which is never removed"):
        RunFolder(tmp_path / "run", {"a": 2}, force=True)
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.parametrize("name", ["x" * 300, os.fsdecode(b"caf\xe9")], ids=["long", "not utf-8"])
def test_a_folder_name_that_cannot_be_made_is_one_line(tmp_path, name):
    """Typed and printable, for runs and for bundles."""
    with pytest.raises(OutputError, match="--output") as caught:
        RunFolder(tmp_path / name, {})
    str(caught.value).encode("utf-8")
    with pytest.raises(OutputError), whole_folder(tmp_path / name):
        pass


def test_a_pipe_in_the_way_is_named(tmp_path):
    """Neither opened nor replaced."""
    os.mkfifo(tmp_path / "run")
    with pytest.raises(OutputError, match="FIFO"):
        RunFolder(tmp_path / "run", {})
    RunFolder(tmp_path / "ok", {})
    (tmp_path / "ok" / "stages.json").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "ok" / "stages.json")
    with pytest.raises(RunError, match="FIFO"):
        RunFolder(tmp_path / "ok", {})
