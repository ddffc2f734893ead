"""One network of the bake-off: its data, its statistics per seed, and the measuring of a cell.

What cells share is computed once: the trace, the statistics and the calibration batches of a
seed, a criterion's order, the sensitivity curves, and within one call of `measure` the
compensated network that the fine-tuning starts from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.criteria.outside import Subject, outside_rank
from benchmarks.criteria.tables import packed
from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.analysis import analyse
from edgeprune.criteria import Context, score
from edgeprune.data import Dataset, open_data
from edgeprune.data.targets import take
from edgeprune.graph.execution import batches, outputs
from edgeprune.graph.features import open_features
from edgeprune.graph.trace import Trace, trace
from edgeprune.recovery import FineTune, finetune, recover_closed_form
from edgeprune.recovery.finetune import penultimate
from edgeprune.search.allocate import allocate
from edgeprune.search.groups import Curve, uniform
from edgeprune.search.sensitivity import sensitivity
from edgeprune.surgery.cut import cut
from edgeprune.tasks.base import Outputs, Task
from edgeprune.tasks.choose import choose_task

OUTSIDE = ("tp-l2", "tp-taylor", "tp-bn-scale")
SCRATCH = "scratch"
VALIDATION = 2000  # samples that choose the epoch
TUNING = 4000  # training samples of an epoch of the equal fine-tune
BATCH = 250
Arrays = tuple[np.ndarray, np.ndarray]


class Bench:
    """One network with its data, traced and coupled once; statistics per seed."""

    def __init__(
        self,
        net: torch.nn.Module,
        parts: tuple[Arrays, Arrays, Arrays],
        calibration: int,
        epochs: int,
        dense: np.ndarray | None = None,
        prune_inputs: bool = False,
    ) -> None:
        self.net = net
        self.train, held, self.test = parts
        self.validation = open_data((held[0][:VALIDATION], held[1][:VALIDATION]))
        self.data = open_data(self.train)
        self.trace = trace(self.net, (torch.from_numpy(self.train[0][:2]),))
        if prune_inputs:
            self.trace = open_features(self.trace)[0]
        self.couplings = analyse(self.trace)
        self.calibration, self.epochs = calibration, epochs
        self.task = classifier(self.trace, self.data)
        self.tuning: dict[str, float] = {}  # further settings of the fine-tune (FineTune)
        self.dense = self.correct(self.trace) if dense is None else dense
        self._seed: tuple[int, Statistics, list[Any], float] | None = None
        self._ranks: dict[tuple[str, int], tuple[np.ndarray, float]] = {}
        self._curves: dict[tuple[str, int], dict[int, Curve]] = {}
        self._teachers: dict[int, tuple[np.ndarray, Outputs]] = {}

    def subject(self) -> Subject:
        """What a library from outside is shown of this network."""
        return Subject(self.net, self.train, self.couplings, self.calibration)

    def macs(self, removed: np.ndarray | None = None) -> float:
        """Multiply-adds of a sample without the removed components."""
        return self.couplings.macs(removed)

    def correct(self, traced: Trace) -> np.ndarray:
        """Which test samples are classified rightly, boolean."""
        data = open_data(self.test)
        return outputs(traced.graph, data, np.arange(len(data)), BATCH)[0].argmax(1) == self.test[1]

    def budget(self) -> dict[str, Any]:
        """The equal fine-tune, in samples."""
        settings = FineTune()
        return {
            "epochs": self.epochs,
            "samples": min(TUNING, len(self.train[1])),
            "learning_rate": settings.learning_rate,
            "batch": settings.batch_size,
            "distil": settings.distil,
        }

    def seeded(self, seed: int) -> tuple[Statistics, list[Any], float]:
        """Statistics, calibration batches and capture seconds of a seed."""
        if self._seed is None or self._seed[0] != seed:
            chosen = self.samples(seed)
            began = time.process_time()
            found = capture(self.trace, self.couplings, self.data, chosen, task=self.task, seed=seed)
            seconds = time.process_time() - began
            self._seed = (seed, found, [x for x, _ in batches(self.data, chosen, 128)], seconds)
        return self._seed[1:]

    def samples(self, seed: int) -> np.ndarray:
        """Calibration samples of a seed, ascending."""
        return np.sort(np.random.default_rng(seed).permutation(len(self.train[1]))[: self.calibration])

    def rank(self, criterion: str, seed: int) -> tuple[np.ndarray, float]:
        """Removal order of a criterion, `name` or `name@theta`, and the seconds that scoring took."""
        key = (criterion, seed)
        if key not in self._ranks:
            statistics = self.seeded(seed)[0]  # before the clock: capture is a step of its own
            began = time.process_time()
            if criterion in OUTSIDE:
                found = outside_rank(criterion, self.subject(), seed)
            else:
                name, _, theta = ("random" if criterion == SCRATCH else criterion).partition("@")
                context = Context(self.trace, self.couplings, statistics, seed, float(theta or 0))
                found = score(name, context).rank
            self._ranks[key] = (found, time.process_time() - began)
        return self._ranks[key]

    def removal(self, criterion: str, ratio: float, seed: int, allocation: str) -> np.ndarray:
        """The components that go so that at most this share of the MACs stays, or of the channels."""
        rank = self.rank(criterion, seed)[0]
        if allocation == "channels":
            goal = ratio * self.couplings.count
            return uniform(self.couplings, rank, lambda removed: float((~removed).sum()), goal)
        goal = ratio * self.macs()
        if allocation == "uniform":
            return uniform(self.couplings, rank, self.macs, goal)
        return allocate(self.couplings, rank, self.curves(criterion, seed), self.macs, goal)

    def curves(self, criterion: str, seed: int) -> dict[int, Curve]:
        """Measured loss per group along a criterion's order."""
        key = (criterion, seed)
        if key not in self._curves:
            statistics = self.seeded(seed)[0]
            rank = self.rank(criterion, seed)[0]
            order = np.random.default_rng(seed).permutation(len(self.train[1]))
            others = [x for x, _ in batches(self.data, order[self.calibration :][:256], 128)]
            self._curves[key] = sensitivity(self.trace, self.couplings, statistics, rank, others, self.task)
        return self._curves[key]

    def measure(
        self, criterion: str, ratio: float, seed: int, recoveries: list[str], allocation: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The cells of one removal, one per recovery, in the order of their cost."""
        removed = self.removal(criterion, ratio, seed, allocation)
        seconds = {"capture": self.seeded(seed)[2], "score": self.rank(criterion, seed)[1]}
        yield from self.cells(removed, seed, recoveries, seconds, untrained=criterion == SCRATCH)

    def cells(
        self, removed: np.ndarray, seed: int, recoveries: list[str], seconds: dict[str, float], *,
        untrained: bool = False,
    ) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
        """The cells of given components to remove; `untrained` draws the weights anew."""
        calibration = self.seeded(seed)[1]
        macs = self.macs(removed) / self.macs()
        bare = cut(self.trace, self.couplings, removed)
        if "none" in recoveries:
            yield "none", self._cell(bare, macs, {**seconds, "recover": 0.0})
        if "recalibrate" in recoveries:
            began = time.process_time()
            small = recover_closed_form(self.trace, self.couplings, removed, calibration, refit=False)[0]
            took = time.process_time() - began
            yield "recalibrate", self._cell(small, macs, {**seconds, "recover": took})
        if not {*recoveries} & {"compensate", "finetune"}:
            return
        began = time.process_time()
        if untrained:
            small = fresh(bare, seed)
        else:
            small = recover_closed_form(self.trace, self.couplings, removed, calibration)[0]
        took = time.process_time() - began
        if "compensate" in recoveries:
            yield "compensate", self._cell(small, macs, {**seconds, "recover": took})
        if "finetune" in recoveries:
            began = time.process_time()
            small, accuracies = self._finetune(small, seed)
            tuning = time.process_time() - began
            cell = self._cell(small, macs, {**seconds, "recover": took, "finetune": tuning})
            yield "finetune", cell | {"validation": accuracies}

    def _cell(self, small: Trace, macs: float, seconds: dict[str, float]) -> dict[str, Any]:
        right = self.correct(small)
        return {
            "accuracy": round(100 * float(right.mean()), 4),
            "drop": round(100 * float(self.dense.mean() - right.mean()), 4),
            "macs": round(macs, 6),
            "cpu_seconds": {k: round(v, 2) for k, v in seconds.items()},
            "differs": packed(right ^ self.dense),
        }

    def _finetune(self, small: Trace, seed: int) -> tuple[Trace, list[float]]:
        if seed not in self._teachers:
            amount = self.budget()["samples"]
            chosen = np.random.default_rng(seed + 1000).permutation(len(self.train[1]))[:amount]
            self._teachers[seed] = chosen, outputs(self.trace.graph, self.data, chosen, BATCH)
        chosen, teacher = self._teachers[seed]
        labels = self.validation.labels
        assert labels is not None

        def validate(graph: Any) -> float:
            out = outputs(graph, self.validation, np.arange(len(labels)), BATCH)
            return float((out[0].argmax(1) == labels).mean())

        settings = FineTune(epochs=self.epochs, seed=seed, norms="training", **self.tuning)
        features = penultimate(self.trace.graph, self.data, chosen) if settings.features else None
        found, history = finetune(
            small, self.data, chosen, teacher, self.task, validate, settings, teacher_features=features
        )
        return found, [round(100 * e.validation, 3) for e in history]


def classifier(traced: Trace, data: Dataset) -> Task:
    """Classification, fitted to the outputs of the network on a few samples."""
    some = np.arange(min(256, len(data)))
    return choose_task(
        "classification", (), outputs(traced.graph, data, some, BATCH), take(data.targets, some)
    ).task


def fresh(small: Trace, seed: int) -> Trace:
    """The same shape with random weights: He for what has two dimensions or more, norms as new."""
    made = Trace(small.copy(), small.inputs, small.dynamic)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in made.graph.named_parameters():
            if value.dim() > 1:
                torch.nn.init.kaiming_normal_(value, nonlinearity="relu")
            else:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
        for name, value in made.graph.named_buffers():
            if name.endswith("running_mean"):
                value.zero_()
            elif name.endswith("running_var"):
                value.fill_(1.0)
    return made


def bench_of(name: str, calibration: int, epochs: int, dense: np.ndarray | None = None) -> Bench:
    """The bench of a trained network of the examples; `dense` spares measuring it again."""
    from examples import measure

    return Bench(measure.load_network(name), load_parts(name), calibration, epochs, dense)


def load_parts(name: str) -> tuple[Arrays, Arrays, Arrays]:
    """Training, validation and test arrays of a network of the examples.

    Raises:
        SystemExit: no data for that network here.
    """
    from examples import debian_text, fashion, nets

    if name in nets.IMAGE_NETS:
        parts = fashion.load(fashion.DATA)
    elif name == "debian_text":
        parts = debian_text.encode_all(debian_text.read_packages(), debian_text.read_vocabulary())
    else:
        raise SystemExit(f"--net {name}: the bake-off runs on {', '.join(nets.IMAGE_NETS)}, debian_text")
    train, validation, test = ((p.x.numpy(), p.y.numpy()) for p in parts)
    return train, validation, test
