"""What the article's theta does: `ib-edge` and `ib-jmi` at several signed thetas, compensation alone.

    python -m benchmarks.bakeoff_theta

Cells are the bake-off's, with `name@theta` for the criterion; they go to results/bakeoff/theta.json,
and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks import bakeoff, bakeoff_table
from benchmarks.bakeoff_net import bench_of

NET = "fashion_plain"
CRITERIA = ("ib-edge", "ib-jmi")
THETAS = (-0.2, 0.0, 0.1)


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bakeoff_theta", description="Theta.")
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = bakeoff.RESULTS / "theta.json"
    grid = argparse.Namespace(
        criteria=[f"{name}@{theta:g}" for name in CRITERIA for theta in THETAS], seeds=options.seeds,
        ratios=(0.5, 0.25), allocation="uniform", recovery=["compensate"], calibration=1024,
    )  # fmt: skip
    bakeoff.fill(path, grid, lambda: bench_of(NET, 1024, 0), NET)
    print(bakeoff_table.table(bakeoff.read(path)))


if __name__ == "__main__":
    main()
