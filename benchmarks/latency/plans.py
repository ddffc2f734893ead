"""One trained network, planned in several ways at several sizes: files, accuracy and interleaved timing.

Only the plan differs. Channels of our plans are ranked by ib-gauss; widths are chosen by measured
sensitivity against a cost: predicted milliseconds, MACs, or MACs with widths restricted to the multiples of
the host's staircase. Torch-Pruning's plans are those of its own pruner. Recovery (closed form, batch norm,
then the equal fine-tune of the bake-off), exporter and timing are the same for all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.criteria import tables
from benchmarks.criteria.cells import Bench, bench_of
from benchmarks.latency.outside import outside_removal
from benchmarks.latency.prediction import profiled
from edgeprune.coupling.components import RemovalCost
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import Trace, reexport
from edgeprune.latency import Profile, latency_cost
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.staircase import staircase
from edgeprune.records import to_json
from edgeprune.search.allocate import allocate
from edgeprune.store import read_record, write_json
from edgeprune.surgery.cut import cut

SHARES = {
    "latency": (0.7, 0.55, 0.43, 0.34, 0.27, 0.21),  # of the dense network's predicted milliseconds
    "macs": (0.6, 0.42, 0.3, 0.21, 0.15, 0.1),
    "macs-aligned": (0.6, 0.42, 0.3, 0.21, 0.15, 0.1),
}
RATIOS = (0.2, 0.33, 0.45, 0.55, 0.63, 0.7)  # of channels, for Torch-Pruning
OUTSIDE = [(c, r) for c in ("tp-l2", "tp-taylor", "tp-bn-scale") for r in (None, 8)]
LEVELS = (0.5, 1.0, 2.0)  # points of accuracy lost at which files are compared
TOGETHER, SEED = 6, 0
RECOVERIES = ("compensate", "finetune")
DRAWS = 2000


def removals(bench: Bench, profile: Profile, block: int) -> dict[str, np.ndarray]:
    """Plan name (method@size) -> components to remove.

    Args:
        block: channels that the host's staircase asks for, of `macs-aligned`.
    """
    couplings = bench.couplings
    predicted = latency_cost(profile, bench.trace, couplings)
    rank, curves = bench.rank("ib-gauss", SEED)[0], bench.curves("ib-gauss", SEED)
    found = {}
    for method, shares in SHARES.items():
        cost: RemovalCost = predicted if method == "latency" else bench.macs
        whole = cost(np.zeros(couplings.count, bool))
        align = block if method == "macs-aligned" else 1
        for share in shares:
            found[f"{method}@{share}"] = allocate(couplings, rank, curves, cost, share * whole, align=align)
    for criterion, rounding in OUTSIDE:
        method = criterion if rounding is None else f"{criterion}-round{rounding}"
        for ratio in RATIOS:
            found[f"{method}@{ratio}"] = outside_removal(criterion, bench.subject(), ratio, rounding)
    return found


def prepare(name: str, work: Path, seconds: float, *, only_profile: bool = False) -> None:
    """Profile, files and accuracies of every plan, as far as they are not there yet."""
    bench = bench_of(name, 1024, 3)
    profile = profiled(name, bench.trace, bench.couplings, work, 120, seconds)
    block = staircase(cache=work).alignment
    if only_profile:
        return
    cells = _cells(work)
    cells |= {"dense_right": tables.packed(bench.dense), "samples": len(bench.dense)}
    export(bench.trace, work / "dense.onnx")
    for plan, removed in removals(bench, profile, block).items():
        export(cut(bench.trace, bench.couplings, removed), work / f"{plan}.onnx")
        if plan not in cells["plans"]:
            cells["plans"][plan] = dict(bench.cells(removed, SEED, list(RECOVERIES), {}))
            write_json(work / "cells.json", cells)
            drops = ", ".join(f"{r} {cells['plans'][plan][r]['drop']:+.2f}" for r in RECOVERIES)
            print(f"{name} {plan}: {drops}", file=sys.stderr, flush=True)


def export(network: Trace, path: Path) -> None:
    """Export the ONNX file of a shape, unless it exists."""
    if not path.exists():
        export_onnx(reexport(network.graph, network.inputs, network.dynamic), path)


def time_files(work: Path, seconds: float) -> dict[str, Any]:
    """Plan -> ratio to the dense file; lots of plans take turns with it, each lot a size of every method."""
    plans = list(_cells(work)["plans"])
    methods = list(dict.fromkeys(p.split("@")[0] for p in plans))
    sizes = [[p for p in plans if p.split("@")[0] == m] for m in methods]
    ratios: dict[str, Any] = {}
    for lot in zip(*sizes, strict=True):
        files = (work / "dense.onnx", *(work / f"{p}.onnx" for p in lot))
        bench = run_bench(BenchRequest(files, seconds=seconds, probes=0))
        for plan, row in zip(lot, bench.ratios, strict=True):
            ratios[plan] = to_json(row.ratio)
    write_json(work / "ratios.json", ratios)
    return ratios


def compared(name: str, work: Path, ratios: dict[str, Any], recovery: str) -> list[dict[str, Any]]:
    """Each method at each level of loss: its time by the dense file's, and by the latency-planned file's.

    A method's time at a level is read off its fastest files that lose less and more, between which the
    logarithm of time is linear in the loss; the dense file counts for every method. A method whose
    smallest file loses less than the level stands with that file: its true time may be lower. Intervals
    (95%) are of the test samples, drawn again, the same for all methods; those of the times are narrower
    and not in them.
    """
    cells = _cells(work)
    count = cells["samples"]
    dense = tables.unpacked(cells["dense_right"], count).astype(np.float32)
    wrongs, times, methods = [], [], []
    for plan, found in cells["plans"].items():
        right = tables.unpacked(found[recovery]["differs"], count) ^ (dense > 0)
        wrongs.append(dense - right)
        times.append(ratios[plan]["value"])
        methods.append(plan.split("@")[0])
    lost, log_times, owner = np.stack(wrongs), np.log(times), np.array(methods)
    rng = np.random.default_rng(0)
    draws = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(DRAWS)])
    drops = 100 * np.concatenate([lost.mean(1)[:, None], lost @ draws.T.astype(np.float32) / count], axis=1)
    rows = []
    for level in LEVELS:
        at = {
            m: np.array([log_time_at(level, d, log_times[owner == m]) for d in drops[owner == m].T])
            for m in dict.fromkeys(methods)
        }
        for method, found in at.items():
            own, against = np.exp(found), np.exp(found - at["latency"])
            rows.append(
                {"network": name, "recovery": recovery, "points": level, "method": method}
                | {"time": own[0], "time_interval": _interval(own[1:])}
                | {"slower": against[0], "slower_interval": _interval(against[1:])}
                | {"all_within": bool((drops[owner == method, 0] <= level).all())}
            )
    return rows


def log_time_at(level: float, drops: np.ndarray, log_times: np.ndarray) -> float:
    """Logarithm of the time at a loss in points, on the envelope of files and the dense one at (0, 0)."""
    order = np.argsort(-log_times)  # slowest first
    lost = np.concatenate([[0.0], drops[order]])
    time = np.concatenate([[0.0], log_times[order]])
    last = int(np.flatnonzero(lost <= level)[-1])  # the dense file always is
    if last + 1 == len(lost):
        return float(time[last])
    after = last + 1 + int(np.argmin(lost[last + 1 :]))
    share = (level - lost[last]) / (lost[after] - lost[last])
    return float(time[last] + share * (time[after] - time[last]))


def _interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.percentile(values, [2.5, 97.5])]


def _cells(work: Path) -> dict[str, Any]:
    path = work / "cells.json"
    return read_record(path) if path.exists() else {"plans": {}}
