"""Run and time ONNX files on the machine at hand: the one file that host and device both run.

    python runner.py --json A.onnx [B.onnx ...]      interleaved timing
    python runner.py --check GOLDEN.npz A.onnx       run recorded inputs, compare the outputs
    python runner.py --repeat N A.onnx               N inferences between two marks (instruction counts)

Guarantees: needs Python 3.8, NumPy and onnxruntime, nothing else; one JSON object with a schema
number on stdout, an `error` in it and exit code 2 when a file cannot be run; the candidates take
turns inside one process, so drift of the machine hits all of them; under an emulator nothing is
timed and no latency is reported. Elsewhere: intervals and ratios of the samples
(measure/timings.py), whether the machine is fit at all (deploy/preflight.py).
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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SCHEMA, MIN_ROUNDS, MAX_ROUNDS, MARK = 1, 10, 5_000, 0x7ED90DE
SLOT_NS, MAX_REPEATS = 500_000, 8  # a faster model runs several times a turn, warm, as it would in a loop
FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
# Of the processor's features those that kernels are chosen by, as Linux names them.
FLAGS = {
    "avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimdhp", "asimddp",
    "i8mm", "bf16", "sve",
}  # fmt: skip
SETTINGS = ("threads", "seconds", "batch", "seed", "rate")


class RunnerError(Exception):
    """What stops a run, in one line, with what to do about it."""

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.tip = tip


def emulator() -> str | None:
    """Name the emulator that this process runs under, or None on real hardware.

    QEMU's user mode answers /proc/self/maps with the guest's view, but passes the same file
    through under the thread's name, and there its own program is mapped.
    """
    maps = _read("/proc/thread-self/maps")
    qemu = "qemu" if "qemu-aarch64" in maps or "qemu-arm" in maps else None
    return os.environ.get("EDGEPRUNE_EMULATED") or qemu


def machine() -> dict[str, Any]:
    """Processor and versions: what a timing is worth nothing without."""
    rows = [line.partition(":") for line in _read("/proc/cpuinfo").splitlines()]
    fields: dict[str, str] = {}
    for key, _, value in rows:
        fields.setdefault(key.strip(), value.strip())
    flags = FLAGS & set((fields.get("flags") or fields.get("Features") or "").split())
    import numpy
    import onnxruntime

    return {
        "architecture": platform.machine(),
        "processor": fields.get("model name") or fields.get("CPU part") or "unknown",
        "board": _read("/proc/device-tree/model").strip("\0\n") or None,
        "cores": os.cpu_count(),
        "flags": sorted(flags),
        "parts": sorted({value.strip() for key, _, value in rows if key.strip() == "CPU part"}),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def state() -> dict[str, Any]:
    """Governors, frequencies, temperatures, throttling flags and use, where the system shows them.

    `busy` is how long each core has worked since boot, in seconds, and `own` how long this process has, at
    `clock`: between two states the difference is what others took.
    """
    cpus = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    try:  # the Pi's firmware tool; elsewhere it is not there
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5)
        flags: int | None = int(done.stdout.partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        flags = None
    numbers, temps = ([_read(str(p)).strip() for p in ps] for ps in (cpus, zones))
    return {
        "governors": sorted({_read(str(c.with_name("scaling_governor"))).strip() for c in cpus} - {""}),
        "mhz": [int(n) // 1000 for n in numbers if n.isdigit()],
        "celsius": [int(t) / 1000 for t in temps if t.lstrip("-").isdigit()],
        "throttled": flags,
        "load": os.getloadavg()[0],
        "busy": _busy(),
        "own": time.process_time(),
        "clock": time.monotonic(),
    }


def _busy() -> dict[str, float]:
    """Seconds of work by core: all that /proc/stat counts but idle and waiting; empty where it is hidden."""
    rows = [line.split() for line in _read("/proc/stat").splitlines() if line.startswith("cpu")]
    tick = os.sysconf("SC_CLK_TCK") if rows else 100
    used = {row[0][3:]: [int(n) for n in row[1:9]] for row in rows if row[0] != "cpu"}
    return {cpu: (sum(counts) - sum(counts[3:5])) / tick for cpu, counts in used.items()}


def pin(threads: int) -> list[int]:
    """Bind this process to `threads` of the fastest allowed cores; of equals the last, interrupts go to 0."""
    try:
        cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (_speed(cpu), cpu), reverse=True)
        os.sched_setaffinity(0, cpus[:threads])
    except (AttributeError, OSError):  # not Linux, or not allowed
        return []
    return sorted(cpus[:threads])


def _speed(cpu: int) -> int:
    root = f"/sys/devices/system/cpu/cpu{cpu}/"
    found = _read(root + "cpu_capacity").strip() or _read(root + "cpufreq/cpuinfo_max_freq").strip()
    return int(found) if found.isdigit() else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _peak_mb() -> float | None:
    # VmHWM and not ru_maxrss: the latter survives exec and would report the parent.
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def open_session(path: Path, threads: int) -> Any:
    """Open an onnxruntime session with pinned threads, one operator at a time."""
    import onnxruntime

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
    """Take the inputs from --inputs, or make them in the model's own shapes.

    Floats are normal and bytes cover their range. Wider integers are mostly indices and masks,
    and 0 and 1 are valid in nearly all of them.
    """
    import numpy as np

    given = load_arrays(args.inputs) if args.inputs else {}
    shapes = shapes_of(args.shape)
    rng = np.random.default_rng(args.seed)
    inputs = session.get_inputs()
    leading = {item.shape[0] for item in inputs if item.shape and not isinstance(item.shape[0], int)}
    made = {}
    for position, item in enumerate(inputs):
        recorded = given.get(item.name, given.get(f"input_{position}"))
        if recorded is not None:
            made[item.name] = recorded
            continue
        free = [
            d if isinstance(d, int) and d > 0 else args.batch if n == 0 or d in leading else -1
            for n, d in enumerate(item.shape)
        ]
        shape = shapes.get(item.name, free)
        if -1 in shape:
            tip = f"give its shape with --shape {item.name}=1,3,224,224"
            raise RunnerError(f"input {item.name!r} has free dimensions {item.shape}", tip)
        kind = item.type[len("tensor(") : -1]
        if item.type in FLOATS:
            made[item.name] = rng.standard_normal(shape).astype(FLOATS[item.type])
        elif kind == "bool":
            made[item.name] = rng.integers(0, 2, shape).astype(bool)
        elif kind in INTEGERS:
            bounds = np.iinfo(kind)
            low, high = (bounds.min, bounds.max) if bounds.bits == 8 else (0, 2)
            made[item.name] = rng.integers(low, high, shape).astype(kind)
        else:
            raise RunnerError(f"input {item.name!r} has type {item.type}", "record it: --inputs FILE.npz")
    return made


def run_once(path: Path, session: Any, feeds: dict[str, Any]) -> list[Any]:
    """Run one inference; a failure names the file."""
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        raise RunnerError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from None


def probe(args: argparse.Namespace) -> dict[str, Any]:
    """Load time, first inference and peak memory; only right in a process that has done nothing else."""
    machine()  # imports onnxruntime, which must not count as load time
    pin(args.threads)
    path, empty = Path(args.models[0]), _peak_mb()
    start = time.perf_counter_ns()
    session = open_session(path, args.threads)
    loaded = time.perf_counter_ns()
    feeds = make_feeds(session, args)
    begun = time.perf_counter_ns()
    run_once(path, session, feeds)
    done = time.perf_counter_ns()
    times = {"load_ms": (loaded - start) / 1e6, "first_ms": (done - begun) / 1e6}
    return {**times, "peak_mb": _peak_mb(), "empty_mb": empty}


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Run recorded inputs (input_0 ...) and compare with the recorded outputs (output_0 ...) they hold.

    Agreement: in each file the largest difference is at most --tolerance times the largest
    recorded value. --save PREFIX keeps the outputs in PREFIX0.npz, PREFIX1.npz, ...
    """
    import numpy as np

    path = Path(args.models[0])
    session, verdicts = open_session(path, args.threads), []
    for n, golden in enumerate(args.check):
        args.inputs = golden
        found = run_once(path, session, make_feeds(session, args))
        if args.save:
            np.savez(f"{args.save}{n}.npz", **{f"output_{k}": out for k, out in enumerate(found)})
        verdicts.append(compare(found, load_arrays(golden), args.tolerance))
    why = next((verdict["why"] for verdict in verdicts if verdict["why"]), "")
    worst = max((v["max_abs"] for v in verdicts if v["max_abs"] is not None), default=None)
    return {"ok": not why, "compared": sum(v["compared"] for v in verdicts), "max_abs": worst, "why": why}


def compare(found: Sequence[Any], recorded: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """Compare one inference with what was recorded; `why` is empty when they agree."""
    import numpy as np

    pairs = [(out, recorded[f"output_{n}"]) for n, out in enumerate(found) if f"output_{n}" in recorded]
    worst, allowed = 0.0, 0.0
    for out, wanted in pairs:
        if wanted.shape != out.shape or not np.all(np.isfinite(out)):
            why = f"an output has shape {list(out.shape)} or is not finite; recorded {list(wanted.shape)}"
            return {"compared": len(pairs), "max_abs": None, "why": why}
        gap = np.abs(out.astype("float64") - wanted.astype("float64"))
        worst = max(worst, float(gap.max(initial=0)))
        allowed = max(allowed, tolerance * float(np.abs(wanted).max(initial=0)))
    why = "" if worst <= allowed else f"outputs differ by {worst:.3g}, at most {allowed:.3g} is allowed"
    return {"compared": len(pairs), "max_abs": worst, "why": why}


def timed_rounds(runs: Sequence[Callable[[], Any]], seconds: float, seed: int) -> list[list[list[int]]]:
    """Let every candidate take its turn in each round, in an order shuffled anew.

    Returns nanoseconds [candidate][round][repeat]; only fast models repeat within a turn.
    """
    import numpy as np

    clock = time.perf_counter_ns
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
    clock, period = time.perf_counter_ns, int(1e9 / rate)
    begin, took = clock() + period, []
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
        session = open_session(path, args.threads)
        feeds = make_feeds(session, args)
        runs.append(functools.partial(run_once, path, session, feeds))
        runs[-1]()
        rows.append({"file": str(path), "inputs": {name: list(x.shape) for name, x in feeds.items()}})
    samples = [] if emulated else timed_rounds(runs, args.seconds, args.seed)
    rate = None if emulated else args.rate
    late = [responses(run, rate, args.seconds) for run in runs[:-1]] if rate else []
    return {
        "emulated": emulated,
        "machine": machine(),
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "cores": cores,
        "models": [{**rows[n], "probes": taken} for n, taken in enumerate(probes)],
        "samples_ns": samples,
        "responses_ns": late,
        "before": before,
        "after": state(),
    }


def _fresh(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, os.path.abspath(__file__), "--probe", str(path)]
    command += [f"--threads={args.threads}", f"--batch={args.batch}", f"--seed={args.seed}"]
    command += [f"--inputs={args.inputs}"] * bool(args.inputs) + [f"--shape={s}" for s in args.shape]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        why = f"{path}: onnxruntime died on it (exit {done.returncode})"
        raise RunnerError(why, "try another onnxruntime version") from None
    if "error" in answer:
        raise RunnerError(answer["error"]["message"], answer["error"]["tip"])
    return dict(answer["probe"])


def repeat(args: argparse.Namespace) -> int:
    """Run the model ten times, then --repeat times between two marks that an instruction counter sees."""
    session = open_session(Path(args.models[0]), args.threads)
    feeds = make_feeds(session, args)
    for runs in (10, args.repeat):
        for _ in range(runs):
            run_once(Path(args.models[0]), session, feeds)
        with contextlib.suppress(OSError):
            os.getpgid(MARK)  # no process has this number
    return int(args.repeat)


def load_arrays(path: str) -> dict[str, Any]:
    """Read an npz by name; pickled arrays are refused."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, zlib and format errors share no base
        raise RunnerError(f"{path}: not a readable npz file: {_first_line(error)}") from None


def shapes_of(texts: Sequence[str]) -> dict[str, list[int]]:
    """Parse NAME=1,3,224,224."""
    pairs = [text.rpartition("=") for text in texts]
    try:
        return {name: [int(d) for d in shape.split(",")] for name, _, shape in pairs}
    except ValueError:
        raise RunnerError(f"--shape {' '.join(texts)}: not of the form NAME=1,3,224,224") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="run and time ONNX files")
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--json", action="store_true", help="the output is always JSON")
    for name, number in (("threads", 1), ("seconds", 5.0), ("batch", 1), ("seed", 0), ("probes", 3)):
        parser.add_argument(f"--{name}", type=type(number), default=number)
    parser.add_argument("--inputs", metavar="FILE.npz", help="arrays named as the inputs, or input_0 ...")
    parser.add_argument("--shape", action="append", default=[], help="NAME=1,3,224,224 for free dimensions")
    parser.add_argument("--rate", type=float, help="also feed inputs at this many a second")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--check", action="append", metavar="GOLDEN.npz")
    parser.add_argument("--save", metavar="PREFIX")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--repeat", type=int)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Do one job, print one JSON object."""
    args = parse(argv)
    job = "check" if args.check else "probe" if args.probe else "repeat" if args.repeat else "bench"
    answer: dict[str, Any] = {"schema": SCHEMA}
    try:
        answer[job] = {"check": check, "probe": probe, "repeat": repeat, "bench": bench}[job](args)
    except (RunnerError, MemoryError) as error:
        tip = getattr(error, "tip", "use a smaller model or batch")
        answer["error"] = {"message": str(error) or "out of memory", "tip": tip}
    print(json.dumps(answer))
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
