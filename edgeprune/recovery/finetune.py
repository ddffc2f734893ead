"""Fine-tune a pruned graph with the dense model as teacher; the best checkpoint is kept.

Loss: (1−α)·loss by targets + α·distance to the teacher, both as the task defines them over all outputs,
and α = 1 without targets. The teacher's outputs
are computed once. `ib_beta` adds the class-conditional entropy of the noisy activations
(bottleneck), `features` the distance between how the student's and the teacher's features
arrange the samples of a batch. Whichever of the start and the epochs does best on validation is
returned, so fine-tuning never makes the validation result worse.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset
from edgeprune.data.targets import take
from edgeprune.errors import CriterionError
from edgeprune.graph.execution import samples_first, tensors, to_channels_last
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
    """Settings of one fine-tuning. `seconds` caps the wall time; 0 epochs do nothing.

    ib_beta: weight ≥ 0 of the entropy penalty; above 0 the forward pass adds the noise.
    features: weight ≥ 0 of feature distillation; needs `teacher_features`.
    """

    epochs: int = 3
    learning_rate: float = 2e-3
    batch_size: int = 128
    distil: float = 0.7
    seconds: float = math.inf
    seed: int = 0
    ib_beta: float = 0.0
    features: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """One epoch's end; epoch 0 is the start."""

    epoch: int
    loss: float
    validation: float
    seconds: float


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
    graph = to_channels_last(pruned.graph)
    if settings.ib_beta < 0 or settings.features < 0:
        raise CriterionError(
            f"fine-tuning with ib_beta {settings.ib_beta:g} and features {settings.features:g}",
            tip="both weights are 0 or more; the score's --theta is the one with a sign",
        )
    if settings.features and teacher_features is None:
        raise CriterionError("feature distillation without features", tip="give penultimate(dense, …)")
    best_score = validate(graph)
    best = copy.deepcopy(graph.state_dict())
    history = [Epoch(0, math.nan, best_score, 0.0)]
    parameters = [p for p in graph.parameters() if p.is_floating_point()]
    for p in parameters:
        p.requires_grad_(True)
    if not parameters or settings.epochs < 1:
        return pruned, tuple(history)
    decayed = [p for p in parameters if p.dim() > 1]
    plain = [p for p in parameters if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    per_epoch = math.ceil(len(train) / settings.batch_size)
    steps = per_epoch * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _cosine(s, steps))
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    axes: Axes = {}
    scales: dict[str, torch.Tensor] = {}
    if settings.ib_beta or settings.features:
        axes = reading_axes(graph, tensors(dataset.batch(train[: settings.batch_size])))
    if settings.ib_beta:
        some = train[: 4 * settings.batch_size]
        parts = range(0, len(some), settings.batch_size)
        scales = noise_scales(
            graph, axes, [tensors(dataset.batch(some[i : i + settings.batch_size])) for i in parts]
        )
    began, step = time.monotonic(), 0
    for epoch in range(1, settings.epochs + 1):
        set_training(graph, True)
        total = 0.0
        order = rng.permutation(len(train))
        for start in range(0, len(order), settings.batch_size):
            part = order[start : start + settings.batch_size]
            if len(part) < 2:  # batch norm needs two samples
                continue
            targets = take(dataset.targets, train[part])
            inputs, wanted = tensors(dataset.batch(train[part])), tuple(x[part] for x in teacher)
            if settings.ib_beta or settings.features:
                watcher = Observed(graph, axes, scales)
                loss = _loss(task, watcher.outputs(inputs), targets, wanted, settings, len(part))
                classes = task.classes(wanted, targets)
                loss = loss + _extra(graph, watcher, classes, scales, settings, teacher_features, part)
            else:
                loss = _loss(task, run(graph, inputs), targets, wanted, settings, len(part))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            step += 1
            total += loss.item() * len(part)
            if progress:
                progress(step, steps, loss.item())
        set_training(graph, False)
        score = validate(graph)
        seconds = time.monotonic() - began
        history.append(Epoch(epoch, total / len(order), score, seconds))
        if score >= best_score:
            best_score, best = score, copy.deepcopy(graph.state_dict())
        if seconds * (epoch + 1) / epoch > settings.seconds:
            break
    trained = pruned.copy()
    trained.load_state_dict(best)
    return Trace(trained, pruned.inputs, pruned.dynamic), tuple(history)


def penultimate(
    graph: fx.GraphModule, dataset: Dataset, indices: npt.NDArray[np.int64], batch_size: int = 128
) -> npt.NDArray[np.float32]:
    """What the last layer reads, reduced over positions, shape (samples, features)."""
    found = []
    axes = reading_axes(graph, tensors(dataset.batch(indices[:batch_size])))
    with torch.no_grad():
        for start in range(0, len(indices), batch_size):
            watcher = Observed(graph, axes)
            watcher.outputs(tensors(dataset.batch(indices[start : start + batch_size])))
            features = last_features(graph, watcher.seen)
            if features is None:
                raise CriterionError("feature distillation: no layer of this network reads features")
            found.append(features.float().numpy())
    return np.concatenate(found)


def _loss(
    task: Task,
    outputs: tuple[torch.Tensor, ...],
    targets: Targets | None,
    teacher: Outputs,
    settings: FineTune,
    samples: int,
) -> torch.Tensor:
    """(1−α)·loss by targets + α·distance to the teacher; α = 1 without targets."""
    judged = tuple(samples_first(x, samples) for x in outputs)
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
        total = total + settings.ib_beta * penalty(watcher.seen, torch.from_numpy(classes), scales)
    mine = last_features(graph, watcher.seen) if settings.features else None
    if mine is not None and features is not None:
        total = total + settings.features * similarity_loss(mine, torch.from_numpy(features[part]))
    return total


def _cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
