"""The file fuzzer: inputs are repeatable, limits end what breaks them, counts are kept from run to run."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tracemalloc
import zipfile

import numpy as np
import onnx
import onnx.parser
import pytest

from benchmarks.fuzz import files, mutations
from benchmarks.fuzz.kinds import KINDS
from benchmarks.fuzz.mutations import STRUCTURED, mutate
from benchmarks.fuzz.worker import outcome
from edgeprune.errors import DataError

PROGRAM = """
import json, sys, time
for line in sys.stdin:
    kind = json.loads(line)["kind"]
    if kind == "hang": time.sleep(60)
    if kind == "end": sys.exit(7)
    held = bytearray(300 << 20) if kind == "large" else b""
    for at in range(0, len(held), 4096): held[at] = 1
    if kind == "large": time.sleep(1)
    row = {"kind": kind, "index": 0, "outcome": "accepted", "seconds": 0.0, "peak_mib": 1}
    print(json.dumps(row), flush=True)
"""


def example(suffix):
    """A small valid file of a format."""
    if suffix == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, x=np.zeros((3, 2), np.float32))
        return buffer.getvalue()
    if suffix == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((3, 2), np.float32))
        return buffer.getvalue()
    if suffix == "toml":
        return b'name = "x"\n[cpu]\ncores = 4\n'
    return json.dumps({"a": [1, 2.5, {"b": "c"}], "d": None}).encode()


@pytest.mark.parametrize("suffix", ["npz", "npy", "toml", "json"])
def test_a_seed_fixes_the_input_and_seeds_differ(suffix):
    """A failure is named by its number alone; half of the seeds at least change the file each in its way."""
    content = example(suffix)
    made = [mutate(content, f"x.{suffix}", random.Random(f"{suffix}/{i}")) for i in range(60)]
    assert made == [mutate(content, f"x.{suffix}", random.Random(f"{suffix}/{i}")) for i in range(60)]
    assert len({*made} - {content}) >= 30


def test_structured_changes_reach_behind_the_parser():
    """Most changed archives and JSON documents still open: else only parsers would be tested."""
    content, opened = example("npz"), 0
    (change,) = STRUCTURED["npz"]
    for seed in range(40):
        try:
            zipfile.ZipFile(io.BytesIO(change(content, random.Random(seed)))).testzip()
            opened += 1
        except zipfile.BadZipFile:
            pass
    assert opened >= 35
    (change,) = STRUCTURED["json"]
    parsed = []
    for seed in range(40):
        with contextlib.suppress(ValueError, RecursionError):
            parsed.append(json.loads(change(example("json"), random.Random(seed))))
    assert len(parsed) >= 35
    assert sum(value != json.loads(example("json")) for value in parsed) >= 30


def test_a_bomb_is_written_and_changed_in_little_memory(monkeypatch):
    """The fuzzer inflated its own bombs to change them once more, and blamed the tool for the memory."""
    monkeypatch.setattr(mutations, "BOMB", 128 << 20)
    (change,) = STRUCTURED["npz"]
    made = (change(example("npz"), random.Random(seed)) for seed in range(2000))
    content = next(c for c in made if len(c) > 10**5)
    assert zipfile.ZipFile(io.BytesIO(content)).infolist()[0].file_size > mutations.BOMB
    tracemalloc.start()
    for seed in range(20):
        change(content, random.Random(seed))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_every_number_changes_an_onnx_file():
    """A closed enumeration refused -1 and ended the fuzzer 40 inputs before its end."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[1] x) => (float[1] y) {y = Softmax <axis = -1> (x)}'
    )
    content = model.SerializeToString()
    for seed in range(600):
        for change in STRUCTURED["onnx"]:
            onnx.load_model_from_string(change(content, random.Random(seed)))


def raises(error):
    def act(folder):
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("x"), "refused"),
        (ValueError("x"), "failed"),
        (EOFError(), "failed"),
        (SystemExit(3), "failed"),
    ],
)
def test_only_the_tools_own_errors_are_refusals(monkeypatch, tmp_path, error, expected):
    """A ValueError would be a traceback for a user."""
    kind = files.KINDS["npz"]
    monkeypatch.setitem(KINDS, "npz", type(kind)(kind.files, kind.needs, raises(error)))
    row = outcome("npz", tmp_path)
    assert row["outcome"] == expected
    assert expected == "refused" or row["where"]


@pytest.mark.parametrize(("kind", "where"), [("hang", "time"), ("large", "memory"), ("end", "process")])
def test_what_breaks_a_limit_is_ended_and_failed(tmp_path, kind, where):
    """An input that hangs, takes too much or ends the process is a failure with that reason."""
    worker = files.Worker(tmp_path, ("-c", PROGRAM))
    try:
        assert worker.ask({"kind": "fine"}, 60, 4096)["outcome"] == "accepted"
        worker.baseline = 20.0
        row = worker.ask({"kind": kind}, 3, 100)
        assert (row["outcome"], row["where"]) == ("failed", where)
        assert not worker.alive()
    finally:
        worker.close()
    assert not worker.scratch.exists()


def test_a_run_goes_on_where_the_result_ends():
    """Numbers follow on; the share of each kind holds for the whole, not for the last run."""
    first = files.schedule(100, ["npz", "mask"], {})
    assert sorted(i for k, i in first if k == "mask") == list(range(40))
    assert sorted(i for k, i in first if k == "npz") == list(range(60))
    rest = files.schedule(200, ["npz", "mask"], {"npz": 60, "mask": 40})
    assert sorted(i for k, i in rest if k == "mask") == list(range(40, 80))
    assert files.schedule(100, ["npz", "mask"], {"npz": 60, "mask": 40}) == []


def test_failures_are_counted_by_place_and_the_result_is_read_back(monkeypatch, tmp_path):
    """Three inputs of a place are kept, all are counted."""
    kept = []
    monkeypatch.setattr(files, "keep", lambda row, seeds: kept.append(row["index"]) or "somewhere")
    monkeypatch.setattr(files, "RESULT", tmp_path / "fuzz_files.json")
    found = files.read()
    for index in range(5):
        row = {"kind": "npz", "index": index, "outcome": "failed", "what": "x", "where": "a.py:1 f"}
        files.enter(found, row | {"seconds": 0.5, "peak_mib": 100}, tmp_path)
    files.enter(
        found, {"kind": "npz", "index": 5, "outcome": "refused", "seconds": 2.0, "peak_mib": 50}, tmp_path
    )
    files.write(found)
    assert kept == [0, 1, 2]
    written = json.loads((tmp_path / "fuzz_files.json").read_text())
    (row,) = written["rows"]
    assert row == {
        "kind": "npz", "inputs": 6, "accepted": 0, "refused": 1, "failures": 5, "peak_mib": 100,
        "slowest_seconds": 2.0,
    }  # fmt: skip
    assert written["failing"][0]["times"] == 5
    assert files.read() == found
