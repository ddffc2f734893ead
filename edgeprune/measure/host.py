"""Time ONNX files on this machine, in a process of their own.

Gives a BenchResult; guarantees that a file that cannot be run is one BenchError with one line.
The runner is the file that a device runs too, and `result_of` reads its answer from either.
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
from edgeprune.measure import timings
from edgeprune.measure.files import total_bytes
from edgeprune.records import BenchResult, ModelTiming, TimingRatio

RUNNER = Path(__file__).with_name("runner.py")
SCHEMA = 1
WORTH_SAYING = 1.005  # of what the A/A row is off by; the intervals are wider by less, too


def run_bench(
    models: Sequence[Path],
    *,
    threads: int = 1,
    seconds: float = 5.0,
    batch: int = 1,
    seed: int = 0,
    inputs: Path | None = None,
    shapes: Sequence[str] = (),
    rate: float | None = None,
    deadline_ms: float | None = None,
    probes: int = 3,
) -> BenchResult:
    """Let the files take turns on pinned cores of this machine for `seconds`, and compare them to the first.

    Args:
        models: ONNX files; external data is found beside them.
        threads: intra-op threads, and cores that the process is bound to.
        batch: size of a dynamic leading dimension.
        inputs: npz of recorded inputs, named as the model's or input_0, input_1, ...
        shapes: "NAME=1,3,224,224" for inputs with further free dimensions.
        probes: fresh processes per file that measure load time, first inference and memory; 0 for none.
        rate, deadline_ms: also feed inputs at `rate` a second and give the share answered too late.

    Raises:
        BenchError: a file is missing, damaged or cannot be run, or the settings make no sense.
    """
    paths = [Path(model) for model in models]
    sizes = check_request(paths, threads, seconds, batch, rate, deadline_ms)
    command = [sys.executable, "-P", str(RUNNER), "--json"]
    command += runner_arguments(threads, seconds, batch, seed, shapes, rate)
    command += [f"--inputs={inputs}"] if inputs else []
    command += [f"--probes={probes}"]
    command += ["--", *(str(path.absolute()) for path in paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    answer = read_answer(done.stdout, done.returncode, done.stderr, "bench")
    return result_of(answer, paths, sizes, deadline_ms=deadline_ms)


def check_request(
    paths: Sequence[Path],
    threads: int,
    seconds: float,
    batch: int,
    rate: float | None,
    deadline_ms: float | None,
) -> list[int]:
    """Refuse what cannot be measured before anything starts; gives the sizes of the files in bytes."""
    if not paths:
        raise BenchError("no ONNX file to time", tip="give one or more: edgeprune bench A.onnx B.onnx")
    for name, value, least in (("threads", threads, 1), ("batch", batch, 1), ("seconds", seconds, 0)):
        if not least <= value < 1e6:
            raise BenchError(f"--{name} {value}: out of range", tip=f"--{name} is at least {least}")
    if (rate is None) != (deadline_ms is None):
        raise BenchError("--rate and --deadline-ms belong together", tip="give both or neither")
    if rate is not None and not (0 < rate <= 1e5 and deadline_ms is not None and deadline_ms > 0):
        raise BenchError(
            f"--rate {rate} --deadline-ms {deadline_ms}: out of range", tip="both are above zero"
        )
    return [total_bytes(path) for path in paths]


def runner_arguments(
    threads: int, seconds: float, batch: int, seed: int, shapes: Sequence[str], rate: float | None
) -> list[str]:
    """The runner's flags, the same for this machine and a device."""
    flags = [f"--threads={threads}", f"--seconds={seconds}", f"--batch={batch}", f"--seed={seed}"]
    flags += [f"--shape={shape}" for shape in shapes]
    return flags + ([f"--rate={rate}"] if rate is not None else [])


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
        raise error(
            f"the runner speaks schema {schema}, this edgeprune {SCHEMA}", tip="upgrade the older one"
        )
    if "error" in answer:
        raise error(answer["error"]["message"], tip=answer["error"]["tip"])
    if not isinstance(answer.get(job), dict | int):
        raise error(f"the runner's answer holds no {job!r}", tip="upgrade the older edgeprune")
    return {"value": answer[job]} if isinstance(answer[job], int) else dict(answer[job])


def result_of(
    answer: dict[str, Any],
    paths: Sequence[Path],
    sizes: Sequence[int],
    *,
    deadline_ms: float | None = None,
    device: str | None = None,
) -> BenchResult:
    """Summarise the runner's samples; `paths` are the files' names as the user gave them."""
    settings = answer["settings"]
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
        device=device,
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
