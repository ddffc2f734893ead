"""A request that was refused leaves no folder behind; work that was begun is kept."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.store import RunFolder


def test_a_refused_request_takes_its_folder_back(tmp_path):
    """The next request, another one, finds the place free."""
    RunFolder(tmp_path / "r", {"a": 1}).abandon()
    assert not (tmp_path / "r").exists()
    RunFolder(tmp_path / "r", {"a": 2})


@pytest.mark.parametrize("finished", [True, False])
def test_begun_work_is_not_thrown_away(tmp_path, finished):
    """After a stage was written, whole or in part, the same request opens the folder again."""
    folder = RunFolder(tmp_path / "r", {"a": 1})
    if finished:
        folder.save("dense", {"x": 1}, arrays={"v": np.arange(3)})
    else:
        (tmp_path / "r" / "dense.json").write_text("{}")
    folder.abandon()
    again = RunFolder(tmp_path / "r", {"a": 1})
    assert (again.load("dense") == {"x": 1}) is finished
