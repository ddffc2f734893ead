"""The bake-off: every criterion, several sizes, seeds and recoveries, on networks that were trained here.

    python -m benchmarks.bakeoff --net fashion_resnet --recovery compensate
    python -m benchmarks.bakeoff --net fashion_resnet --table

A cell is one (criterion, share of MACs, seed, recovery, allocation); each is written as soon
as it is measured, and a killed run goes on where it stopped. Everything but the criterion is
equal within a column: calibration samples (they follow the seed), the share of MACs (uniform:
the same share out of every group), recovery, fine-tune budget and learning rate. Accuracy is
on the whole test part, which no earlier stage saw.

Recoveries: none (cut only), recalibrate (batch norm), compensate (closed form, then batch
norm), finetune (compensate, then at most --seconds of distillation from the dense network).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import bakeoff_table
from edgeprune.capture import Statistics, capture
from edgeprune.criteria import Context, score
from edgeprune.data import open_data
from edgeprune.model.run import batches, outputs
from edgeprune.model.trace import Trace, trace
from edgeprune.planning import allocate, uniform
from edgeprune.recovery import FineTune, compensate, finetune, recalibrate
from edgeprune.recovery.sensitivity import sensitivity
from edgeprune.surgery import analyse, cut

RESULTS = Path(__file__).parent / "results" / "bakeoff"
CRITERIA = ("ib-gauss", "random", "taylor", "l2", "ib-jmi", "mrmr", "ib-edge", "fpgm", "hsic-lasso", "vib")
OUTSIDE = ("tp-l2", "tp-taylor", "tp-bn-scale")
RATIOS = (0.7, 0.5, 1 / 3, 0.25, 0.15)
RECOVERIES = ("none", "recalibrate", "compensate", "finetune")
VALIDATION = 2000


class Bench:
    """One network with its data, traced and coupled once; statistics per seed."""

    def __init__(self, name: str, calibration: int, seconds: float) -> None:
        from examples import measure, nets

        if name not in nets.IMAGE_NETS:
            raise SystemExit(f"--net {name}: the bake-off runs on {', '.join(nets.IMAGE_NETS)}")
        from examples import fashion

        parts = fashion.load(fashion.DATA)
        self.net = measure.load_network(name)
        self.train, self.test = (_arrays(p) for p in (parts.train, parts.test))
        held = _arrays(parts.validation)
        self.validation = open_data((held[0][:VALIDATION], held[1][:VALIDATION]))
        self.data = open_data(self.train)
        self.trace = trace(self.net, (torch.from_numpy(self.train[0][:2]),))
        self.couplings = analyse(self.trace)
        self.calibration, self.seconds = calibration, seconds
        self.dense = self.correct(self.trace)
        self._seed: tuple[int, Statistics, list[Any], float] | None = None
        self._scores: dict[tuple[str, int], tuple[np.ndarray, float]] = {}
        self._teacher: np.ndarray | None = None

    def correct(self, traced: Trace) -> np.ndarray:
        """Which test images are classified rightly, boolean."""
        data = open_data(self.test)
        return outputs(traced.graph, data, np.arange(len(data)), 250).argmax(1) == self.test[1]

    def seeded(self, seed: int) -> tuple[Statistics, list[Any], float]:
        """Statistics, calibration batches and capture seconds of a seed."""
        if self._seed is None or self._seed[0] != seed:
            chosen = np.sort(np.random.default_rng(seed).permutation(len(self.train[1]))[: self.calibration])
            began = time.process_time()
            found = capture(self.trace, self.couplings, self.data, chosen, seed=seed)
            seconds = time.process_time() - began
            self._seed = (seed, found, [x for x, _ in batches(self.data, chosen, 128)], seconds)
        return self._seed[1:]

    def rank(self, criterion: str, seed: int) -> tuple[np.ndarray, float]:
        """Removal order of a criterion, and the seconds that scoring took."""
        key = (criterion, seed)
        if key not in self._scores:
            began = time.process_time()
            if criterion in OUTSIDE:
                from benchmarks.bakeoff_outside import outside_rank

                found = outside_rank(criterion, self, seed)
            else:
                context = Context(self.trace, self.couplings, self.seeded(seed)[0], seed)
                found = score(criterion, context).rank
            self._scores[key] = (found, time.process_time() - began)
        return self._scores[key]

    def measure(
        self, criterion: str, ratio: float, seed: int, recovery: str, allocation: str
    ) -> dict[str, Any]:
        """One cell."""
        statistics, calibration, capturing = self.seeded(seed)
        rank, scoring = self.rank(criterion, seed)
        goal = ratio * self.couplings.macs()
        if allocation == "uniform":
            removed = uniform(self.couplings, rank, self.couplings.macs, goal)
        else:
            curves = sensitivity(self.trace, self.couplings, statistics, rank, calibration[:4])
            removed = allocate(self.couplings, rank, curves, self.couplings.macs, goal)
        began = time.process_time()
        if recovery in ("none", "recalibrate"):
            small = cut(self.trace, self.couplings, removed)
        else:
            small = compensate(self.trace, self.couplings, removed, calibration)[0]
        if recovery != "none":
            small = recalibrate(small, calibration)
        recovering = time.process_time() - began
        epochs = 0
        if recovery == "finetune":
            small, epochs = self._finetune(small, seed)
        right = self.correct(small)
        return {
            "accuracy": 100 * float(right.mean()),
            "drop": 100 * float(self.dense.mean() - right.mean()),
            "macs": self.couplings.macs(removed) / self.couplings.macs(),
            "cpu_seconds": {
                "capture": round(capturing, 2),
                "score": round(scoring, 2),
                "recover": round(recovering, 2),
            },
            "epochs": epochs,
            "samples": len(right),
        }

    def _finetune(self, small: Trace, seed: int) -> tuple[Trace, int]:
        everything = np.arange(len(self.train[1]))
        if self._teacher is None:
            self._teacher = outputs(self.trace.graph, self.data, everything, 250)
        labels = self.validation.labels
        assert labels is not None

        def validate(graph: Any) -> float:
            out = outputs(graph, self.validation, np.arange(len(labels)), 250)
            return float((out.argmax(1) == labels).mean())

        # Epochs of a tenth, so that the budget in seconds is kept to about a tenth of an epoch.
        chosen = np.random.default_rng(seed).permutation(everything)[: len(everything) // 10]
        settings = FineTune(epochs=20, seconds=self.seconds, seed=seed)
        found, history = finetune(small, self.data, chosen, self._teacher[chosen], validate, settings)
        return found, len(history) - 1


def key_of(criterion: str, ratio: float, seed: int, recovery: str, allocation: str) -> str:
    """A cell's name in the results."""
    return f"{criterion}|{ratio:.3f}|{seed}|{recovery}|{allocation}"


def read(path: Path) -> dict[str, Any]:
    """Results so far, or none."""
    return json.loads(path.read_text()) if path.exists() else {"cells": {}}


def write(path: Path, found: dict[str, Any]) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    os.replace(partial, path)


def run(options: argparse.Namespace, path: Path) -> None:
    """Measure what is missing; seeds outermost, so that a part of the grid is a whole grid of fewer seeds."""
    wanted = [
        (criterion, ratio, seed, recovery)
        for seed in options.seeds
        for criterion in options.criteria
        for ratio in options.ratios
        for recovery in options.recovery
    ]
    found = read(path)
    missing = [w for w in wanted if key_of(*w, options.allocation) not in found["cells"]]
    if not missing:
        return
    bench = Bench(options.net, options.calibration, options.seconds)
    found["net"], found["dense"] = options.net, 100 * float(bench.dense.mean())
    found["settings"] = {"calibration": options.calibration, "seconds": options.seconds, "threads": 1}
    found["versions"] = {"torch": torch.__version__, "numpy": np.__version__}
    for done, cell in enumerate(missing, 1):
        result = bench.measure(*cell, options.allocation)
        found["cells"][key_of(*cell, options.allocation)] = result
        write(path, found)
        print(
            f"{done}/{len(missing)} {key_of(*cell, options.allocation)} {result['accuracy']:.2f}", flush=True
        )


def _arrays(part: Any) -> tuple[np.ndarray, np.ndarray]:
    return part.x.numpy(), part.y.numpy()


def main(arguments: list[str] | None = None) -> None:
    """Run the missing cells, then print the table and draw the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bakeoff", description="Compare criteria.")
    parser.add_argument("--net", default="fashion_resnet")
    parser.add_argument("--criteria", type=lambda s: s.split(","), default=[*CRITERIA])
    parser.add_argument("--ratios", type=lambda s: [float(v) for v in s.split(",")], default=[*RATIOS])
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    parser.add_argument("--recovery", type=lambda s: s.split(","), default=["compensate"])
    parser.add_argument("--allocation", choices=("uniform", "sensitivity"), default="uniform")
    parser.add_argument("--calibration", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=90.0, help="fine-tune budget of a cell")
    parser.add_argument("--table", action="store_true", help="only print and plot what is there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    unknown = {*options.recovery} - {*RECOVERIES} | {*options.criteria} - {*CRITERIA, *OUTSIDE}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    path = options.out / f"{options.net}.json"
    if not options.table:
        run(options, path)
    found = read(path)
    print(bakeoff_table.table(found))
    bakeoff_table.plot(found, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
