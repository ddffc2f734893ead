"""Where an inference spends its time: files operator by operator, taking turns under the profiler.

Gives an OperatorProfile and, for quantisation, a timer of layers. Guarantees: the profiler's own cost is
taken off and an inference's total is timed without it; files take turns, so drift hits all of them.
Elsewhere: what the numbers mean (measure/why.py), whole-file ratios with intervals (measure/host.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import BenchError
from edgeprune.measure.host import run_bench, run_child
from edgeprune.measure.request import BenchRequest
from edgeprune.records import FileProfile, LayerSize, OperatorProfile, OperatorTime

CHILD = Path(__file__).with_name("_profile_child.py")


def profile_operators(request: BenchRequest) -> OperatorProfile:
    """Profile ONNX files in a process of their own.

    Raises:
        BenchError: a file is missing, damaged or cannot be run, or this is an emulator.
    """
    request.check()  # refuses what is no model, with a better message than the runtime's
    job: dict[str, Any] = {
        "files": [str(path.absolute()) for path in request.models],
        "inputs": None if request.inputs is None else str(request.inputs),
        "shape": list(request.shapes),
    }
    job |= {name: getattr(request, name) for name in ("threads", "seconds", "batch", "seed", "limit_s")}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "job.json"
        written.write_text(json.dumps(job))
        stdout, code, stderr = run_child([str(CHILD), str(written)], request.most_seconds)
    try:
        answer: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"the profiler gave no answer (exit {code}): {last}") from None
    if "error" in answer:
        raise BenchError(answer["error"]["message"], tip=answer["error"]["tip"])
    return OperatorProfile(
        files=tuple(_file(row, str(path)) for row, path in zip(answer["files"], request.models, strict=True)),
        bandwidth=tuple((int(size), float(rate)) for size, rate in answer["bandwidth"]),
        overhead_us=answer["overhead_us"],
        machine=answer["machine"],
        threads=request.threads,
        batch=request.batch,
    )


def layer_times(profile: FileProfile) -> dict[str, float]:
    """Microseconds of each layer with everything that serves it."""
    times = {layer.name: 0.0 for layer in profile.layers}
    for row in profile.operators:
        if row.serves in times:
            times[row.serves] += row.us
    return times


class HostTimer:
    """Times files on this machine for `export.quantisation.quantise`."""

    def __init__(self, *, threads: int = 1, seconds: float = 4.0, batch: int = 1) -> None:
        self._threads, self._seconds, self._batch = threads, seconds, batch

    def layer_times(self, paths: Sequence[Path]) -> list[Mapping[str, float]]:
        """Microseconds of each layer of each file."""
        return [layer_times(file) for file in profile_operators(self._request(paths)).files]

    def ratios(self, paths: Sequence[Path]) -> list[float]:
        """Time of each file by the first one's, paired by round."""
        return [1.0, *(row.ratio.value for row in run_bench(self._request(paths)).ratios)]

    def _request(self, paths: Sequence[Path]) -> BenchRequest:
        return BenchRequest(
            tuple(paths), threads=self._threads, seconds=self._seconds, batch=self._batch, probes=0
        )


def _file(row: Mapping[str, Any], path: str) -> FileProfile:
    operators = tuple(OperatorTime(**{**o, "shape": tuple(o["shape"])}) for o in row["operators"])
    return FileProfile(path, row["total_us"], operators, tuple(LayerSize(**x) for x in row["layers"]))
