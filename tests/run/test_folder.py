"""A request that was refused leaves no folder behind; work that was begun is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeprune.session.identity import object_identity
from edgeprune.store import RunFolder
from edgeprune.tasks.generic import Generic


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


class Plain:
    """A task of a user that is no dataclass, with a setting."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.metric = max


def test_a_task_object_is_part_of_the_identity_of_a_run():
    """It goes to JSON, and objects of other settings or classes are other requests."""
    texts = [
        json.dumps(object_identity(task)) for task in (Plain(1.0), Plain(1.0), Plain(2.0), Generic(), None)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4
