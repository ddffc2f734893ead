"""vib: how much a trained noisy gate lets through (VIBNet, Dai et al., ICML 2018).

Every component gets a gate z = μ + ε·σ on what the layers read of it; μ and σ are trained
against cross-entropy (for outputs that are no class scores: ½ of the squared change of the
output) plus γ·½·Σ log(1 + μ²/σ²) while the weights stand still. A component's
score is that information, in nats; VIBNet would prune where it is below ½·log 2. Unlike
VIBNet the weights do not move along: fine-tuning is a later stage here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria.base import Context, Scores, broadcast, complete, measured, rank_in_groups
from edgeprune.errors import CriterionError
from edgeprune.graph.execution import tensors
from edgeprune.graph.trace import pytree, run

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
    dataset, indices = statistics.source
    couplings = context.couplings
    graph = context.trace.copy()
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    mean = torch.ones(couplings.count, requires_grad=True)
    spread = torch.full((couplings.count,), LOG_VARIANCE, requires_grad=True)
    sizes = np.bincount(couplings.group)[couplings.group]
    share = torch.from_numpy(GAMMA / sizes * measured(context)).float()
    optimizer = torch.optim.Adam([mean, spread], lr=RATE)
    generator = torch.Generator().manual_seed(context.seed)
    rng = np.random.default_rng(context.seed)
    for _ in range(STEPS):
        at = rng.choice(len(indices), min(BATCH, len(indices)), replace=False)
        noise = torch.randn(len(at), couplings.count, generator=generator)
        gates = mean + noise * (0.5 * spread).exp()
        inputs = tensors(dataset.batch(indices[at]))
        out = _Gated(graph, context, gates).run(*inputs, enable_io_processing=False)
        known = None if statistics.labels is None else statistics.labels[at]
        loss = _task(pytree.tree_flatten(out)[0][0], known, len(at), partial(run, graph, inputs))
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


def _task(
    out: torch.Tensor, labels: np.ndarray | None, samples: int, plain: Callable[[], tuple[torch.Tensor, ...]]
) -> torch.Tensor:
    """Cross-entropy where there are logits; elsewhere how far the output moves, in nats at unit variance."""
    if labels is not None and out.dim() == 2 and out.shape[1] > 1 and len(out) == len(labels):
        return F.cross_entropy(out, torch.from_numpy(labels))
    return 0.5 * (out - plain()[0].detach()).square().sum() / samples


class _Gated(fx.Interpreter):  # type: ignore[misc]  # torch is untyped here
    """Runs the graph with every mixing layer's free inputs multiplied by their gates, one per sample."""

    def __init__(self, graph: fx.GraphModule, context: Context, gates: torch.Tensor) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.layers = {layer.node: layer for layer in mixing_layers(context.couplings)}
        self.channel_maps = context.couplings.channel_maps
        assert context.statistics is not None
        self.axes = {node: found.samples for node, found in context.statistics.layers.items()}
        self.gates = gates

    def run_node(self, n: fx.Node) -> Any:
        layer = self.layers.get(n.name)
        vector = self.channel_maps[layer.inputs] if layer else np.zeros(0)
        if layer is None or not (vector >= 0).any():
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        at = next(i for i, a in enumerate(n.args) if isinstance(a, fx.Node) and a.name == layer.source)
        x, axis = args[at], self.axes[layer.node]
        if axis is not None:
            gate = torch.ones(len(self.gates), len(vector), dtype=x.dtype)
            free = torch.from_numpy(np.flatnonzero(vector >= 0))
            chosen = self.gates[:, torch.from_numpy(vector[vector >= 0]).long()].to(x.dtype)
            x = x * axis.spread(gate.index_copy(1, free, chosen), x, layer.channel_dim)
        return n.target(*(x if i == at else a for i, a in enumerate(args)), **kwargs)
