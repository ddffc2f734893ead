"""Fine-tune a pruned graph with the dense model as teacher; the best checkpoint is kept.

Loss: (1−α)·loss by targets + α·distance to the teacher, both as the task defines them over all outputs,
and α = 1 without targets. The teacher's outputs
are computed once. `ib_beta` adds the class-conditional entropy of the noisy activations
(bottleneck), `features` the distance between how the student's and the teacher's features
arrange the samples of a batch. Whichever of the start and the epochs does best on validation is
returned, so fine-tuning never makes the validation result worse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset
from edgeprune.data.targets import take
from edgeprune.errors import CriterionError
from edgeprune.graph.compute import CPU, Compute, in_memory
from edgeprune.graph.execution import samples_first, tensors
from edgeprune.graph.trace import Trace, run
from edgeprune.recovery.batchnorm import set_training
from edgeprune.recovery.bottleneck import (
    Axes,
    Observed,
    last_features,
    noise_scales,
    penalty,
    reading_axes,
    similarity_loss,
)
from edgeprune.tasks.base import Outputs, Targets, Task


@dataclass(frozen=True)
class FineTune:
    """Settings of one fine-tuning; 0 epochs do nothing.

    norms: what batch norms normalise by while training: "frozen" keeps the statistics that they came with,
    which calibration data of another kind would spoil; "training" takes each batch's own and learns them,
    for the task's training data; "trial" tries both, "frozen" at the last of the rates.
    rates: further learning rates. Of several forms or rates each trains one epoch, and the best on
    validation goes on.
    ib_beta: weight ≥ 0 of the entropy penalty; above 0 the forward pass adds the noise.
    features: weight ≥ 0 of feature distillation; needs `teacher_features`.
    """

    norms: Literal["frozen", "training", "trial"] = "frozen"
    rates: tuple[float, ...] = ()
    epochs: int = 3
    learning_rate: float = 2e-3
    batch_size: int = 128
    distil: float = 0.7
    seed: int = 0
    ib_beta: float = 0.0
    features: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """One epoch's end; epoch 0 is the start, without a loss.

    norms and learning_rate: of the form that was trained.
    """

    epoch: int
    loss: float | None
    validation: float
    seconds: float
    norms: str = ""
    learning_rate: float = 0.0


def finetune(
    pruned: Trace,
    dataset: Dataset,
    train: npt.NDArray[np.int64],
    teacher: Outputs,
    task: Task,
    validate: Callable[[fx.GraphModule], float],
    settings: FineTune,
    *,
    teacher_features: npt.NDArray[np.float32] | None = None,
    compute: Compute = CPU,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Trace, tuple[Epoch, ...]]:
    """Train a copy of `pruned`.

    Args:
        teacher: the dense model's outputs for `train`, in that order.
        task: gives the loss by targets and the distance to the teacher, over all outputs.
        teacher_features: the dense model's `penultimate` for `train`, for `settings.features`.
        validate: larger is better; called on a graph in evaluation form after each epoch.
        progress: called with (step, steps, loss).
    """
    if settings.ib_beta < 0 or settings.features < 0:
        raise CriterionError(
            f"fine-tuning with ib_beta {settings.ib_beta:g} and features {settings.features:g}",
            tip="both weights are 0 or more; the score's --theta is the one with a sign",
        )
    if settings.features and teacher_features is None:
        raise CriterionError("feature distillation without features", tip="give penultimate(dense, …)")
    start = compute.place(pruned.graph)
    best_score = validate(start)
    best = _weights(start)
    history = [Epoch(0, None, best_score, 0.0)]
    if not any(p.is_floating_point() for p in start.parameters()) or settings.epochs < 1:
        return pruned, tuple(history)
    began = time.monotonic()
    lesson = _Lesson(dataset, train, teacher, task, settings, teacher_features, compute, progress)
    trials = [_Trainer(pruned, form, rate, lesson) for form, rate in _forms(settings)]
    results = []
    for trainer in trials:
        loss = trainer.epoch()
        results.append((validate(trainer.graph), loss))
    chosen = max(range(len(trials)), key=lambda i: results[i][0])
    trainer = trials[chosen]
    score, loss = results[chosen]
    for epoch in range(1, settings.epochs + 1):
        if epoch > 1:
            loss = trainer.epoch()
            score = validate(trainer.graph)
        seconds = time.monotonic() - began
        history.append(Epoch(epoch, loss, score, seconds, trainer.norms, trainer.rate))
        if score >= best_score:
            best_score, best = score, _weights(trainer.graph)
    trained = pruned.copy()
    trained.load_state_dict(best)
    return replace(pruned, graph=trained), tuple(history)


def _forms(settings: FineTune) -> list[tuple[str, float]]:
    """What batch norms do and the learning rate, of each trial; one where there is nothing to choose."""
    rates = (settings.learning_rate, *settings.rates)
    if settings.norms == "trial":
        return [("training", rates[0]), ("frozen", rates[-1])]
    return [(settings.norms, rate) for rate in dict.fromkeys(rates)]


@dataclass(frozen=True)
class _Lesson:
    """What all trials of one fine-tuning train on."""

    dataset: Dataset
    train: npt.NDArray[np.int64]
    teacher: Outputs
    task: Task
    settings: FineTune
    features: npt.NDArray[np.float32] | None
    compute: Compute
    progress: Callable[[int, int, float], None] | None


class _Trainer:
    """A copy of the network with its optimiser; after an `epoch` over the data the graph evaluates."""

    def __init__(self, pruned: Trace, norms: str, rate: float, lesson: _Lesson) -> None:
        self.graph = lesson.compute.place(pruned.graph)
        self.fitting = lesson.settings.batch_size  # samples of one forward pass
        self.norms, self.rate, self.lesson = norms, rate, lesson
        settings = lesson.settings
        self.parameters = [p for p in self.graph.parameters() if p.is_floating_point()]
        for p in self.parameters:
            p.requires_grad_(True)
        decayed = [p for p in self.parameters if p.dim() > 1]
        plain = [p for p in self.parameters if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}], lr=rate
        )
        self.steps = math.ceil(len(lesson.train) / settings.batch_size) * settings.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: cosine(s, self.steps))
        self.step = 0
        self.rng = np.random.default_rng(settings.seed)
        self.axes: Axes = {}
        self.scales: dict[str, torch.Tensor] = {}
        torch.manual_seed(settings.seed)
        if settings.ib_beta or settings.features:
            self.axes = reading_axes(self.graph, self._inputs(lesson.train[: settings.batch_size]))
        if settings.ib_beta:
            some = lesson.train[: 4 * settings.batch_size]
            parts = range(0, len(some), settings.batch_size)
            batches = [self._inputs(some[i : i + settings.batch_size]) for i in parts]
            self.scales = noise_scales(self.graph, self.axes, batches)

    def epoch(self) -> float:
        """Once over the data in a random order; gives the mean loss."""
        size = self.lesson.settings.batch_size
        set_training(self.graph, self.norms == "training")
        total, seen = 0.0, 0
        order = self.rng.permutation(len(self.lesson.train))
        for begin in range(0, len(order), size):
            part = order[begin : begin + size]
            if len(part) < 2 and self.norms == "training":  # batch norm needs two samples
                continue
            loss = self._backward(part)
            torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            total, seen = total + loss * len(part), seen + len(part)
            if self.lesson.progress:
                self.lesson.progress(self.step, self.steps, loss)
        set_training(self.graph, False)
        return total / max(1, seen)

    def _backward(self, part: npt.NDArray[np.int64]) -> float:
        """Gradients of the mean loss of a batch; in pieces where the accelerator does not hold the batch."""

        def attempt(size: int) -> float:
            self.fitting = size
            self.optimizer.zero_grad()
            total = 0.0
            for begin in range(0, len(part), size):
                piece = part[begin : begin + size]
                loss = self._loss(piece) * (len(piece) / len(part))
                loss.backward()
                total += loss.item()
            return total

        return in_memory(attempt, self.fitting, "fine-tuning, samples of one pass")

    def _loss(self, part: npt.NDArray[np.int64]) -> torch.Tensor:
        lesson, settings = self.lesson, self.lesson.settings
        inputs = self._inputs(lesson.train[part])
        targets = take(lesson.dataset.targets, lesson.train[part])
        wanted = tuple(x[part] for x in lesson.teacher)
        if not settings.ib_beta and not settings.features:
            with lesson.compute.training():
                outputs = run(self.graph, inputs)
            return _loss(lesson.task, outputs, targets, wanted, settings, len(part))
        watcher = Observed(self.graph, self.axes, self.scales)
        with lesson.compute.training():
            outputs = watcher.outputs(inputs)
        loss = _loss(lesson.task, outputs, targets, wanted, settings, len(part))
        classes = lesson.task.classes(wanted, targets)
        return loss + _extra(self.graph, watcher, classes, self.scales, settings, lesson.features, part)

    def _inputs(self, samples: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        return self.lesson.compute.put(tensors(self.lesson.dataset.batch(samples)))


def penultimate(
    graph: fx.GraphModule, dataset: Dataset, indices: npt.NDArray[np.int64], batch_size: int = 128
) -> npt.NDArray[np.float32]:
    """What the last layer reads, reduced over positions, shape (samples, features)."""
    features_by_batch = []
    axes = reading_axes(graph, tensors(dataset.batch(indices[:batch_size])))
    with torch.no_grad():
        for start in range(0, len(indices), batch_size):
            watcher = Observed(graph, axes)
            watcher.outputs(tensors(dataset.batch(indices[start : start + batch_size])))
            features = last_features(graph, watcher.seen)
            if features is None:
                raise CriterionError("feature distillation: no layer of this network reads features")
            features_by_batch.append(features.float().numpy())
    return np.concatenate(features_by_batch)


def _loss(
    task: Task,
    outputs: tuple[torch.Tensor, ...],
    targets: Targets | None,
    teacher: Outputs,
    settings: FineTune,
    samples: int,
) -> torch.Tensor:
    """(1−α)·loss by targets + α·distance to the teacher; α = 1 without targets."""
    judged = tuple(samples_first(x, samples).cpu() for x in outputs)
    soft = task.distil(judged, tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in teacher))
    if targets is None:
        return soft
    return settings.distil * soft + (1 - settings.distil) * task.loss(judged, targets)


def _extra(
    graph: fx.GraphModule,
    watcher: Observed,
    classes: npt.NDArray[np.int64] | None,
    scales: dict[str, torch.Tensor],
    settings: FineTune,
    features: npt.NDArray[np.float32] | None,
    part: npt.NDArray[np.int64],
) -> torch.Tensor:
    """The weighted penalty and feature distance; without labels the teacher's decisions stand in."""
    total = torch.zeros(())
    if settings.ib_beta and classes is not None:
        total = total + settings.ib_beta * penalty(
            _on_cpu(watcher.seen), torch.from_numpy(classes), _on_cpu(scales)
        )
    mine = last_features(graph, watcher.seen) if settings.features else None
    if mine is not None and features is not None:
        total = total + settings.features * similarity_loss(
            mine.float().cpu(), torch.from_numpy(features[part])
        )
    return total


def _on_cpu(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float().cpu() for name, value in values.items()}


def _weights(graph: fx.GraphModule) -> dict[str, torch.Tensor]:
    """A copy of the network's tensors on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in graph.state_dict().items()}


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to 0."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
