"""What each criterion estimates, from how many samples, and how long it takes: one scoring per network.

    python -m benchmarks.criteria.scoring

Processor seconds of one thread, without the capture of statistics, on the 1,024 calibration samples of seed
0. Estimator, unit and settings are read from the scores. Writes results/scoring.json
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from benchmarks.criteria.bakeoff import CRITERIA
from benchmarks.criteria.cells import bench_of
from benchmarks.recording import record, table
from edgeprune.criteria import Context, score

NETS = ("fashion_resnet", "fashion_plain", "fashion_dw", "debian_text")


def row(name: str, seconds: dict[str, float], scores: Any) -> dict[str, Any]:
    """One criterion."""
    return {
        "criterion": name,
        "estimator": scores.estimator or "none",
        "unit": scores.unit,
        "settings": dict(scores.settings),
        "samples": scores.samples,
        "seconds": seconds,
    }


def main(arguments: list[str] | None = None) -> None:
    """Score every network by every criterion, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.scoring", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--nets", type=lambda s: s.split(","), default=[*NETS])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seconds: dict[str, dict[str, float]] = {name: {} for name in CRITERIA}
    captured: dict[str, float] = {}
    last: dict[str, Any] = {}
    for net in options.nets:
        bench = bench_of(net, 1024, 0, np.ones(1, bool))
        captured[net] = round(bench.seeded(0)[2], 3)
        context = Context(bench.trace, bench.couplings, bench.seeded(0)[0], 0)
        for name in CRITERIA:
            began = time.process_time()
            last[name] = score(name, context)
            seconds[name][net] = round(time.process_time() - began, 3)
    rows = [row(name, seconds[name], last[name]) for name in CRITERIA]
    record("scoring", rows, capture_seconds=captured)
    print(table([{**r, **r["seconds"]} for r in rows], ["criterion", "estimator", "unit", *options.nets]))


if __name__ == "__main__":
    main()
