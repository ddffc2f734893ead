"""Time every operator of ONNX files where it stands, on the machine at hand; host and board run this file.

    python timer.py --runner runner.py --threads 1 --seconds 2 A.onnx B.onnx ...

Each file is opened twice. One session runs as a user would run it and gives the whole inference's
time; the other has onnxruntime's own profiler on and gives the time of each operator in its place:
fused as in the whole network, in the same layout, with the caches as the operators before left them.
All take turns in an order shuffled each round (measure/runner.py says why).

Guarantees: needs what the runner needs and nothing else; one JSON object with a schema number on
stdout; under an emulator the files run once and no time is reported. Elsewhere: what the times mean.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMA, LEAST_ROUNDS, MOST_ROUNDS = 1, 7, 60
SLOT_NS, MOST_REPEATS = 500_000, 8  # as the runner: a fast model runs several times a turn
# If the network as it is is faster than this, every turn of every file begins with an uncounted run:
# all are then as warm as in a loop. Not some: a small file that repeats would be warm, a large one not.
LEAD_NS = 50_000_000


def load_runner(path: str) -> Any:
    """Import the runner from its file; on a board it lies beside this one."""
    spec = importlib.util.spec_from_file_location("edgeprune_runner", path)
    if spec is None or spec.loader is None:
        raise OSError(f"{path}: no runner")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class File:
    """One ONNX file with its two sessions."""

    def __init__(self, runner: Any, path: Path, args: argparse.Namespace, folder: str, number: int) -> None:
        import onnxruntime

        self.runner, self.path = runner, path
        self.plain = runner.open_session(path, args.threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, str(number))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            providers = ["CPUExecutionProvider"]
            self.watched = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise runner.RunnerError(f"{path}: onnxruntime cannot profile it: {error}") from None
        feeds = argparse.Namespace(inputs=None, shape=args.shape, seed=args.seed, batch=1)
        self.feeds = runner.make_feeds(self.plain, feeds)
        self.walls: list[int] = []
        self.repeats, self.lead, self.fastest = 1, False, 0
        self.counted: list[bool] = []  # of each watched run, whether it is more than warm-up

    def warm_up(self) -> None:
        """Run a few times, and learn how often a turn should repeat it."""
        costs = []
        for _ in range(3):
            start = time.perf_counter_ns()
            self.runner.run_once(self.path, self.plain, self.feeds)
            costs.append(time.perf_counter_ns() - start)
            self.runner.run_once(self.path, self.watched, self.feeds)
            self.counted.append(False)
        self.fastest = min(costs)
        self.repeats = int(min(MOST_REPEATS, max(1, SLOT_NS // max(1, min(costs)))))

    def time_plain(self) -> None:
        if self.lead:  # the caches hold what others left there; a user runs the same network again
            self.plain.run(None, self.feeds)
        for _ in range(self.repeats):
            start = time.perf_counter_ns()
            self.plain.run(None, self.feeds)
            self.walls.append(time.perf_counter_ns() - start)

    def time_watched(self) -> None:
        turn = [False] * self.lead + [True] * self.repeats
        for _ in turn:
            self.watched.run(None, self.feeds)
        self.counted += turn

    def answer(self) -> dict[str, Any]:
        """Close the profile and give its times: nanoseconds of whole runs, microseconds of operators."""
        written = Path(self.watched.end_profiling())
        events = json.loads(written.read_text())
        written.unlink()
        nodes, spans = operators(events, self.counted)
        return {"file": str(self.path), "wall_ns": self.walls, "watched_us": spans, "nodes": nodes}


def operators(
    events: Sequence[dict[str, Any]], counted: Sequence[bool]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Collect each operator's durations over runs, in the order of execution.

    Args:
        events: what onnxruntime's profiler wrote.
        counted: of each run, whether it counts; others were warm-up.
    """
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    kernels.sort(key=lambda e: e["ts"])
    rows: dict[str, dict[str, Any]] = {}
    place = 0
    for run, counts in zip(runs, counted, strict=True):
        end = run["ts"] + run["dur"]
        while place < len(kernels) and kernels[place]["ts"] <= end:
            event, place = kernels[place], place + 1
            if not counts:
                continue
            name = event["name"][: -len("_kernel_time")]
            if name not in rows:
                args = event["args"]
                shapes: list[list[int]] = [
                    next(iter(s.values()), []) for s in args.get("input_type_shape", [])
                ]
                rows[name] = {"name": name, "op": args.get("op_name", ""), "inputs": shapes, "us": []}
            rows[name]["us"].append(event["dur"])
    return list(rows.values()), [r["dur"] for r, counts in zip(runs, counted, strict=True) if counts]


def measure(runner: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Time the files, `together` at once and the first one with each lot, for `seconds` a lot."""
    emulated, before, cores = runner.emulator(), runner.state(), runner.pin(args.threads)
    first, rest = args.models[0], args.models[1:]
    parts = [rest[n : n + args.together] for n in range(0, len(rest), args.together)] or [[]]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        answers = [take_turns(runner, [first, *part], args, folder, emulated) for part in parts]
    return {
        "emulated": emulated,
        "machine": runner.machine(),
        "threads": args.threads,
        "cores": cores,
        "parts": answers,
        "before": before,
        "after": runner.state(),
    }


def take_turns(
    runner: Any, paths: Sequence[str], args: argparse.Namespace, folder: str, emulated: str | None
) -> list[dict[str, Any]]:
    """Open the files together and run them in turns; the first is the network as it is."""
    import numpy as np

    files = [File(runner, Path(path), args, folder, n) for n, path in enumerate(paths)]
    if emulated:
        for file in files:
            runner.run_once(file.path, file.plain, file.feeds)
            Path(file.watched.end_profiling()).unlink()
        return [{"file": str(file.path)} for file in files]
    for file in files:
        file.warm_up()
    for file in files:
        file.lead = files[0].fastest < LEAD_NS
    turns = [turn for file in files for turn in (file.time_plain, file.time_watched)]
    rng, rounds = np.random.default_rng(args.seed), 0
    until = time.perf_counter_ns() + int(args.seconds * 1e9)
    while rounds < MOST_ROUNDS and (rounds < LEAST_ROUNDS or time.perf_counter_ns() < until):
        rounds += 1
        for which in rng.permutation(len(turns)):
            turns[which]()
    return [file.answer() for file in files]


def main(argv: Sequence[str]) -> int:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser(description="time the operators of ONNX files")
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--runner", required=True)
    for name, number in (("threads", 1), ("seconds", 2.0), ("seed", 0), ("together", 5)):
        parser.add_argument(f"--{name}", type=type(number), default=number)
    parser.add_argument("--shape", action="append", default=[], help="NAME=1,3,224,224 for free dimensions")
    args = parser.parse_args(argv)
    runner = load_runner(args.runner)
    answer: dict[str, Any] = {"schema": SCHEMA}
    try:
        answer["layers"] = measure(runner, args)
    except (runner.RunnerError, MemoryError) as error:
        tip = getattr(error, "tip", "use a smaller model")
        answer["error"] = {"message": str(error) or "out of memory", "tip": tip}
    print(json.dumps(answer))
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
