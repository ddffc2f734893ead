"""vib: how much a trained noisy gate lets through (VIBNet, Dai et al., ICML 2018).

Every component gets a gate z = μ + ε·σ on what the layers read of it; μ and σ are trained against the task's
loss (without targets: the distance to the dense outputs) plus γ·½·Σ log(1 + μ²/σ²) while the weights stand
still. A component's score is that information, in nats; VIBNet would prune where it is below ½·log 2. Unlike
VIBNet the weights do not move along: fine-tuning is a later stage here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria.base import Context, Scores, broadcast, complete, measured_components, rank_in_groups
from edgeprune.data.targets import take
from edgeprune.errors import CriterionError
from edgeprune.graph.execution import samples_first, tensors
from edgeprune.graph.executor import Before, flat_outputs, operand_index
from edgeprune.graph.trace import run
from edgeprune.tasks.base import Targets, Task

STEPS, BATCH, RATE = 64, 64, 0.05
GAMMA = 0.02  # nats of cross-entropy per nat let through a component, over the components of a layer
LOG_VARIANCE = -4.0  # to begin with


def vib(context: Context) -> Scores:
    """Train the gates on the samples of the statistics.

    Raises:
        CriterionError: the statistics do not know their samples.
    """
    statistics = context.statistics
    assert statistics is not None
    if statistics.source is None:
        raise CriterionError(
            "--criterion vib: trains on samples", tip="capture the statistics from a dataset"
        )
    dataset, indices, task = statistics.source.dataset, statistics.source.indices, statistics.source.task
    couplings = context.couplings
    graph = context.trace.copy()
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    mean = torch.ones(couplings.count, requires_grad=True)
    spread = torch.full((couplings.count,), LOG_VARIANCE, requires_grad=True)
    sizes = np.bincount(couplings.group)[couplings.group]
    share = torch.from_numpy(GAMMA / sizes * measured_components(context)).float()
    optimizer = torch.optim.Adam([mean, spread], lr=RATE)
    generator = torch.Generator().manual_seed(context.seed)
    rng = np.random.default_rng(context.seed)
    for _ in range(STEPS):
        at = rng.choice(len(indices), min(BATCH, len(indices)), replace=False)
        noise = torch.randn(len(at), couplings.count, generator=generator)
        gates = mean + noise * (0.5 * spread).exp()
        inputs = tensors(dataset.batch(indices[at]))
        gated = flat_outputs(graph, inputs, before=_gate(context, gates))
        targets = take(dataset.targets, indices[at])
        loss = _loss(task, gated, targets, len(at), partial(run, graph, inputs))
        loss = loss + (share * _nats(mean, spread)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    component = complete(context, _nats(mean, spread).detach().double().numpy())
    return Scores(
        "vib",
        {"gamma": GAMMA, "steps": STEPS},
        component,
        rank_in_groups(couplings, component),
        broadcast(context, component),
        "nats",
        "trained Gaussian gates, weights fixed",
        statistics.samples,
    )


def _nats(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.log1p(mean**2 * torch.exp(-log_variance))


def _loss(
    task: Task,
    gated: tuple[torch.Tensor, ...],
    targets: Targets | None,
    samples: int,
    plain: Callable[[], tuple[torch.Tensor, ...]],
) -> torch.Tensor:
    """The task's loss by targets; without targets the distance to the outputs without gates."""
    judged = tuple(samples_first(x, samples) for x in gated)
    if targets is not None:
        return task.loss(judged, targets)
    with torch.no_grad():
        dense = tuple(samples_first(x, samples) for x in plain())
    return task.distil(judged, dense)


def _gate(context: Context, gates: torch.Tensor) -> Before:
    """A hook that multiplies every mixing layer's free inputs by their gates, shape (samples, count)."""
    assert context.statistics is not None
    couplings, statistics = context.couplings, context.statistics
    layers = {layer.node: layer for layer in mixing_layers(couplings)}

    def multiply(
        node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        layer = layers.get(node.name)
        if layer is None:
            return args, kwargs
        components = couplings.channel_maps[layer.inputs]
        axis = statistics.layers[layer.node].samples
        if axis is None or not (components >= 0).any():
            return args, kwargs
        at = operand_index(node, layer.source)
        x = args[at]
        gate = torch.ones(len(gates), len(components), dtype=x.dtype)
        free = torch.from_numpy(np.flatnonzero(components >= 0))
        chosen = gates[:, torch.from_numpy(components[components >= 0]).long()].to(x.dtype)
        gated = x * axis.spread(gate.index_copy(1, free, chosen), x, layer.channel_dim)
        return (*args[:at], gated, *args[at + 1 :]), kwargs

    return multiply
