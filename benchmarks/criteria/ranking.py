"""How reliable a ranking is: against other samples, and against single-channel ablation.

    python -m benchmarks.criteria.ranking --net fashion_plain

Stability: each criterion scores disjoint calibration samples of several sizes. Reported are the mean over
pairs of Spearman's rank correlation within groups (groups weighted by their size), and the share of the
kept half that two resamples agree on. Chance gives 0 and 0.5.
Truth: every channel is removed alone, and the divergence of the outputs (KL in nats) from the dense ones is
measured on validation samples, with the consumers unchanged (`alone`) and refitted in closed form
(`absorbed`). Reported is Spearman's correlation of a criterion's score with either, within groups. A
channel's value alone is not its value when others are removed too; the bake-off measures that.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks import recording
from benchmarks.criteria.cells import bench_of
from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.components import Couplings
from edgeprune.criteria import Context, score
from edgeprune.graph.execution import batches
from edgeprune.search.ablation import ablated, losses

CRITERIA = ("ib-gauss", "ib-jmi", "ib-edge", "mrmr", "hsic-lasso", "vib", "taylor", "fpgm", "l2", "random")
STABLE = ("ib-gauss", "ib-jmi", "ib-edge", "mrmr", "taylor")  # what depends on samples and trains nothing
SIZES = (64, 128, 256, 512, 1024)
RESAMPLES = 3
JUDGED = 250
TOGETHER = 64  # removals whose changed tensors are held at a time


def within(couplings: Couplings, a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation within groups, weighted by their size; constant groups count as 0."""
    total = weight = 0.0
    for group in range(len(couplings.group_names)):
        rows = np.flatnonzero(couplings.group == group)
        if len(rows) < 3:
            continue
        weight += len(rows)
        if np.ptp(a[rows]) > 0 and np.ptp(b[rows]) > 0:
            total += len(rows) * float(spearmanr(a[rows], b[rows]).statistic)
    return total / max(weight, 1.0)


def agreement(couplings: Couplings, a: np.ndarray, b: np.ndarray) -> float:
    """Share of the better half of one ranking that is also in the better half of the other."""
    both = kept = 0
    for group in range(len(couplings.group_names)):
        rows = np.flatnonzero(couplings.group == group)
        half = len(rows) // 2
        first, second = (set(rows[np.argsort(r[rows])][half:].tolist()) for r in (a, b))
        both, kept = both + len(first & second), kept + len(first)
    return both / max(kept, 1)


def stability(bench: Any, size: int) -> dict[str, dict[str, float]]:
    """criterion -> mean correlation and agreement over pairs of resamples of one size."""
    order = np.random.default_rng(0).permutation(len(bench.train[1]))
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in STABLE}
    for i in range(RESAMPLES):
        chosen = np.sort(order[i * size : (i + 1) * size])
        statistics = capture(bench.trace, bench.couplings, bench.data, chosen, task=bench.task, seed=i)
        for name in STABLE:
            ranks[name].append(score(name, Context(bench.trace, bench.couplings, statistics, 0)).rank)
    found = {}
    for name in STABLE:
        pairs = list(combinations(ranks[name], 2))
        found[name] = {
            "spearman": round(float(np.mean([within(bench.couplings, *p) for p in pairs])), 4),
            "kept_half": round(float(np.mean([agreement(bench.couplings, *p) for p in pairs])), 4),
        }
    return found


def ablation(bench: Any, statistics: Statistics) -> dict[str, np.ndarray]:
    """What each component's removal alone costs, nats per sample, shapes (count,)."""
    couplings, judged = bench.couplings, [x for x, _ in batches(bench.validation, np.arange(JUDGED), 250)]
    found: dict[str, list[float]] = {"alone": [], "absorbed": []}
    for first in range(0, couplings.count, TOGETHER):
        single = [
            np.arange(couplings.count) == c for c in range(first, min(first + TOGETHER, couplings.count))
        ]
        for kind, values in found.items():
            absorb = kind == "absorbed"
            variants = [
                ablated(bench.trace.graph, couplings, statistics, removed, absorb=absorb)
                for removed in single
            ]
            values += losses(bench.trace, variants, judged, bench.task)
    return {k: np.array(v) for k, v in found.items()}


def truth(bench: Any) -> dict[str, Any]:
    """criterion -> correlation of its score with either ablation."""
    statistics = bench.seeded(0)[0]
    losses = ablation(bench, statistics)
    found = {}
    for name in CRITERIA:
        scores = score(name, Context(bench.trace, bench.couplings, statistics, 0))
        place = scores.rank.astype(float)
        found[name] = {k: round(within(bench.couplings, place, v), 4) for k, v in losses.items()}
        if "initial_nats" in scores.details:  # before any removal: what the score says of a channel alone
            first = scores.details["initial_nats"]
            found[f"{name}, first step"] = {
                k: round(within(bench.couplings, first, v), 4) for k, v in losses.items()
            }
    return found


def measure(options: argparse.Namespace) -> None:
    """Measure what is missing; each part is written as soon as it is measured."""
    settings = {"net": options.net, "resamples": RESAMPLES, "judged_samples": JUDGED}
    found: dict[str, Any] = settings | {"stability": {name: {} for name in STABLE}}
    if options.out.exists():
        found = recording.read_result(options.out)
        if {k: found[k] for k in settings} != settings:
            raise SystemExit(f"'{options.out}' was measured with other settings than {settings}")
    sizes = [s for s in options.sizes if str(s) not in found["stability"][STABLE[0]]]
    if not sizes and "truth" in found:
        return
    bench = bench_of(options.net, 1024, 0, np.ones(1, bool))
    for size in sizes:
        for name, row in stability(bench, size).items():
            found["stability"][name][str(size)] = row
        write(options.out, found)
        print(f"{size} samples done", flush=True)
    if "truth" not in found:
        found["truth"] = truth(bench)
        write(options.out, found)


def write(path: Path, found: dict[str, Any]) -> None:
    """Both parts with where they were measured."""
    recording.write_result(path, found | {"benchmark": "ranking"} | recording.provenance())


def table(found: dict[str, Any]) -> str:
    """Both parts as text."""
    sizes = list(next(iter(found["stability"].values())))
    lines = [
        f"{found['net']}: rank correlation (share of the kept half) between resamples",
        "criterion   " + "".join(f"{s:>16}" for s in sizes),
    ]
    for name, row in found["stability"].items():
        cells = "".join(f"{row[s]['spearman']:>8.2f} ({row[s]['kept_half']:.2f})" for s in sizes)
        lines.append(f"{name:12}{cells}")
    lines += ["", f"{'criterion':24}{'alone':>10}{'absorbed':>10}"]
    for name, row in found["truth"].items():
        lines.append(f"{name:24}{row['alone']:>10.2f}{row['absorbed']:>10.2f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure both parts, write them, print them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.ranking", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--net", default="fashion_plain")
    parser.add_argument("--sizes", type=lambda s: tuple(int(v) for v in s.split(",")), default=SIZES)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--out", type=Path, default=recording.RESULTS / "ranking.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not options.table:
        measure(options)
    print(table(recording.read_result(options.out)))


if __name__ == "__main__":
    main()
