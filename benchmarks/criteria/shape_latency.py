"""Latency of the bake-off's shapes: dense and uniformly cut at every size, in interleaved rounds.

    python -m benchmarks.criteria.shape_latency --net fashion_resnet

Under uniform allocation a size has one shape whichever criterion chose the channels, so one measurement
holds for all criteria of a column. It is written into the network's results as `latency` (ms at batch 1,
p50 and p90 with their intervals). A network that has one is not measured again without --again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.criteria import bakeoff
from benchmarks.criteria.cells import bench_of
from edgeprune.criteria.base import rank_in_groups
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import reexport
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.records import to_json
from edgeprune.search.groups import uniform
from edgeprune.surgery.cut import cut


def main(arguments: list[str] | None = None) -> None:
    """Export the shapes, measure them in one interleaved run, write and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.shape_latency", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--net", default="fashion_resnet")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for the benchmark of all")
    parser.add_argument("--again", action="store_true", help="measure it again")
    options = parser.parse_args(arguments)
    path = bakeoff.RESULTS / f"{options.net}.json"
    if "latency" in bakeoff.read(path) and not options.again:
        return
    torch.set_num_threads(1)
    bench = bench_of(options.net, 0, 0, np.ones(1, bool))
    rank = rank_in_groups(bench.couplings, np.random.default_rng(0).random(bench.couplings.count))
    made = {"1.000": bench.trace}
    for ratio in bakeoff.RATIOS:
        removed = uniform(bench.couplings, rank, bench.macs, ratio * bench.macs())
        made[f"{ratio:.3f}"] = cut(bench.trace, bench.couplings, removed)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, small in made.items():
            files.append(Path(folder) / f"{name}.onnx")
            export_onnx(reexport(small.graph, small.inputs, small.dynamic), files[-1])
        timed = run_bench(BenchRequest(tuple(files), threads=1, seconds=options.seconds))
    rows = {
        name: {"p50_ms": to_json(t.p50_ms), "p90_ms": to_json(t.p90_ms)}
        for name, t in zip(made, timed.models, strict=True)
    }
    latency = {
        "threads": 1,
        "batch": 1,
        "machine": timed.machine,
        "warnings": list(timed.warnings),
        "rows": rows,
    }
    bakeoff.write(path, bakeoff.read(path) | {"latency": latency})
    for name, row in rows.items():
        print(f"{name}  p50 {row['p50_ms']['value']:.3f} ms  p90 {row['p90_ms']['value']:.3f} ms")


if __name__ == "__main__":
    main()
