"""The controls that every information criterion is compared with: random, L2, Taylor."""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import (
    Context,
    Scores,
    broadcast,
    complete,
    magnitude,
    per_component,
    rank_in_groups,
)


def random(context: Context) -> Scores:
    """Uniform numbers from the seed."""
    rng = np.random.default_rng(context.seed)
    component = rng.random(context.couplings.count)
    noise = {n: rng.random(w.shape, dtype=np.float32) for n, w in context.weights().items()}
    rank = rank_in_groups(context.couplings, component)
    return Scores("random", {"seed": context.seed}, component, rank, noise, "1", "uniform", 0)


def l2(context: Context) -> Scores:
    """Magnitude: the norm of a component's filters; a connection's absolute weight (Li et al., ICLR 2017)."""
    component = magnitude(context)
    connections = {n: np.abs(w) for n, w in context.weights().items()}
    rank = rank_in_groups(context.couplings, component)
    return Scores("l2", {}, component, rank, connections, "1", "norm of the producing weights", 0)


def taylor(context: Context) -> Scores:
    """First-order Taylor: E|Σ x·∂L/∂x| of a channel's activations (Molchanov et al., CVPR 2019)."""
    assert context.statistics is not None
    couplings = context.couplings
    component = np.zeros(couplings.count)
    seen: set[tuple[str, int]] = set()
    for layer in couplings.layers:
        found = context.statistics.layers.get(layer.node)
        # The derivative by a shared source already holds all its readers: count a source once.
        if found is None or (layer.source, layer.channel_dim) in seen:
            continue
        seen.add((layer.source, layer.channel_dim))
        component += per_component(couplings, layer.inputs, found.taylor)
    component = complete(context, component)
    rank = rank_in_groups(couplings, component)
    return Scores(
        "taylor", {}, component, rank, broadcast(context, component), "loss",
        "first-order Taylor on activations", context.statistics.samples,
    )  # fmt: skip
