"""The effect of the article's theta: `ib-edge` and `ib-jmi` at several signed thetas, compensation alone.

    python -m benchmarks.criteria.theta

Cells are those of the bake-off, with `name@theta` as the criterion. They go to results/bakeoff/theta.json;
a run that was stopped resumes.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.criteria import bakeoff, tables
from benchmarks.criteria.cells import bench_of

NET = "fashion_plain"
CRITERIA = ("ib-edge", "ib-jmi")
THETAS = (-0.2, 0.0, 0.1)


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.theta", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = bakeoff.RESULTS / "theta.json"
    grid = argparse.Namespace(
        criteria=[f"{name}@{theta:g}" for name in CRITERIA for theta in THETAS], seeds=options.seeds,
        ratios=(0.5, 0.25), allocation="uniform", recovery=["compensate"], calibration=1024,
    )  # fmt: skip
    bakeoff.fill(path, grid, lambda: bench_of(NET, 1024, 0), NET)
    print(tables.table(bakeoff.read(path)))


if __name__ == "__main__":
    main()
