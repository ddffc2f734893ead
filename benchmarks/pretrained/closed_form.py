"""What EfficientNet-lite0 keeps without training, on calibration images unlike its training set.

    python -m benchmarks.pretrained.closed_form --photographs .cache/stamps --size 128

One row per criterion, allocation and share of the MACs: top-1 agreement with the dense network on pictures
that neither calibration nor planning saw, after the cut and after the closed-form refit. The first row
removes nothing: the refit must then change nothing. Rows that results/pretrained.json holds for the same
size are not measured again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pretrained import images, nets
from benchmarks.recording import known_rows, record
from edgeprune.calibration.capture import capture
from edgeprune.coupling.analysis import analyse
from edgeprune.criteria import Context, score
from edgeprune.data import open_data
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace, trace
from edgeprune.recovery import recover_closed_form
from edgeprune.search.allocate import allocate
from edgeprune.search.groups import uniform
from edgeprune.search.sensitivity import sensitivity, split_images
from edgeprune.surgery.cut import cut
from edgeprune.tasks.classification import Classification

CALIBRATION, TEST, BATCH = 200, 214, 32
SHARES = (0.8, 0.65, 0.5)
PLANS = (
    ("l2", "uniform"),
    ("random", "uniform"),
    ("taylor", "uniform"),
    ("ib-gauss", "uniform"),
    ("ib-gauss", "sensitivity"),
)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, required=True, help="folder of the unpacked package")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    arguments = parser.parse_args()
    rows = known_rows("pretrained")
    bench = None
    wanted = [("none", "none", 1.0), *((c, a, s) for s in SHARES for c, a in PLANS)]
    for criterion, allocation, share in wanted:
        key = {"criterion": criterion, "allocation": allocation, "asked": share, "size": arguments.size}
        if any(key.items() <= row.items() for row in rows):
            continue
        bench = bench or Bench(arguments.photographs, arguments.size)
        rows.append({"network": "efficientnet-lite0", **key, **bench.row(criterion, allocation, share)})
        record("pretrained", rows)
    for row in rows:
        print(
            f"{row['size']:4d} px {row['criterion']:9s} {row['allocation']:12s} MACs {row['macs']:.3f}"
            f"   cut {row['cut']:5.1f}%   closed form {row['closed_form']:5.1f}%"
            f"   {row['plan_seconds']:.0f} + {row['recovery_seconds']:.0f} s",
            flush=True,
        )


class Bench:
    """The dense network with its statistics, captured once."""

    def __init__(self, photographs: Path, size: int) -> None:
        calibration = images.part(photographs, "calibration", CALIBRATION, size)
        test = images.part(photographs, "test", TEST, size)
        self.trace = trace(nets.efficientnet_lite0(), (torch.from_numpy(calibration[:2]),))
        self.couplings = analyse(self.trace)
        self.data, self.test = open_data((calibration, None)), open_data((test, None))
        self.task = Classification()
        self.classes = self._classes(self.trace)
        began = time.monotonic()
        self.statistics_images, self.plan_images = split_images(np.arange(CALIBRATION))
        self.statistics = capture(
            self.trace, self.couplings, self.data, self.statistics_images, task=self.task
        )
        self.capture_seconds = round(time.monotonic() - began, 1)

    def row(self, criterion: str, allocation: str, share: float) -> dict[str, Any]:
        """Agreement in percent after the cut and after the refit, seconds of planning and of the refit."""
        couplings = self.couplings
        began = time.monotonic()
        removed = np.zeros(couplings.count, dtype=bool)
        if criterion != "none":
            context = Context(self.trace, couplings, self.statistics)
            rank = score(criterion, context).rank
            removed = self._plan(rank, allocation, share * couplings.macs())
        planned = time.monotonic()
        whole = [(torch.from_numpy(self.data.batch(part)[0]),) for part in _batches(CALIBRATION)]
        refitted, _ = recover_closed_form(self.trace, couplings, removed, whole)
        seconds = time.monotonic() - planned
        return {
            "macs": round(float(couplings.macs(removed) / couplings.macs()), 4),
            "cut": self._agreement(cut(self.trace, couplings, removed)),
            "closed_form": self._agreement(refitted),
            "test_images": TEST,
            "calibration_images": CALIBRATION,
            "capture_seconds": self.capture_seconds,
            "plan_seconds": round(planned - began, 1),
            "recovery_seconds": round(seconds, 1),
        }

    def _plan(self, rank: np.ndarray, allocation: str, macs: float) -> np.ndarray:
        couplings = self.couplings
        if allocation == "uniform":
            return uniform(couplings, rank, couplings.macs, macs)
        batches = [(torch.from_numpy(self.data.batch(self.plan_images)[0]),)]
        curves = sensitivity(self.trace, couplings, self.statistics, rank, batches, self.task)
        return allocate(couplings, rank, curves, couplings.macs, macs)

    def _classes(self, network: Trace) -> np.ndarray:
        (logits,) = outputs(network.graph, self.test, np.arange(TEST), BATCH)
        return np.asarray(logits).argmax(1)

    def _agreement(self, network: Trace) -> float:
        return round(100 * float((self._classes(network) == self.classes).mean()), 2)


def _batches(count: int) -> list[np.ndarray]:
    return [np.arange(at, min(at + 2 * BATCH, count)) for at in range(0, count, 2 * BATCH)]


if __name__ == "__main__":
    main()
