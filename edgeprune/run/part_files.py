"""ONNX files of pruned parts: exported, proven and timed beside the files of the dense parts.

    found = edgeprune.prune_parts(detector, [image, image], macs=0.5)
    for file in edgeprune.export_parts(found, "parts"):
        print(file.path, file.ratio)

What torch.export refuses of a model (a detector's last steps) stays in Python or in the device's own code
and calls these files. A part that is called in several shapes gives a file for each, as its sizes are fixed.

Guarantee: a file computes what the part in `found.module` computes, on seeded noise; the folder is written
whole or not at all.
Elsewhere: finding and pruning the parts (parts), whole models (compress).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgeprune.errors import OptionError
from edgeprune.graph.trace import trace
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.records import BenchResult, Interval, OnnxArtifact
from edgeprune.run.parts import PrunedParts
from edgeprune.session.exporting import export_trace, parity_inputs
from edgeprune.store import whole_folder, write_json

pytree = torch.utils._pytree


@dataclass(frozen=True)
class PartFile:
    """One way to call a part, as a file.

    path: of the part in the model. inputs: shapes with batch. file, dense_file: names in the folder.
    calls: samples of the example that came this way. bench: the dense file first, with a batch of 1.
    """

    path: str
    inputs: tuple[tuple[int, ...], ...]
    file: str
    dense_file: str
    calls: int
    artifact: OnnxArtifact
    bench: BenchResult

    @property
    def ratio(self) -> Interval:
        """The median latency of the pruned file over that of the dense one."""
        return self.bench.ratios[0].ratio


def export_parts(
    pruned: PrunedParts,
    folder: str | Path,
    *,
    opset: int = 18,
    threads: int = 1,
    seconds: float = 3.0,
    seed: int = 0,
) -> tuple[PartFile, ...]:
    """Write `PART.onnx` and `PART.dense.onnx` for every part, and `parts.json` with what is returned.

    Args:
        folder: a new folder. seconds: of timing, for each pair of files.

    Raises:
        OptionError: seconds or threads that time nothing.
        OutputError: the folder is there already, or cannot be written.
        ExportError, ParityError: a part does not become a faithful file.
        BenchError: a file cannot be timed.
    """
    if threads < 1 or not seconds > 0:
        raise OptionError(f"export_parts: threads {threads} and seconds {seconds:g}; both are above 0")
    files = []
    with whole_folder(Path(folder)) as temporary:
        for part in pruned.found:
            module = pruned.module.get_submodule(part.path)
            for number, (way, dense) in enumerate(zip(part.ways, part.traces, strict=True)):
                stem = part.path + (f".{number}" if len(part.ways) > 1 else "")
                name, dense_name = f"{stem}.onnx", f"{stem}.dense.onnx"
                inputs = pytree.tree_map(lambda x: x[:2], way.inputs)
                small = trace(way.around(module), inputs)
                calls = parity_inputs(small, None, None, seed=seed)
                export_trace(dense, calls, temporary / dense_name, opset=opset)
                artifact = export_trace(small, calls, temporary / name, opset=opset)
                pair = (temporary / dense_name, temporary / name)
                bench = run_bench(BenchRequest(pair, threads, seconds, seed=seed, probes=0))
                shapes = tuple(tuple(x.shape) for x in small.inputs)
                files.append(PartFile(part.path, shapes, name, dense_name, way.rows, artifact, bench))
        write_json(temporary / "parts.json", files)
    return tuple(files)
