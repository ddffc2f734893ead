"""Results: readable rows beside compressed cells, written whole, read as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import recording
from benchmarks.criteria import bakeoff
from benchmarks.recording import content_hash, read_result, sources, write_result

RESULTS = Path(recording.RESULTS)


def test_what_is_written_is_read_and_equal_content_gives_equal_bytes(tmp_path):
    """The cells leave the readable file; writing the same again changes no byte, and git shows no diff."""
    path = tmp_path / "a.json"
    summary, bulk = {"benchmark": "a", "rows": [{"x": 1}, {"x": None}]}, {"cells": {"k": [1.5, "t"]}}
    write_result(path, summary, bulk)
    assert read_result(path) == {**summary, **bulk}
    assert "cells" not in json.loads(path.read_text())
    before = [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    write_result(path, summary, bulk)
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == before and len(before) == 2
    write_result(path, summary)
    assert read_result(path) == summary and len(list(tmp_path.iterdir())) == 1


def test_an_entry_in_both_files_and_numbers_that_are_not_finite(tmp_path):
    """The first is refused, the second becomes null: JSON has no NaN."""
    with pytest.raises(ValueError, match="written twice"):
        write_result(tmp_path / "a.json", {"rows": []}, {"rows": []})
    write_result(tmp_path / "a.json", {"rows": [{"x": float("nan")}]})
    assert read_result(tmp_path / "a.json")["rows"] == [{"x": None}]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda p: p.stem)
def test_every_result_is_readable_and_complete(path):
    """JSON files stay small enough to read; one that names cells has them."""
    assert path.stat().st_size < 64_000
    found = read_result(path)
    assert "cells_file" not in found


@pytest.mark.parametrize("path", sorted((RESULTS / "bakeoff").glob("*.json")), ids=lambda p: p.stem)
def test_rows_of_the_bake_off_are_those_of_its_cells(path):
    """A file that was edited, or committed without the other, would show rows that nobody measured."""
    found = read_result(path)
    assert found["rows"] == bakeoff.summary(found)["rows"] != []


def test_cells_of_two_processes_are_kept(tmp_path):
    """Each writes what it measured; neither loses the other's."""
    cell = {"accuracy": 90.0, "drop": 1.0, "macs": 0.5, "cpu_seconds": {"score": 1.0}, "differs": ""}
    header = {"net": "n", "dense": 91.0, "settings": {"test_samples": 4}}
    path = tmp_path / "n.json"
    for seed in (0, 1):
        bakeoff.write(path, header | {"cells": {bakeoff.key_of("l2", 0.5, seed, "none", "uniform"): cell}})
    found = bakeoff.read(path)
    assert len(found["cells"]) == 2 and found["rows"][0]["seeds"] == [0, 1]
    with pytest.raises(SystemExit, match="was measured with settings"):
        bakeoff.write(path, header | {"settings": {"test_samples": 5}, "cells": {}})


def test_a_hash_of_no_files_is_refused(tmp_path):
    """A folder that was renamed gave one hash for ever, and nothing went stale."""
    with pytest.raises(ValueError, match="no files"):
        content_hash([], tmp_path)
    with pytest.raises(ValueError, match="has no"):
        sources([tmp_path / "gone"])
    (tmp_path / "a.py").write_text("1")
    first = content_hash(sources([tmp_path]), tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert content_hash(sources([tmp_path]), tmp_path) != first
