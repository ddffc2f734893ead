"""The runner, its statistics and the command, on files of a few kilobytes."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeprune.cli.bench import bench
from edgeprune.errors import BenchError
from edgeprune.export.model_files import model_files
from edgeprune.measure.host import RUNNER, read_answer, result_of, run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.timings import block_bootstrap, missed_share, percentile_ms, time_ratio, trust_warnings
from edgeprune.records import BenchResult, Interval, ModelTiming


def chain(path: Path, layers: int, *, kind: int = TensorProto.FLOAT, shape=("batch", 32)) -> Path:
    """Write a model of `layers` 32x32 products; integer inputs are cast first."""
    weights = [
        numpy_helper.from_array(np.eye(32, dtype=np.float32) + 0.01 * n, f"w{n}") for n in range(layers)
    ]
    nodes = [helper.make_node("Cast", ["x"], ["h0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"]) for n in range(layers)]
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def measured(folder) -> BenchResult:
    """A chain of 24 products against one of 2, for a second."""
    files = chain(folder / "long.onnx", 24), chain(folder / "short.onnx", 2)
    return run_bench(BenchRequest(files, seconds=0.5))


@pytest.mark.timing
def test_a_twelfth_of_the_work_is_measured_as_faster(measured):
    """The paired ratio of a much smaller model lies below 1 with its whole interval."""
    (row,) = measured.ratios
    assert row.ratio.low <= row.ratio.value <= row.ratio.high < 1
    assert row.changed


def test_every_model_gets_every_number(measured):
    """Percentiles, load, first inference, peak memory and size are there for each file."""
    assert [Path(m.file).name for m in measured.models] == ["long.onnx", "short.onnx"]
    for row in measured.models:
        assert row.p50_ms.low <= row.p50_ms.value <= row.p50_ms.high
        assert row.load_ms > 0
        assert row.first_ms > 0
        assert row.peak_mb > 10
        assert row.file_bytes == Path(row.file).stat().st_size
    assert measured.same is not None
    assert len(measured.cores) <= 1


def test_percentiles_need_enough_samples():
    """p90 is withheld below 64 samples and p99 below 662, and both are given from there on."""
    take = np.random.default_rng(0).gamma(2, 1e6, 662)
    assert percentile_ms(take[:63].reshape(-1, 1), 0.9, 0) is None
    assert percentile_ms(take[:64].reshape(-1, 1), 0.9, 0) is not None
    assert percentile_ms(take[:661].reshape(-1, 1), 0.99, 0) is None
    assert percentile_ms(take.reshape(-1, 1), 0.99, 0).value == pytest.approx(np.quantile(take, 0.99) / 1e6)
    assert percentile_ms(take[:5].reshape(-1, 1), 0.5, 0) is not None


def test_pairing_cancels_drift_that_both_candidates_felt():
    """With a machine whose speed doubles halfway, the ratio keeps a narrow interval."""
    rng = np.random.default_rng(1)
    drift = np.repeat([1e6, 2e6], 200) * rng.lognormal(0, 0.01, 400)
    a, b = (drift * f * rng.lognormal(0, 0.01, 400) for f in (1.0, 0.7))
    found = time_ratio(b.reshape(-1, 1), a.reshape(-1, 1), 0)
    assert found.low <= 0.7 <= found.high
    assert found.high - found.low < 0.01


def test_the_bootstrap_covers_the_true_median():
    """A nominal 95% interval of independent rounds covers the truth in 88 to 100% of 100 repetitions."""
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(100):
        found = block_bootstrap(rng.normal(0, 1, 150), lambda v: np.median(v, axis=-1), trial)
        hits += found.low <= 0 <= found.high
    assert 88 <= hits <= 100


def test_blocks_widen_the_interval_of_correlated_rounds():
    """Rounds that follow a slow wave give a wider interval than the same rounds shuffled."""
    wave = np.sin(np.arange(1000) / 40)
    straight = block_bootstrap(wave, lambda v: v.mean(axis=-1), 0)
    shuffled = block_bootstrap(np.random.default_rng(0).permutation(wave), lambda v: v.mean(axis=-1), 0)
    assert straight.high - straight.low > 2 * (shuffled.high - shuffled.low)


def test_no_missed_deadline_still_leaves_room():
    """Of 100 answers none late: the share is 0 and its upper bound Wilson's z²/(n+z²)."""
    found = missed_share(np.full(100, 1e6), 2.0, 0)
    assert (found.value, found.low) == (0, 0)
    z2 = 1.959964**2
    assert math.isclose(found.high, z2 / (100 + z2), rel_tol=1e-9)


def test_open_loop_misses_every_deadline_when_arrivals_outrun_the_model(folder):
    """At a rate that no machine can follow, answers queue up and the worst grows far beyond one inference."""
    model = chain(folder / "queue.onnx", 24)
    result = run_bench(BenchRequest((model,), seconds=0.1, rate=100_000, deadline_ms=1.0))
    (row,) = result.models
    assert row.missed.value > 0.5
    assert row.worst_ms > 10 * row.p50_ms.value


def test_throttling_now_or_newly_makes_the_run_invalid():
    """Bits 0-3 now and bits 16-19 that were not set before count; old since-boot bits do not."""
    still = {"governors": ["performance"], "load": 0.0}

    def said(was, now):
        return trust_warnings({**still, "throttled": was}, {**still, "throttled": now}, [3], 1)

    assert said(0, 0) == ()
    assert said(0x50000, 0x50000) == ()
    assert "invalid" in said(0, 0x4)[0]
    assert "invalid" in said(0, 0x20000)[0]


def states(own: float, busy: float, seconds: float = 10.0):
    """Two states of the machine between which this process and core 3 worked for so many seconds."""
    before = {"governors": ["ondemand"], "load": 7.0, "throttled": None, "busy": {"2": 40.0, "3": 50.0}}
    before |= {"own": 1.0, "clock": 100.0}
    after = {**before, "busy": {"2": 49.0, "3": 50.0 + busy}, "own": 1.0 + own, "clock": 100.0 + seconds}
    return before, after


def test_only_the_work_of_others_on_the_timed_cores_makes_a_machine_busy():
    """Core 3 worked nine seconds: all our own, or a third of it; the load average is of stages long over."""
    (governor,) = trust_warnings(*states(own=9.0, busy=9.0), [3], 1)
    assert "ondemand" in governor
    busy, governor = trust_warnings(*states(own=6.0, busy=9.0), [3], 1)
    assert "others had 30% of the cores that were timed on" in busy
    assert len(trust_warnings(*states(own=6.0, busy=9.0), [], 1)) == 1  # not bound to cores: cannot be told
    assert len(trust_warnings(*states(own=0.0, busy=0.1, seconds=0.1), [3], 1)) == 1  # too short to be told


def test_more_threads_than_cores_are_said(folder):
    """Eight threads on the cores that this process may use give times that mean little."""
    said = trust_warnings({"throttled": None}, {"throttled": None}, [0, 1], 8)
    assert said == ("8 threads on 2 cores: they wait for each other, times mean little",)
    result = run_bench(BenchRequest((chain(folder / "wide.onnx", 1),), threads=64, seconds=0.0))
    assert any(text.startswith("64 threads on ") for text in result.warnings)


@pytest.mark.timing
def test_the_runner_tells_its_own_work_from_that_of_others(folder):
    """Beside a process that spins on the timed core, others have a share of it; of what ran before, none."""
    import os

    from edgeprune.measure.timings import others_share

    core = max(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    model = chain(folder / "beside.onnx", 24)
    other = subprocess.Popen([sys.executable, "-c", spin])
    try:
        result = run_bench(BenchRequest((model,), seconds=1.0, probes=0))
    finally:
        other.kill()
        other.wait()
    share = others_share(result.before, result.after, result.cores)
    assert list(result.cores) != [core] or share > 0.2
    assert list(result.cores) != [core] or any("others had" in text for text in result.warnings)


def answer_of(first, second, twin, rate=None):
    """What the runner says of two files whose inferences take so many nanoseconds in every round."""
    rng = np.random.default_rng(0)
    settings = {"threads": 1, "seconds": 1, "batch": 1, "seed": 0, "rate": rate}
    rounds = [(t * rng.lognormal(0, 0.001, (200, 1))).tolist() for t in (first, second, twin)]
    return {
        "settings": settings, "samples_ns": rounds, "machine": {"cores": 2}, "cores": [1], "emulated": None,
        "responses_ns": [[1e6] * 30] * 2 if rate else [], "models": [{"probes": []}] * 2,
        "before": {}, "after": {},
    }  # fmt: skip


def test_what_the_first_file_against_itself_is_off_by_widens_every_ratio():
    """A twin that is 5% slower than the file itself: no ratio is known better than that, and this is said."""
    request = BenchRequest((Path("a.onnx"), Path("b.onnx")))
    fair = result_of(answer_of(1e6, 0.98e6, 1e6), request, [1, 1])
    assert fair.ratios[0].changed and fair.warnings == ()
    off = result_of(answer_of(1e6, 0.98e6, 1.05e6), request, [1, 1])
    assert not off.ratios[0].changed
    assert off.ratios[0].ratio.high == pytest.approx(fair.ratios[0].ratio.high * 1.05, rel=1e-3)
    assert "against itself is off by 5.0%" in off.warnings[0]


def test_a_rate_above_what_a_file_can_answer_is_said_to_grow_its_queue():
    """At 1.2 ms an answer a file gives 833 a second: of 900 ever more are late."""
    request = BenchRequest((Path("a.onnx"), Path("b.onnx")), rate=900.0, deadline_ms=5.0)
    (said,) = result_of(answer_of(1.2e6, 0.5e6, 1.2e6, 900.0), request, [1, 1]).warnings
    assert said.startswith("a.onnx: answers at most 833 inputs/s, 900 come: the queue grows without bound")
    assert result_of(answer_of(1.2e6, 0.5e6, 1.2e6, 800.0), request, [1, 1]).warnings == ()


def test_a_staircase_taken_beside_other_work_is_not_kept(tmp_path, monkeypatch):
    """The next run measures again; what was taken in peace is kept with its warnings."""
    from edgeprune.measure import staircase as stairs

    taken = []

    def timed(request):
        taken.append(len(request.models))
        busy, calm = states(own=6.0, busy=9.0), states(own=9.0, busy=9.0)
        before, after = busy if len(taken) == 1 else calm
        ratios = tuple(SimpleNamespace(ratio=Interval(1.0, 1.0, 1.0)) for _ in request.models[1:])
        said = trust_warnings(before, after, [3], 1)
        return SimpleNamespace(ratios=ratios, before=before, after=after, cores=[3], warnings=said)

    monkeypatch.setattr(stairs, "run_bench", timed)
    first = stairs.staircase(cache=tmp_path)
    assert "busy" in first.warnings[0] and not list(tmp_path.iterdir())
    second = stairs.staircase(cache=tmp_path)
    assert len(second.warnings) == 1 and stairs.staircase(cache=tmp_path) == second
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"\x93\x02\xff" * 50, "not an ONNX model"),
        (b"half", "not an ONNX model"),
        (b"PK\x03\x04" + b"\0" * 40, "is a PyTorch file, not ONNX"),
    ],
)
def test_a_file_that_is_no_model_is_one_clear_line(tmp_path, content, says):
    """Missing, empty, random and truncated files raise BenchError that names the file."""
    path = tmp_path / "bad.onnx"
    if content == b"half":
        content = chain(path, 4).read_bytes()[:700]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=says) as caught:
        run_bench(BenchRequest((path,)))
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.tip


def test_an_operator_that_no_runtime_knows_is_one_clear_line(tmp_path):
    """A well-formed file that onnxruntime refuses gives its first line, not a traceback."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "odd.onnx")
    with pytest.raises(BenchError, match=r"onnxruntime cannot load it.*Nonsense"):
        run_bench(BenchRequest((tmp_path / "odd.onnx",)))


def test_a_free_dimension_asks_for_its_shape(tmp_path):
    """A dynamic width is never guessed: the error names --shape, and --shape cures it."""
    model = chain(tmp_path / "free.onnx", 1, shape=("batch", "width"))
    with pytest.raises(BenchError, match="free dimensions") as caught:
        run_bench(BenchRequest((model,), seconds=0))
    assert "--shape x=" in caught.value.tip
    assert run_bench(BenchRequest((model,), seconds=0, shapes=["x=2,32"])).rounds >= 10


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE])
def test_inputs_of_every_common_type_are_made(tmp_path, kind):
    """Bytes, indices, flags and doubles are fed without being told."""
    request = BenchRequest((chain(tmp_path / "typed.onnx", 1, kind=kind),), seconds=0)
    assert run_bench(request).models[0].p50_ms is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"threads": 0}, "--threads 0"),
        ({"batch": 0}, "--batch 0"),
        ({"rate": 10.0}, "belong together"),
        ({"rate": -1.0, "deadline_ms": 3.0}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, settings, says):
    """Bad numbers fail before anything runs and say which."""
    with pytest.raises(BenchError, match=says):
        run_bench(BenchRequest((chain(folder / "s.onnx", 1),), **settings))


def test_no_model_is_refused():
    """An empty list has its own sentence."""
    with pytest.raises(BenchError, match="no ONNX file"):
        run_bench(BenchRequest(()))


def external(path: Path, location: str) -> Path:
    """Write a model whose weight claims to live at `location`."""
    model = onnx.load(chain(path, 1))
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../x", "..\\secret", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    """Absolute names and names that climb out are refused before any file is opened."""
    with pytest.raises(BenchError, match="outside the model's folder"):
        model_files(external(tmp_path / "m.onnx", location))


def test_external_data_that_is_a_link_or_missing_is_refused(tmp_path):
    """A link could point anywhere; a missing file would fail on the board."""
    model = external(tmp_path / "m.onnx", "m.data")
    with pytest.raises(BenchError, match="is missing"):
        model_files(model)
    (tmp_path / "m.data").symlink_to("/etc/passwd")
    with pytest.raises(BenchError, match="is a link"):
        model_files(model)


def test_external_data_counts_in_the_size(tmp_path):
    """file_bytes is the model and its data together, and the model runs."""
    small = chain(tmp_path / "m.onnx", 2)
    onnx.save(
        onnx.load(small), tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0
    )
    files = model_files(tmp_path / "e.onnx")
    assert [f.name for f in files] == ["e.onnx", "e.data"]
    result = run_bench(BenchRequest((tmp_path / "e.onnx",), seconds=0))
    assert result.models[0].file_bytes == sum(f.stat().st_size for f in files)


def test_an_emulated_record_cannot_hold_a_latency():
    """The record itself refuses milliseconds of an emulator, whoever builds it."""
    row = ModelTiming("a.onnx", 10, samples=3, p50_ms=Interval(1, 1, 1))
    fields = {"ratios": (), "same": None, "rounds": 0, "threads": 1, "batch": 1, "seed": 0, "machine": {}}
    assert BenchResult(models=(row,), **fields).emulated is None
    with pytest.raises(ValueError, match="has no latency"):
        BenchResult(models=(row,), emulated="cortex-a72", **fields)


def test_under_an_emulator_the_runner_times_nothing(folder, monkeypatch):
    """With an emulator named, the files run once and no number in milliseconds comes back."""
    monkeypatch.setenv("EDGEPRUNE_EMULATED", "cortex-a53")
    result = run_bench(BenchRequest((chain(folder / "em.onnx", 2),), seconds=0.2))
    assert result.emulated == "cortex-a53"
    assert result.models[0].p50_ms is None
    assert result.rounds == 0


def test_check_finds_a_wrong_output(folder):
    """Recorded outputs pass as they are and fail when one value is off by more than the tolerance."""
    model = chain(folder / "g.onnx", 3)
    x = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    y = x
    for n in range(3):
        y = y @ (np.eye(32, dtype=np.float32) + np.float32(0.01 * n))
    for offset, good in ((0.0, True), (0.1, False)):
        golden = y.copy()
        golden[0, 0] += offset
        np.savez(folder / "golden.npz", input_0=x, output_0=golden)
        command = [sys.executable, "-P", str(RUNNER), f"--check={folder / 'golden.npz'}", str(model)]
        done = subprocess.run(command, capture_output=True, text=True)
        found = json.loads(done.stdout)["check"]
        assert found["ok"] is good
        assert found["compared"] == 1


def test_an_answer_of_another_schema_or_none_is_refused():
    """A runner of another version, and one that died, each raise with what to do."""
    with pytest.raises(BenchError, match="has schema 99"):
        read_answer('{"schema": 99}', 0, "", "bench")
    with pytest.raises(BenchError, match="died with signal 4"):
        read_answer("", -4, "Illegal instruction", "bench")


def test_peak_memory_is_none_where_the_system_hides_it(measured):
    """A machine without /proc gives no peak memory and everything else."""
    probe = {"load_ms": 1.0, "first_ms": 1.0, "peak_mb": None, "empty_mb": None}
    answer = {
        "settings": {"threads": 1, "seconds": 1, "batch": 1, "seed": 0, "rate": None},
        "samples_ns": [[[1000]] * 10, [[1000]] * 10],
        "responses_ns": [],
        "models": [{"probes": [probe]}],
        "machine": {"cores": 1},
        "cores": [0],
        "emulated": None,
        "before": {},
        "after": {},
    }
    (row,) = result_of(answer, BenchRequest((Path("a.onnx"),)), [5]).models
    assert row.peak_mb is None
    assert row.load_ms == 1.0


def test_the_command_prints_a_table_and_json(folder):
    """The table names both files and the A/A row; --json holds the same records."""
    files = [str(chain(folder / "l.onnx", 24)), str(chain(folder / "s.onnx", 2))]
    text = CliRunner().invoke(bench, [*files, "--seconds", "0.3"], catch_exceptions=False).output
    assert "l.onnx again (A/A)" in text
    assert "s.onnx" in text
    found = json.loads(CliRunner().invoke(bench, [*files, "--seconds", "0.1", "--json"]).output)
    assert found["schema"] == 1
    assert found["models"][1]["p50_ms"]["value"] > 0
    assert found["ratios"][0]["base"] == files[0]


def test_the_command_starts_without_torch(folder):
    """Neither the command nor the library behind it imports torch."""
    code = "import sys, edgeprune.measure.host, edgeprune.cli.bench; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_runner_imports_only_what_a_device_has():
    """Its imports are the standard library, numpy and onnxruntime, and it parses as Python 3.8."""
    import ast

    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 8))
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def endless(path: Path) -> Path:
    """A Loop whose condition is always true and whose trip count is the largest there is."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]),
        ],
    )
    numbers = [
        numpy_helper.from_array(np.array(2**62, np.int64), "trips"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y")]
    loop = helper.make_node("Loop", ["trips", "yes", "x"], ["y"], body=body)
    graph = helper.make_graph([loop], "endless", ends[:1], ends[1:], numbers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("probes", [0, 1])
def test_a_file_that_never_ends_is_stopped_at_the_limit(tmp_path, probes):
    """An endless Loop is one BenchError that names the file and the limit, with probes and without."""
    with pytest.raises(BenchError, match=r"loop\.onnx: loading it and running it once took longer than 2 s"):
        run_bench(BenchRequest((endless(tmp_path / "loop.onnx"),), limit_s=2, seconds=0, probes=probes))


def test_scripts_can_fail_on_a_file_that_is_not_faster(folder):
    """--fail-if-slower: exit code 0 for a twelfth of the work, 1 for twelve times the work."""
    slow, fast = (str(chain(folder / f"f{n}.onnx", n)) for n in (24, 2))
    flags = ["--seconds", "0.3", "--fail-if-slower", "--json"]
    assert CliRunner().invoke(bench, [slow, fast, *flags], standalone_mode=False).return_value == 0
    assert CliRunner().invoke(bench, [fast, slow, *flags], standalone_mode=False).return_value == 1
    alone = CliRunner().invoke(bench, [slow, *flags], standalone_mode=False)
    assert isinstance(alone.exception, BenchError)
