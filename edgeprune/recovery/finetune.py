"""Fine-tune a pruned graph with the dense model as teacher; the best checkpoint is kept.

Loss: (1−α)·cross-entropy(labels) + α·T²·KL(teacher‖student) for classifiers, mean squared
error to the teacher for other outputs, and α = 1 without labels. The teacher's outputs
are computed once. Whichever of the start and the epochs does best on validation is
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
import torch.nn.functional as F
from torch import fx

from edgeprune.data import Dataset
from edgeprune.model.run import swift, tensors
from edgeprune.model.trace import Trace, run
from edgeprune.recovery.batchnorm import set_training


@dataclass(frozen=True)
class FineTune:
    """Settings of one fine-tuning. `seconds` caps the wall time; 0 epochs do nothing."""

    epochs: int = 3
    learning_rate: float = 2e-3
    batch_size: int = 128
    distil: float = 0.7
    temperature: float = 2.0
    seconds: float = math.inf
    seed: int = 0


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
    teacher: npt.NDArray[np.float32],
    validate: Callable[[fx.GraphModule], float],
    settings: FineTune,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[Trace, tuple[Epoch, ...]]:
    """Train a copy of `pruned`.

    Args:
        teacher: the dense model's first output for `train`, in that order.
        validate: larger is better; called on a graph in evaluation form after each epoch.
        progress: called with (step, steps, loss).
    """
    graph = swift(pruned.graph)
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
    began, step = time.monotonic(), 0
    for epoch in range(1, settings.epochs + 1):
        set_training(graph, True)
        total = 0.0
        order = rng.permutation(len(train))
        for start in range(0, len(order), settings.batch_size):
            part = order[start : start + settings.batch_size]
            if len(part) < 2:  # batch norm needs two samples
                continue
            loss = _loss(graph, dataset, train[part], teacher[part], settings)
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


def _loss(
    graph: fx.GraphModule,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    teacher: npt.NDArray[np.float32],
    settings: FineTune,
) -> torch.Tensor:
    out = run(graph, tensors(dataset.batch(indices)))[0]
    wanted = torch.from_numpy(teacher)
    if out.dim() != 2 or out.shape[1] < 2:
        return F.mse_loss(out, wanted)
    t = settings.temperature
    soft = F.kl_div(
        F.log_softmax(out / t, 1), F.log_softmax(wanted / t, 1), log_target=True, reduction="batchmean"
    )
    if dataset.labels is None:
        return soft * t * t
    hard = F.cross_entropy(out, torch.from_numpy(dataset.labels[indices]))
    return settings.distil * soft * t * t + (1 - settings.distil) * hard


def _cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
