"""Run and time ONNX files on the local machine: the one file that host and board both run.

    python runner.py --json A.onnx [B.onnx ...]      interleaved timing
    python runner.py --check GOLDEN.npz A.onnx       run recorded inputs, compare the outputs
    python runner.py --repeat N A.onnx               N inferences between two marks (instruction counts)

Guarantees: needs Python 3.8, NumPy and onnxruntime, nothing else; one JSON object on stdout, with an
`error` and exit code 2 when a file cannot be run or its first inference takes longer than --limit;
candidates take turns in one process, so drift hits all of them; an emulator is never timed.
Elsewhere: intervals and ratios (measure/timings.py), whether the machine is fit (deploy/preflight.py).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SCHEMA, MIN_ROUNDS, MAX_ROUNDS, MARK = 1, 10, 5_000, 0x7ED90DE
SLOT_NS, MAX_REPEATS = 500_000, 8  # a faster model runs several times a turn, warm, as it would in a loop
FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
# Wider integers are mostly indices and masks, and 0 and 1 are valid in nearly all of them.
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
BYTES = {"int8": (-128, 127), "uint8": (0, 255)}
# Processor features that kernels are chosen by, as Linux names them.
FLAGS = {
    "avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimdhp", "asimddp",
    "i8mm", "bf16", "sve",
}  # fmt: skip
clock = time.perf_counter_ns


class RunnerError(Exception):
    """What stops a run, in one line, with what to do about it."""

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.tip = tip


def emulator() -> str | None:
    """Name the emulator that this process runs under, or None on real hardware."""
    # QEMU's user mode answers /proc/self/maps with the guest's view, but passes the thread's file through.
    maps = _read("/proc/thread-self/maps")
    return os.environ.get("EDGEPRUNE_EMULATED") or ("qemu" if "qemu-a" in maps else None)


def machine() -> dict[str, Any]:
    """Processor and versions, without which a timing cannot be interpreted."""
    rows = [[part.strip() for part in line.partition(":")] for line in _read("/proc/cpuinfo").splitlines()]
    fields = {key: value for key, _, value in reversed(rows)}  # those of the first core
    return {
        "architecture": platform.machine(), "board": _read("/proc/device-tree/model").strip("\0\n") or None,
        "processor": fields.get("model name") or fields.get("CPU part") or "unknown",
        "cores": os.cpu_count(), "parts": sorted({value for key, _, value in rows if key == "CPU part"}),
        "flags": sorted(FLAGS & set((fields.get("flags") or fields.get("Features") or "").split())),
        "python": platform.python_version(), "numpy": np.__version__, "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip


def state() -> dict[str, Any]:
    """Governors, frequencies, temperatures, throttling flags and use, where the system shows them.

    `busy` is how long each core has worked since boot and `own` how long this process has, in seconds.
    """
    cpus = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    try:  # the Pi's firmware tool; elsewhere it is not there
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5)
        flags: int | None = int(done.stdout.partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        flags = None
    rows = [line.split() for line in _read("/proc/stat").splitlines() if line.startswith("cpu")]
    used = {row[0][3:]: [int(n) for n in row[1:9]] for row in rows if row[0] != "cpu"}
    tick = os.sysconf("SC_CLK_TCK") if rows else 100  # all counts but idle and waiting for a disk are work
    numbers, temps = ([_read(str(p)).strip() for p in ps] for ps in (cpus, zones))
    return {
        "governors": sorted({_read(str(c.with_name("scaling_governor"))).strip() for c in cpus} - {""}),
        "mhz": [int(n) // 1000 for n in numbers if n.isdigit()],
        "celsius": [int(t) / 1000 for t in temps if t.lstrip("-").isdigit()],
        "throttled": flags, "load": os.getloadavg()[0], "clock": time.monotonic(),
        "busy": {cpu: (sum(counts) - sum(counts[3:5])) / tick for cpu, counts in used.items()},
        "own": time.process_time(),
    }  # fmt: skip


def pin(threads: int) -> list[int]:
    """Bind this process to `threads` of the fastest allowed cores; of equals the last, interrupts go to 0."""

    def speed(cpu: int) -> int:
        root = f"/sys/devices/system/cpu/cpu{cpu}/"
        text = _read(root + "cpu_capacity").strip() or _read(root + "cpufreq/cpuinfo_max_freq").strip()
        return int(text) if text.isdigit() else 0

    try:
        cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (speed(cpu), cpu), reverse=True)
        os.sched_setaffinity(0, cpus[:threads])
    except (AttributeError, OSError):  # not Linux, or not allowed
        return []
    return sorted(cpus[:threads])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _peak_mb() -> float | None:
    # VmHWM and not ru_maxrss: the latter survives exec and would report the parent.
    peaks = [row for row in _read("/proc/self/status").splitlines() if row.startswith("VmHWM:")]
    return int(peaks[0].split()[1]) / 1024 if peaks else None


def open_session(path: Path, threads: int) -> Any:
    """Open an onnxruntime session with pinned threads, one operator at a time."""
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Idle workers of one candidate would otherwise spin on the cores that another is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise RunnerError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from None


def make_feeds(session: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Take the inputs from --inputs, or draw them: normal floats, bytes of the full range, else 0 and 1."""
    recorded = load_arrays(args.inputs) if args.inputs else {}
    rng, pairs = np.random.default_rng(args.seed), [text.rpartition("=") for text in args.shape]
    try:
        shapes = {name: [int(d) for d in shape.split(",")] for name, _, shape in pairs}
    except ValueError:
        raise RunnerError(f"--shape {' '.join(args.shape)}: not of the form NAME=1,3,224,224") from None
    inputs = session.get_inputs()
    leading = {item.shape[0] for item in inputs if item.shape and not isinstance(item.shape[0], int)}
    feeds = {}
    for position, item in enumerate(inputs):
        key = item.name if item.name in recorded else f"input_{position}"
        if key in recorded:
            feeds[item.name] = recorded[key]
            continue
        free = [
            d if isinstance(d, int) and d > 0 else args.batch if n == 0 or d in leading else -1
            for n, d in enumerate(item.shape)
        ]
        shape, kind = shapes.get(item.name, free), item.type[len("tensor(") : -1]
        if -1 in shape:
            tip = f"give its shape with --shape {item.name}=1,3,224,224"
            raise RunnerError(f"input {item.name!r} has free dimensions {item.shape}", tip)
        if item.type in FLOATS:
            feeds[item.name] = rng.standard_normal(shape).astype(FLOATS[item.type])
        elif kind in INTEGERS:
            feeds[item.name] = rng.integers(*BYTES.get(kind, (0, 2)), shape).astype(kind)
        else:
            raise RunnerError(f"input {item.name!r} has type {item.type}", "record it: --inputs FILE.npz")
    return feeds


def run_once(path: Path, session: Any, feeds: dict[str, Any]) -> list[Any]:
    """Run one inference; a failure names the file."""
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        raise RunnerError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from None


@contextlib.contextmanager
def limited(path: Path, seconds: float) -> Iterator[None]:
    """End the process with an `error` if the block, a first inference, takes longer: a loop may never end.

    Python cannot interrupt onnxruntime's session.run, so another thread writes the answer.
    """
    what = f"{path}: loading it and running it once took longer than {seconds:g} s"
    answer = json.dumps(_failed(what, "a loop in it may never end; allow more with --limit"))
    timer = threading.Timer(seconds, lambda: (print(answer, flush=True), os._exit(2)))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def probe(args: argparse.Namespace) -> dict[str, Any]:
    """Load time, first inference and peak memory; only right in a process that has done nothing else."""
    pin(args.threads)
    path, empty = Path(args.models[0]), _peak_mb()
    with limited(path, args.limit):
        start = clock()
        session = open_session(path, args.threads)
        loaded = clock()
        feeds = make_feeds(session, args)
        begun = clock()
        run_once(path, session, feeds)
        done = clock()
    times = {"load_ms": (loaded - start) / 1e6, "first_ms": (done - begun) / 1e6}
    return {**times, "peak_mb": _peak_mb(), "empty_mb": empty}


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Run recorded inputs (input_0 ...) and compare with the recorded outputs (output_0 ...) they hold.

    Agreement: as `compare`. --save PREFIX keeps the outputs in PREFIX0.npz, PREFIX1.npz, ...
    """
    path, rows = Path(args.models[0]), []
    with limited(path, args.limit * len(args.check)):
        session = open_session(path, args.threads)
        for n, golden in enumerate(args.check):
            args.inputs = golden
            outputs = run_once(path, session, make_feeds(session, args))
            if args.save:
                np.savez(f"{args.save}{n}.npz", **{f"output_{k}": out for k, out in enumerate(outputs)})
            rows.append(compare(outputs, load_arrays(golden), args.tolerance))
    why, gaps = "".join([row["why"] for row in rows if row["why"]][:1]), [row["max_abs"] for row in rows]
    worst = None if None in gaps else max(gaps)
    return {"ok": not why, "compared": sum(row["compared"] for row in rows), "max_abs": worst, "why": why}


def compare(outputs: Sequence[Any], recorded: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """Compare one inference with what was recorded; `why` is empty when they agree.

    Allowed is `tolerance` of an output's largest recorded value, or less where an array `allowed_0` says so.
    """
    pairs = [(n, out, recorded[f"output_{n}"]) for n, out in enumerate(outputs) if f"output_{n}" in recorded]
    worst, why = 0.0, ""
    for n, out, wanted in pairs:
        if wanted.shape != out.shape or not (np.isfinite(out).all() and np.isfinite(wanted).all()):
            why = f"output {n} has shape {list(out.shape)} or is not finite; recorded {list(wanted.shape)}"
            return {"compared": len(pairs), "max_abs": None, "why": why}
        gap = np.abs(out.astype("float64") - wanted.astype("float64"))
        worst = max(worst, float(gap.max(initial=0)))
        most = tolerance * float(np.abs(wanted).max(initial=0))
        allowed = np.broadcast_to(np.fmin(recorded.get(f"allowed_{n}", most), most), gap.shape)
        if not why and not (gap <= allowed).all():
            at = np.unravel_index(int(np.nanargmax(gap - allowed)), gap.shape)
            why = f"output {n} differs by {gap[at]:.3g}, at most {allowed[at]:.3g} is allowed"
    return {"compared": len(pairs), "max_abs": worst, "why": why}


def timed_rounds(runs: Sequence[Callable[[], Any]], seconds: float, seed: int) -> list[list[list[int]]]:
    """Let every candidate take its turn in each round, in an order shuffled anew.

    Returns nanoseconds [candidate][round][repeat]; only fast models repeat within a turn.
    """
    repeats = []
    for run in runs:  # warm-up: at least three runs, at least a tenth of a second
        until, costs = clock() + 100_000_000, []  # type: ignore[var-annotated]
        while len(costs) < 3 or clock() < until:
            start = clock()
            run()
            costs.append(clock() - start)
        repeats.append(int(min(MAX_REPEATS, max(1, SLOT_NS // max(1, min(costs))))))
    rng = np.random.default_rng(seed)
    taken: list[list[list[int]]] = [[] for _ in runs]
    until = clock() + int(seconds * 1e9)
    while len(taken[0]) < MAX_ROUNDS and (len(taken[0]) < MIN_ROUNDS or clock() < until):
        for which in rng.permutation(len(runs)):
            run, turn = runs[which], []
            run()  # uncounted: it finds the others' data in the cache
            for _ in range(repeats[which]):
                start = clock()
                run()
                turn.append(clock() - start)
            taken[which].append(turn)
    return taken


def responses(run: Callable[[], Any], rate: float, seconds: float) -> list[int]:
    """Feed inputs at fixed times, ready or not, as a sensor does; nanoseconds from due to answered."""
    period, took = int(1e9 / rate), []
    begin = clock() + period
    for number in range(max(30, int(seconds * rate))):
        due = begin + number * period
        while clock() < due:
            time.sleep(max(0.0, (due - clock() - 200_000) / 1e9))  # the last 0.2 ms are spent awake
        run()
        took.append(clock() - due)
        if clock() - begin > 3e9 * seconds + 10e9:
            break  # hopelessly behind, and the share of late answers is known well enough
    return took


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Time every file of the command line, the first one twice: its twin is the A/A row."""
    emulated, paths = emulator(), [Path(m) for m in args.models]
    probes = [[] if emulated else [_fresh(path, args) for _ in range(args.probes)] for path in paths]
    before, cores, rows, runs = state(), pin(args.threads), [], []
    for path in [*paths, paths[0]]:
        with limited(path, args.limit):
            session = open_session(path, args.threads)
            feeds = make_feeds(session, args)
            runs.append(functools.partial(run_once, path, session, feeds))
            runs[-1]()
        rows.append({"file": str(path), "inputs": {name: list(x.shape) for name, x in feeds.items()}})
    samples = [] if emulated else timed_rounds(runs, args.seconds, args.seed)
    fed = [] if emulated or args.rate is None else runs[:-1]
    late = [responses(run, args.rate, args.seconds) for run in fed]
    return {
        "emulated": emulated, "machine": machine(), "cores": cores,
        "settings": {name: getattr(args, name) for name in ("threads", "seconds", "batch", "seed", "rate")},
        "models": [{**rows[n], "probes": taken} for n, taken in enumerate(probes)],
        "samples_ns": samples, "responses_ns": late, "before": before, "after": state(),
    }  # fmt: skip


def _fresh(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, os.path.abspath(__file__), "--probe", str(path)]
    command += [f"--{name}={getattr(args, name)}" for name in ("threads", "batch", "seed", "limit")]
    command += [f"--inputs={args.inputs}"] * bool(args.inputs) + [f"--shape={s}" for s in args.shape]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RunnerError(f"{path}: onnxruntime died (exit {done.returncode})", "try another one") from None
    if "error" in answer:
        raise RunnerError(answer["error"]["message"], answer["error"]["tip"])
    return dict(answer["probe"])


def repeat(args: argparse.Namespace) -> int:
    """Run the model ten times, then --repeat times between two marks that an instruction counter sees."""
    path = Path(args.models[0])
    session = open_session(path, args.threads)
    feeds = make_feeds(session, args)
    for runs in (10, args.repeat):
        for _ in range(runs):
            run_once(path, session, feeds)
        with contextlib.suppress(OSError):
            os.getpgid(MARK)  # no process has this number
    return int(args.repeat)


def load_arrays(path: str) -> dict[str, Any]:
    """Read an npz by name; pickled arrays are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, zlib and format errors share no base
        raise RunnerError(f"{path}: not a readable npz file: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _failed(message: str, tip: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "error": {"message": message, "tip": tip}}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="run and time ONNX files")
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--json", action="store_true", help="the output is always JSON")
    defaults = {"threads": 1, "seconds": 5.0, "batch": 1, "seed": 0, "probes": 3, "limit": 600.0}
    for name, number in {**defaults, "tolerance": 1e-4}.items():
        parser.add_argument(f"--{name}", type=type(number), default=number)
    parser.add_argument("--inputs", metavar="FILE.npz", help="arrays named as the inputs, or input_0 ...")
    parser.add_argument("--shape", action="append", default=[], help="NAME=1,3,224,224 for free dimensions")
    parser.add_argument("--rate", type=float, help="also feed inputs at this many a second")
    parser.add_argument("--probe", action="store_true", help="load and run once, in a process of its own")
    parser.add_argument("--check", action="append", metavar="GOLDEN.npz", help="compare recorded outputs")
    parser.add_argument("--save", metavar="PREFIX", help="with --check: keep the outputs")
    parser.add_argument("--repeat", type=int, help="inferences between two marks")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Do one job, print one JSON object."""
    args = parse(argv)
    job = "check" if args.check else "probe" if args.probe else "repeat" if args.repeat else "bench"
    jobs: dict[str, Any] = {"check": check, "probe": probe, "repeat": repeat, "bench": bench}
    try:
        answer = {"schema": SCHEMA, job: jobs[job](args)}
    except (RunnerError, MemoryError) as error:
        answer = _failed(str(error) or "out of memory", getattr(error, "tip", "use a smaller model or batch"))
    print(json.dumps(answer))
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
