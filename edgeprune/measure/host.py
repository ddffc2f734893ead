"""Time ONNX files on this machine, in a process of their own.

Gives a BenchResult; guarantees that a file that cannot be run is one BenchError with one line.
The runner is the file that a board runs too, and `result_of` reads its answer from either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import BenchError, EdgepruneError
from edgeprune.export.model_files import model_files
from edgeprune.measure import timings
from edgeprune.measure.request import BenchRequest
from edgeprune.records import BenchResult, ModelTiming, TimingRatio

RUNNER = Path(__file__).with_name("runner.py")
SCHEMA = 1
WORTH_SAYING = 1.005  # of what the A/A row is off by; the intervals are wider by less, too


def run_bench(request: BenchRequest) -> BenchResult:
    """Let the files take turns on pinned cores of this machine, and compare each to the first.

    Raises:
        BenchError: a file is missing, damaged, cannot be run or does not end, or a setting is out of range.
    """
    sizes = request.check()
    inputs = None if request.inputs is None else str(request.inputs)
    flags = request.runner_flags([str(path.absolute()) for path in request.models], inputs)
    answer = read_answer(*run_child([str(RUNNER), *flags], request.most_seconds), "bench")
    return result_of(answer, request, sizes)


def require_runnable(request: BenchRequest, *, error: type[EdgepruneError] = BenchError) -> None:
    """Load each file and run it once, in a process of its own under the request's time limit.

    Raises:
        error: a file is missing, no ONNX, cannot be loaded or run, kills its process, or does not end.
    """
    for path in request.models:
        model_files(path, error=error)
        inputs = None if request.inputs is None else str(request.inputs)
        flags = ["--probe", *request.runner_flags([str(path.absolute())], inputs)]
        read_answer(*run_child([str(RUNNER), *flags], 2 * request.limit_s + 60), "probe", error=error)


def run_child(arguments: Sequence[str], seconds: float) -> tuple[str, int, str]:
    """Run Python on these arguments; stdout, exit code, stderr.

    Raises:
        BenchError: no end after `seconds`.
    """
    command = [sys.executable, "-P", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(
            f"no result after {seconds:.0f} s", tip="give fewer files, fewer --seconds, or a smaller --limit"
        ) from None
    return done.stdout, done.returncode, done.stderr


def read_answer(
    stdout: str, code: int, stderr: str, job: str, *, error: type[EdgepruneError] = BenchError
) -> dict[str, Any]:
    """Take one job's answer from the runner's stdout, or raise what it says went wrong."""
    try:
        answer = json.loads(stdout.strip().splitlines()[-1])
        schema = answer["schema"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = (stderr.strip().splitlines() or ["no message"])[-1]
        how = f"died with signal {-code}" if code < 0 else f"gave no answer (exit {code})"
        raise error(f"the runner {how}: {last}", tip="edgeprune doctor says what is missing") from None
    if schema != SCHEMA:
        raise error(f"the runner has schema {schema}, this edgeprune {SCHEMA}", tip="upgrade the older one")
    if "error" in answer:
        raise error(answer["error"]["message"], tip=answer["error"]["tip"])
    if not isinstance(answer.get(job), dict | int):
        raise error(f"the runner's answer holds no {job!r}", tip="upgrade the older edgeprune")
    return {"value": answer[job]} if isinstance(answer[job], int) else dict(answer[job])


def result_of(
    answer: dict[str, Any], request: BenchRequest, sizes: Sequence[int], *, board: str | None = None
) -> BenchResult:
    """Summarise the runner's samples; files have the names that the user gave them."""
    settings, paths, deadline_ms = answer["settings"], request.models, request.deadline_ms
    seed, samples = settings["seed"], [np.asarray(s, dtype=np.float64) for s in answer["samples_ns"]]
    same = timings.time_ratio(samples[-1], samples[0], seed) if samples else None
    apart = timings.apart(same) if same is not None else 1.0
    rows, ratios = [], []
    for n, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        measured: dict[str, Any] = {}
        probes = answer["models"][n]["probes"]
        for name in ("load_ms", "first_ms", "peak_mb"):
            known = [probe[name] for probe in probes if probe[name] is not None]
            measured[name] = float(np.median(known)) if known else None
        if samples:
            measured["samples"] = samples[n].size
            for name, q in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
                measured[name] = timings.percentile_ms(samples[n], q, seed)
            if n:
                ratio = timings.widened(timings.time_ratio(samples[n], samples[0], seed), apart)
                ratios.append(TimingRatio(str(path), str(paths[0]), ratio))
        if answer["responses_ns"] and deadline_ms is not None:
            response = np.asarray(answer["responses_ns"][n], dtype=np.float64)
            measured["missed"] = timings.missed_share(response, deadline_ms, seed)
            measured["worst_ms"] = float(response.max()) / 1e6
        rows.append(ModelTiming(str(path), size, **measured))
    return BenchResult(
        models=tuple(rows),
        ratios=tuple(ratios),
        same=same,
        rounds=len(samples[0]) if samples else 0,
        threads=settings["threads"],
        batch=settings["batch"],
        seed=seed,
        machine=answer["machine"],
        cores=tuple(answer["cores"]),
        emulated=answer["emulated"],
        board=board,
        before=answer["before"],
        after=answer["after"],
        warnings=_warnings(answer, paths, samples, apart) if samples else (),
        rate_hz=settings["rate"],
        deadline_ms=deadline_ms,
    )


def _warnings(
    answer: dict[str, Any], paths: Sequence[Path], samples: Sequence[timings.FloatArray], apart: float
) -> tuple[str, ...]:
    """What to know before the numbers are believed."""
    settings = answer["settings"]
    cores, threads = answer["cores"], settings["threads"]
    said = list(timings.trust_warnings(answer["before"], answer["after"], cores, threads))
    if apart >= WORTH_SAYING:
        said.append(
            f"the first file against itself is off by {apart - 1:.1%}, more than its interval: the intervals"
            " of the ratios are wider by that"
        )
    for path, taken in zip(paths, samples, strict=False):  # the last samples are the first file's twin's
        most = 1e9 / float(taken.mean())
        if settings["rate"] and settings["rate"] > most:
            said.append(
                f"{path}: answers at most {_rate(most)} inputs/s, {_rate(settings['rate'])} come: the queue"
                " grows without bound, and the longer it is fed the more answers are late"
            )
    return tuple(said)


def _rate(hz: float) -> str:
    return f"{hz:,.0f}" if hz >= 100 else f"{hz:.3g}"
