"""Other ways to choose channels and to fine-tune, at a quarter of the residual network's multiply-adds.

    python -m benchmarks.criteria.variants

These test whether a better choice of channels than the default exists: channels scored again after a first
cut to half, the first step of the elimination only, another ridge, four times the calibration samples. They
also test the additional losses of the fine-tune, `ib_beta` and `features`. Cells are those of the bake-off
with uniform allocation; they go to results/bakeoff/variants.json, and a run that was stopped resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.criteria import bakeoff, tables
from benchmarks.criteria.cells import Bench, bench_of
from edgeprune.calibration.capture import capture
from edgeprune.criteria import Context, ib_gauss, score
from edgeprune.recovery import recover_closed_form
from edgeprune.search.groups import in_order, uniform
from edgeprune.search.state import RoundRecord, advance, dense_state
from edgeprune.session.options import Options
from edgeprune.surgery.cut import retrace

NET, RATIO, FIRST = "fashion_resnet", 0.25, 0.5
RECOVERIES = ["compensate", "finetune"]
Choice = Callable[[Bench, int], np.ndarray]


def plain(criterion: str) -> Choice:
    """As the bake-off itself."""
    return lambda bench, seed: bench.removal(criterion, RATIO, seed, "uniform")


def again(criterion: str) -> Choice:
    """Cut to half, compensate, capture and score what is left, cut the rest."""

    def choose(bench: Bench, seed: int) -> np.ndarray:
        half = bench.removal(criterion, FIRST, seed, "uniform")
        calibration = bench.seeded(seed)[1]
        small = recover_closed_form(bench.trace, bench.couplings, half, calibration)[0]
        dense = dense_state(bench.trace, bench.couplings)
        state = advance(dense, retrace(small), half, RoundRecord(), Options())
        samples = bench.samples(seed)
        found = capture(state.trace, state.couplings, bench.data, samples, task=bench.task, seed=seed)
        rank = score(criterion, Context(state.trace, state.couplings, found, seed)).rank
        now = uniform(state.couplings, rank, state.couplings.macs, RATIO * bench.macs())
        removed = state.removed.copy()
        removed[state.origin[now]] = True
        return removed

    return choose


def first_step(bench: Bench, seed: int) -> np.ndarray:
    """By the information of a channel before any removal."""
    context = Context(bench.trace, bench.couplings, bench.seeded(seed)[0], seed)
    rank = np.argsort(np.argsort(score("ib-gauss", context).details["initial_nats"], kind="stable"))
    return uniform(bench.couplings, rank, bench.macs, RATIO * bench.macs())


def ridge(bench: Bench, seed: int) -> np.ndarray:
    """A hundred times the default's ridge."""
    with patch.object(ib_gauss, "RIDGE", 100 * ib_gauss.RIDGE):
        context = Context(bench.trace, bench.couplings, bench.seeded(seed)[0], seed)
        rank = score("ib-gauss", context).rank
    return uniform(bench.couplings, rank, bench.macs, RATIO * bench.macs())


def swapped(bench: Bench, seed: int) -> np.ndarray:
    """The default's choice but for one channel in ten of those kept, drawn from those that went."""
    couplings, rank = bench.couplings, bench.rank("ib-gauss", seed)[0]
    removed, rng = plain("ib-gauss")(bench, seed), np.random.default_rng(seed)
    for group in range(len(couplings.group_names)):
        rows = in_order(couplings, rank, group)
        gone, kept = rows[removed[rows]], rows[~removed[rows]]
        count = min(round(len(kept) / 10), len(gone))
        removed[rng.choice(kept, count, replace=False)] = True
        removed[rng.choice(gone, count, replace=False)] = False
    return removed


VARIANTS: dict[str, tuple[Choice, dict[str, float], int]] = {  # how to choose, to fine-tune, samples
    "`ib-gauss`": (plain("ib-gauss"), {}, 1024),
    "`l2`": (plain("l2"), {}, 1024),
    "`ib-gauss`, scored again after a first cut to half": (again("ib-gauss"), {}, 1024),
    "`l2`, scored again after a first cut to half": (again("l2"), {}, 1024),
    "`ib-gauss`, its first step only": (first_step, {}, 1024),
    "`ib-gauss`, ridge 10⁻² instead of 10⁻⁴": (ridge, {}, 1024),
    "`ib-gauss`, a tenth of the kept exchanged by chance": (swapped, {}, 1024),
    "`ib-gauss` on 4,096 samples": (plain("ib-gauss"), {}, 4096),
    "`ib-gauss`, fine-tune with `--ib-beta 0.01`": (plain("ib-gauss"), {"ib_beta": 0.01}, 1024),
    "`ib-gauss`, fine-tune with `--ib-beta 0.1`": (plain("ib-gauss"), {"ib_beta": 0.1}, 1024),
    "`ib-gauss`, fine-tune with `--features 1`": (plain("ib-gauss"), {"features": 1.0}, 1024),
}


def measure(seeds: list[int]) -> dict[str, Any]:
    """Every cell that is missing, written as it comes; `variants`: variant -> recovery -> seed -> cell."""
    path = bakeoff.RESULTS / "variants.json"
    found = bakeoff.read(path) | {"net": NET}
    variants = found.setdefault("variants", {})
    bench: Bench | None = None
    for seed in seeds:
        for name, (choose, tuning, samples) in VARIANTS.items():
            rows = variants.setdefault(name, {recovery: {} for recovery in RECOVERIES})
            wanted = ["finetune"] if tuning else RECOVERIES
            if all(str(seed) in rows[recovery] for recovery in wanted):
                continue
            if bench is None or bench.calibration != samples:
                bench = bench_of(NET, samples, 3, None if bench is None else bench.dense)
                found["dense"] = 100 * float(bench.dense.mean())
                found["dense_right"] = tables.packed(bench.dense)
                found["settings"] = {"finetune": bench.budget(), "test_samples": len(bench.dense)}
            bench.tuning = tuning
            for recovery, cell in bench.cells(choose(bench, seed), seed, wanted, {}):
                rows[recovery][str(seed)] = cell
                print(f"{name} {seed} {recovery} {cell['accuracy']:.2f}", flush=True)
            bakeoff.write(path, found)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.variants", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    measure(options.seeds)


if __name__ == "__main__":
    main()
