"""How latency climbs with the width of a layer on this machine, measured.

Kernels work on blocks of channels: on some processors a width of 62 costs more than 64,
on others cost falls with every channel. Small convolutions of many widths take turns,
and the alignment is the largest block that widths can be rounded *up* to for free. No
multiple is assumed; the answer is kept per processor, onnxruntime version and threads.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np

from edgeprune.errors import OutputError, RunError
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.timings import disturbances
from edgeprune.records import to_json
from edgeprune.records.schema import Range, read_json
from edgeprune.store import write_json

SCHEMA = 2
WIDTHS = (32, 33, 34, 36, 37, 38, 40, 42, 44, 45, 46, 48, 52, 56, 64)
BLOCKS = (2, 4, 8, 16)
Times: TypeAlias = Annotated[float, Range(1e-6, 1e6)]
TOLERANCE = 1.04  # rounding up may cost this much and still count as free


@dataclass(frozen=True)
class Staircase:
    """Relative time of a stack of convolutions by width, and the block it implies.

    relative: width -> median time over that of the first width, with its interval.
    warnings: what makes it less trustworthy.
    """

    processor: str
    onnxruntime: str
    threads: int
    relative: dict[int, tuple[float, float, float]]
    alignment: int
    warnings: tuple[str, ...] = ()


def staircase(*, threads: int = 1, seconds: float = 6.0, cache: Path | None = None) -> Staircase:
    """Measure, or read what was measured before on this processor and onnxruntime.

    What was taken beside other work, or with the board throttled, is not kept for the next time.

    Args:
        cache: folder of earlier measurements; by default $EDGEPRUNE_CACHE or ~/.cache/edgeprune.

    Raises:
        BenchError: onnxruntime cannot run a plain convolution here.
    """
    import onnxruntime

    folder = cache or Path(os.environ.get("EDGEPRUNE_CACHE", "~/.cache/edgeprune")).expanduser()
    file = folder / f"staircase-{_slug(_processor())}-ort{onnxruntime.__version__}-t{threads}.json"
    stored = _read(file)
    if stored is not None:
        return stored
    with tempfile.TemporaryDirectory() as scratch:
        paths = tuple(_write_stack(Path(scratch) / f"w{w}.onnx", w) for w in WIDTHS)
        result = run_bench(BenchRequest(paths, threads=threads, seconds=seconds, probes=0))
    relative = {WIDTHS[0]: (1.0, 1.0, 1.0)}
    for width, row in zip(WIDTHS[1:], result.ratios, strict=True):
        relative[width] = (row.ratio.value, row.ratio.low, row.ratio.high)
    measured = Staircase(
        _processor(),
        onnxruntime.__version__,
        threads,
        relative,
        alignment({w: r[0] for w, r in relative.items()}),
        result.warnings,
    )
    if disturbances(result.before, result.after, result.cores, threads):
        return measured
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {"schema": SCHEMA, **to_json(measured)})
    except (OSError, OutputError):
        return measured  # a cache that cannot be written costs a few seconds next time
    return measured


def alignment(times: dict[int, float]) -> int:
    """The largest block to which every measured width can be rounded up for free; 1 where none can."""
    best = 1
    for block in BLOCKS:
        pairs = [(w, -(-w // block) * block) for w in times if w % block]
        costs = [times[up] / times[w] for w, up in pairs if up in times]
        if costs and max(costs) <= TOLERANCE:
            best = block
    return best


def _write_stack(path: Path, width: int) -> Path:
    """Three 3×3 convolutions of equal width with ReLU on a 14×14 map."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(width)
    nodes, weights, last = [], [], "x"
    for i in range(3):
        kernel = rng.standard_normal((width, width, 3, 3), dtype=np.float32) / np.float32(3 * width**0.5)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    shape = [1, width, 14, 14]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", last)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith(("model name", "Hardware", "Model\t")):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())[:60]


def _read(file: Path) -> Staircase | None:
    """What was measured before; None where the cache holds nothing usable."""
    try:
        stored = read_json(_Stored, file)
    except RunError:
        return None
    relative = {int(width): row for width, row in stored.relative.items() if width.isdecimal()}
    if set(relative) != set(WIDTHS):
        return None
    return Staircase(
        stored.processor, stored.onnxruntime, stored.threads, relative, stored.alignment, stored.warnings
    )


@dataclass(frozen=True)
class _Stored:
    schema: Literal[2]
    processor: str
    onnxruntime: str
    threads: Annotated[int, Range(1, 4096)]
    relative: dict[str, tuple[Times, Times, Times]]
    alignment: Literal[1, 2, 4, 8, 16]
    warnings: tuple[str, ...]
