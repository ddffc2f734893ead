"""Profiles by operator and the words made of them: matching, sums, causes, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeprune.cli.bench import bench
from edgeprune.errors import BenchError
from edgeprune.export.onnx_nodes import graph_layers
from edgeprune.measure.operators import HostTimer, layer_times, profile_operators
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.staircase import Staircase
from edgeprune.measure.why import compare_profiles, run_report
from edgeprune.records import FileProfile, LayerSize, OperatorProfile, OperatorTime, to_json


def convs(path: Path, width: int, *, named: bool = True) -> Path:
    """Conv 3 → width, ReLU, Conv width → width, Add, mean, Gemm width → 5, on 16×16 with a free batch."""
    rng = np.random.default_rng(0)
    weights = {
        "first.weight": rng.standard_normal((width, 3, 3, 3)).astype(np.float32),
        "second.weight": rng.standard_normal((width, width, 3, 3)).astype(np.float32) / width,
        "head.weight": rng.standard_normal((5, width)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    rows = [
        ("Conv", ["x", "first.weight"], "a", {"pads": [1] * 4}),
        ("Relu", ["a"], "b", {}),
        ("Conv", ["b", "second.weight"], "c", {"pads": [1] * 4}),
        ("Add", ["c", "b"], "d", {}),
        ("ReduceMean", ["d", "axes"], "e", {"keepdims": 0}),
        ("Gemm", ["e", "head.weight"], "y", {"transB": 1}),
    ]
    nodes = [
        helper.make_node(kind, ins, [out], name=f"node_{out}" if named else "", **more)
        for kind, ins, out, more in rows
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5]),
    ]
    stored = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> OperatorProfile:
    """32 channels against 16, the second without node names."""
    folder = tmp_path_factory.mktemp("profiles")
    files = [convs(folder / "wide.onnx", 32), convs(folder / "narrow.onnx", 16, named=False)]
    return profile_operators(BenchRequest(tuple(files), seconds=0.6))


def test_layers_are_counted_as_the_files_have_them(measured):
    """Multiply-adds follow from shapes that ran, with the free batch at 1."""
    wide, narrow = measured.files
    assert [(x.name, x.macs, x.inputs, x.width) for x in wide.layers] == [
        ("first", 16 * 16 * 32 * 27, 3, 32),
        ("second", 16 * 16 * 32 * 32 * 9, 32, 32),
        ("head", 5 * 32, 32, 5),
    ]
    assert [x.macs for x in narrow.layers] == [16 * 16 * 16 * 27, 16 * 16 * 16 * 16 * 9, 5 * 16]


def test_every_layer_is_found_in_the_optimised_graph(measured):
    """Fused and renamed operators lead back to their layers; each layer is computed once and has time."""
    for file in measured.files:
        computed = [row.layer for row in file.operators if row.layer is not None]
        assert sorted(computed) == ["first", "head", "second"]
        assert all(row.serves is not None for row in file.operators)
        assert all(us > 0 for us in layer_times(file).values())


@pytest.mark.timing
def test_operators_add_up_to_an_inference(measured):
    """With the profiler's cost taken off, the operators take the time of an inference, more or less."""
    for file in measured.files:
        total = sum(row.us for row in file.operators)
        assert 0.4 * file.total_us < total < 1.3 * file.total_us


def test_the_machine_is_described(measured):
    """Copies get no faster with size, an operator costs something, the runtime's version is there."""
    rates = [rate for _, rate in measured.bandwidth]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0.1
    assert 0 < measured.overhead_us < 100
    assert measured.machine["onnxruntime"] and json.dumps(to_json(measured))


def profile(*sides: dict[str, tuple[int, int, float]], bytes_: int = 1000) -> OperatorProfile:
    """A made-up profile: layer → (multiply-adds, width, µs) per file; 10 GB/s, 0.5 µs an operator."""
    files = []
    for n, side in enumerate(sides):
        rows = tuple(OperatorTime(k, "Conv", k, k, us, bytes_, (1,)) for k, (_, _, us) in side.items())
        sizes = tuple(LayerSize(k, "Conv", m, w, w, 4, False) for k, (m, w, _) in side.items())
        files.append(FileProfile(str(n), sum(r.us for r in rows), rows, sizes))
    return OperatorProfile(tuple(files), ((1 << 30, 10.0),), 0.5, {}, 1, 1)


def stairs(cost: float) -> Staircase:
    """Widths of residue 6 cost `cost` of the next multiple of 8."""
    times = {38: cost, 40: 1.0, 46: cost, 48: 1.0}
    return Staircase("p", "v", 1, {w: (t, t, t) for w, t in times.items()}, 8)


def test_a_layer_that_did_not_shrink_is_named_with_the_runs_reason():
    """The reason is the report's: its pinned channels, or that the plan kept them."""
    found = profile(
        {"a": (1000, 64, 50.0), "b": (1000, 64, 50.0)}, {"a": (1000, 64, 50.0), "b": (500, 32, 25.0)}
    )
    report = {
        "layers": [{"name": "a", "before": 64, "after": 64}, {"name": "b", "before": 64, "after": 32}],
        "pinned": [{"name": "", "channels": 64, "reason": "aten.foo has no rule"}],
    }
    (cause,) = compare_profiles(found, report).causes
    assert (
        cause == "a did not shrink: the run pins 64 channels, aten.foo has no rule; it takes 67% of the time"
    )
    report["pinned"] = []
    assert "the plan kept all its channels" in compare_profiles(found, report).causes[0]


def test_a_width_off_the_measured_staircase_is_named():
    """38 channels at the cost of 1.6 times 40: the layer saved multiply-adds and no time."""
    found = profile({"a": (1000, 64, 50.0)}, {"a": (350, 38, 50.0)})
    told = compare_profiles(found, None, stairs(1.6))
    assert "fall off the runtime's blocks, 1.60×" in told.causes[0]
    assert told.layers[0].misaligned == pytest.approx(1.6) and told.layers[0].lost_us == pytest.approx(32.5)
    assert compare_profiles(found, None, stairs(1.0)).layers[0].misaligned is None


def test_widths_that_nobody_chose_are_not_called_misaligned():
    """A grey image has one channel before and after; only the 46 that were left are to blame, or nothing."""
    stair = Staircase("p", "v", 1, {w: (t, t, t) for w, t in {45: 1.6, 46: 1.0, 48: 1.0}.items()}, 8)

    def conv(inputs, width, us):
        row = OperatorTime("a", "Conv", "a", "a", us, 1000, (1,))
        return FileProfile("f", us, (row,), (LayerSize("a", "Conv", width * 10, inputs, width, 4, False),))

    def told(*files):
        return compare_profiles(OperatorProfile(files, ((1 << 30, 10.0),), 0.5, {}, 1, 1), None, stair)

    same = told(conv(1, 32, 50.0), conv(1, 16, 50.0))
    assert same.layers[0].misaligned is None and "blocks" not in same.causes[0]
    assert told(conv(32, 64, 50.0), conv(21, 64, 50.0)).layers[0].misaligned == pytest.approx(1.6)
    assert told(conv(32, 64, 50.0), conv(32, 1, 50.0)).layers[0].misaligned is None


def test_memory_and_overhead_are_told_apart():
    """500 kB at 10 GB/s fill 50 µs; an operator of 0.6 µs is mostly its start."""
    slow = compare_profiles(profile({"a": (1000, 64, 50.0)}, {"a": (500, 64, 50.0)}, bytes_=500_000))
    assert slow.layers[0].bound == "memory" and "speed of a copy" in slow.causes[0]
    short = compare_profiles(profile({"a": (1000, 64, 0.6)}, {"a": (500, 64, 0.6)}, bytes_=10))
    assert short.layers[0].bound == "overhead" and "starting its operators" in " ".join(short.causes)


def test_layers_that_only_one_file_has_are_shown():
    """A layer that went is in the table with nothing after; one that came has nothing before."""
    told = compare_profiles(profile({"a": (10, 8, 90.0), "b": (10, 8, 90.0)}, {"a": (5, 8, 45.0)}))
    gone = told.layers[1]
    assert (gone.name, gone.us_after, gone.note) == ("b", None, "only in the first file")
    assert told.causes == ("no layer lost 3% of the time against what its multiply-adds promise",)


def test_the_command_reads_the_runs_report(tmp_path, monkeypatch):
    """--why finds report.json beside the files and gives its reasons."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    a, b = convs(tmp_path / "a.onnx", 16), convs(tmp_path / "b.onnx", 16)
    rows = [{"name": n, "before": 16, "after": 16} for n in ("first", "second")]
    (tmp_path / "report.json").write_text(json.dumps({"layers": rows, "pinned": []}))
    assert run_report(a, b) is not None and run_report(Path("nowhere/c.onnx")) is None
    done = CliRunner().invoke(bench, [str(a), str(b), "--seconds", "0.2", "--why"])
    assert done.exit_code == 0, done.output
    assert "second did not shrink: the plan kept all its channels" in done.output


def test_why_takes_two_files(tmp_path):
    """One file, or three, or a board: refused in one line."""
    a = convs(tmp_path / "a.onnx", 16)
    done = CliRunner().invoke(bench, [str(a), "--why"])
    assert isinstance(done.exception, BenchError) and "two files" in str(done.exception)


def test_a_bad_file_is_one_line(tmp_path):
    """Missing, and not a model: a BenchError that names the file."""
    with pytest.raises(BenchError, match="no such file"):
        profile_operators(BenchRequest((tmp_path / "none.onnx",)))
    (tmp_path / "bad.onnx").write_bytes(b"junk" * 10)
    with pytest.raises(BenchError, match="not an ONNX model"):
        profile_operators(BenchRequest((tmp_path / "bad.onnx",)))


@pytest.mark.timing
def test_the_timer_gives_layers_and_ratios(tmp_path):
    """Layer names are those of the graph; the first file's ratio to itself is 1."""
    a, b = convs(tmp_path / "a.onnx", 32), convs(tmp_path / "b.onnx", 8)
    timer = HostTimer(seconds=0.3)
    assert set(timer.layer_times([a])[0]) == {x.label for x in graph_layers(onnx.load(a))}
    ratios = timer.ratios([a, b])
    assert ratios[0] == 1.0 and ratios[1] < 1.0


def test_json_holds_the_comparison(measured):
    """The record turns into plain JSON with a schema number and a row per layer."""
    plain = json.loads(json.dumps(to_json(compare_profiles(measured))))
    assert plain["schema"] == 1 and [x["name"] for x in plain["layers"]] == ["first", "second", "head"]
