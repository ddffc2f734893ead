"""The bake-off: every criterion at several sizes, seeds and recoveries, on the examples' networks.

    python -m benchmarks.criteria.bakeoff --net fashion_resnet --recovery none,compensate
    python -m benchmarks.criteria.bakeoff --net fashion_resnet --table

A cell is one (criterion, share of MACs, seed, recovery, allocation). Each is written as soon as it is
measured, and a killed run resumes. Within a column only the criterion differs: calibration samples (drawn
by the seed), the share of MACs (uniform: the same share out of every group), recovery, fine-tune samples
and learning rate are equal. Accuracy is on the whole test part, which no earlier stage saw. Each cell also
records which test samples it classifies differently from the dense network, so that differences can be
bootstrapped.

Recoveries: none (cut only), recalibrate (batch norm), compensate (closed form, then batch norm), finetune
(compensate, then distillation from the dense network). The fine-tune budget is counted in samples, not in
seconds, so that load on the machine does not change the ranking. Criterion `scratch` trains the same shape
from random weights on the same budget.
Elsewhere: measuring a cell (cells), tables and plots (tables), latency of the shapes (shape_latency),
Torch-Pruning (outside).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import recording
from benchmarks.criteria import tables
from benchmarks.criteria.cells import OUTSIDE, SCRATCH, Bench, bench_of

RESULTS = recording.RESULTS / "bakeoff"
BULK = ("cells", "dense_right", "variants")
CRITERIA = ("ib-gauss", "random", "taylor", "l2", "ib-jmi", "mrmr", "ib-edge", "fpgm", "hsic-lasso", "vib")
RATIOS = (0.7, 0.5, 1 / 3, 0.25, 0.15)
RECOVERIES = ("none", "recalibrate", "compensate", "finetune")


def key_of(criterion: str, ratio: float, seed: int, recovery: str, allocation: str) -> str:
    """A cell's name in the results."""
    return f"{criterion}|{ratio:.3f}|{seed}|{recovery}|{allocation}"


def read(path: Path) -> dict[str, Any]:
    """Results so far, or none."""
    return recording.read_result(path) if path.exists() else {"cells": {}}


def write(path: Path, found: dict[str, Any]) -> None:
    """Write cells and their summary; cells that another process wrote meanwhile stay.

    Raises:
        SystemExit: the file holds cells of other settings.
    """
    before = read(path)
    for name in ("settings", "dense", "net"):
        if name in before and before[name] != found[name]:
            raise SystemExit(f"'{path}' was measured with {name} {before[name]}, this run has {found[name]}")
    whole = {**before, **found, "cells": dict(sorted({**before["cells"], **found["cells"]}.items()))}
    recording.write_result(path, summary(whole), {k: whole[k] for k in BULK if k in whole})


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What a reader scans: settings, machine, and a row per criterion, size, recovery and allocation."""
    rest = {k: v for k, v in found.items() if k not in BULK and k not in ("benchmark", "rows")}
    return {"benchmark": "bakeoff", **rest, "rows": tables.summary_rows(found)}


def run(options: argparse.Namespace, path: Path) -> None:
    """Measure what is missing on a network of the examples."""
    before = read(path)
    dense = None
    if "dense_right" in before:  # measured by an earlier run of this file
        dense = tables.unpacked(before["dense_right"], before["settings"]["test_samples"])

    def make() -> Bench:
        return bench_of(options.net, options.calibration, options.epochs, dense)

    fill(path, options, make, options.net)


def fill(path: Path, options: argparse.Namespace, make: Callable[[], Bench], name: str) -> None:
    """Measure the missing cells; seeds outermost: a part of the grid is a whole grid of fewer seeds."""
    known = read(path)["cells"]
    missing = []
    for seed in options.seeds:
        for criterion in options.criteria:
            for ratio in options.ratios:
                left = [
                    r
                    for r in options.recovery
                    if key_of(criterion, ratio, seed, r, options.allocation) not in known
                    and (criterion != SCRATCH or r == "finetune")
                ]
                if left:
                    missing.append((criterion, ratio, seed, left))
    if not missing:
        return
    bench = make()
    found: dict[str, Any] = {
        "net": name,
        "dense": 100 * float(bench.dense.mean()),
        "dense_right": tables.packed(bench.dense),
        "settings": {
            "calibration": options.calibration,
            "finetune": bench.budget(),
            "threads": 1,
            "test_samples": len(bench.dense),
        },
        **recording.provenance(),
        "cells": {},
    }
    for done, (criterion, ratio, seed, recoveries) in enumerate(missing, 1):
        for recovery, cell in bench.measure(criterion, ratio, seed, recoveries, options.allocation):
            key = key_of(criterion, ratio, seed, recovery, options.allocation)
            found["cells"][key] = cell
            write(path, found)
            print(f"{done}/{len(missing)} {key} {cell['accuracy']:.2f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the missing cells, then print the table and draw the plots."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.bakeoff", description="Compare criteria."
    )
    parser.add_argument("--net", default="fashion_resnet")
    parser.add_argument("--criteria", type=lambda s: s.split(","), default=[*CRITERIA])
    parser.add_argument("--ratios", type=lambda s: [float(v) for v in s.split(",")], default=[*RATIOS])
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    parser.add_argument("--recovery", type=lambda s: s.split(","), default=["compensate"])
    parser.add_argument("--allocation", choices=("uniform", "sensitivity"), default="uniform")
    parser.add_argument("--calibration", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the equal fine-tune")
    parser.add_argument("--table", action="store_true", help="only print and plot what is there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    unknown = {*options.recovery} - {*RECOVERIES} | {*options.criteria} - {*CRITERIA, *OUTSIDE, SCRATCH}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    path = options.out / f"{options.net}.json"
    if not options.table:
        run(options, path)
        return
    found = read(path)
    print(tables.table(found))
    tables.plot(found, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
