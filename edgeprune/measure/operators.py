"""Where an inference spends its time: files operator by operator, taking turns under the profiler.

Gives an OperatorProfile and, for quantisation, a timer of layers. Guarantees: the profiler's own cost is
taken off and an inference's total is timed without it; files take turns, so drift hits all of them.
Elsewhere: what the numbers mean (measure/why.py), whole-file ratios with intervals (measure/host.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import BenchError
from edgeprune.measure.files import total_bytes
from edgeprune.measure.host import run_bench
from edgeprune.records import FileProfile, LayerSize, OperatorProfile, OperatorTime

CHILD = Path(__file__).with_name("_profile_child.py")


def profile_operators(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    seconds: float = 4.0,
    batch: int = 1,
    seed: int = 0,
    inputs: Path | None = None,
    shapes: Sequence[str] = (),
) -> OperatorProfile:
    """Profile ONNX files in a process of their own; arguments as for `run_bench`.

    Raises:
        BenchError: a file is missing, damaged or cannot be run, or this is an emulator.
    """
    for path in paths:
        total_bytes(Path(path))  # refuses what is no model, with a better message than the runtime's
    job = {"files": [str(Path(p).absolute()) for p in paths], "threads": threads, "seconds": seconds}
    job |= {
        "batch": batch,
        "seed": seed,
        "inputs": None if inputs is None else str(inputs),
        "shape": list(shapes),
    }
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "job.json"
        written.write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, "-P", str(CHILD), str(written)], capture_output=True, text=True, check=False
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"the profiler gave no answer (exit {done.returncode}): {last}") from None
    if "error" in answer:
        raise BenchError(answer["error"]["message"], tip=answer["error"]["tip"])
    return OperatorProfile(
        files=tuple(_file(row, str(path)) for row, path in zip(answer["files"], paths, strict=True)),
        bandwidth=tuple((int(size), float(rate)) for size, rate in answer["bandwidth"]),
        overhead_us=answer["overhead_us"],
        machine=answer["machine"],
        threads=threads,
        batch=batch,
    )


def layer_times(profile: FileProfile) -> dict[str, float]:
    """Microseconds of each layer with everything that serves it."""
    found = {layer.name: 0.0 for layer in profile.layers}
    for row in profile.operators:
        if row.serves in found:
            found[row.serves] += row.us
    return found


class HostTimer:
    """Times files on this machine for `onnxfile.quantise`."""

    def __init__(self, *, threads: int = 1, seconds: float = 4.0, batch: int = 1) -> None:
        self._threads, self._seconds, self._batch = threads, seconds, batch

    def layer_times(self, paths: Sequence[Path]) -> list[Mapping[str, float]]:
        """Microseconds of each layer of each file."""
        found = profile_operators(paths, threads=self._threads, seconds=self._seconds, batch=self._batch)
        return [layer_times(file) for file in found.files]

    def ratios(self, paths: Sequence[Path]) -> list[float]:
        """Time of each file by the first one's, paired by round."""
        found = run_bench(paths, threads=self._threads, seconds=self._seconds, batch=self._batch, probes=0)
        return [1.0, *(row.ratio.value for row in found.ratios)]


def _file(row: Mapping[str, Any], path: str) -> FileProfile:
    operators = tuple(OperatorTime(**{**o, "shape": tuple(o["shape"])}) for o in row["operators"])
    return FileProfile(path, row["total_us"], operators, tuple(LayerSize(**x) for x in row["layers"]))
