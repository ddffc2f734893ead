"""The board's side without a connection: a release that was rolled back is not come back to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from edgeprune.deploy import agent

A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """A folder for releases whose models are not run."""
    (tmp_path / "releases").mkdir()
    monkeypatch.setattr(agent, "prove", lambda folder, identity: {"ok": True, "why": "", "max_abs": 0.0})
    return tmp_path


def ship(base: Path, name: str) -> None:
    folder = base / "releases" / name
    folder.mkdir(exist_ok=True)
    (folder / agent.MANIFEST).write_text(json.dumps({"name": name[0], "files": {}}))
    request = {"path": str(base), "id": name, "keep": 5, "files": []}
    agent.release(request, io.BytesIO())


def back(base: Path) -> str:
    return str(agent.rollback({"path": str(base)}, io.BytesIO())["current"])


def test_a_release_that_was_rolled_back_leaves_the_history(base):
    """History A, B, A, B: one rollback gives A, and no further one gives B again."""
    for name in (A, B, A, B):
        ship(base, name)
    assert back(base) == A and agent.current_of(base) == A
    assert agent.history_of(base) == [A]
    with pytest.raises(agent.Refused, match="no earlier release"):
        back(base)
    assert agent.current_of(base) == A


def test_rollbacks_go_back_through_the_releases_that_were_good(base):
    """A, B, C, B: B is bad, so C comes back, then A; shipped again, B is a release like any other."""
    for name in (A, B, C, B):
        ship(base, name)
    assert [back(base), back(base)] == [C, A]
    ship(base, B)
    assert back(base) == A
