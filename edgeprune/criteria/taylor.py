"""taylor: first order, what the loss feels of a channel's activations (Molchanov et al., ICLR 2017).

E|Σ x·∂L/∂x| over the values that layers read of a component, each value once.
"""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import Context, Scores, broadcast, complete, per_component, rank_in_groups


def taylor(context: Context) -> Scores:
    """First-order Taylor: E|Σ x·∂L/∂x| of a channel's activations (Molchanov et al., ICLR 2017)."""
    assert context.statistics is not None
    couplings = context.couplings
    component = np.zeros(couplings.count)
    seen: set[tuple[str, int]] = set()
    for layer in couplings.layers:
        layer_statistics = context.statistics.layers.get(layer.node)
        # The derivative by a shared source already holds all its readers: count a source once.
        if (
            layer_statistics is None
            or layer_statistics.taylor is None
            or (layer.source, layer.channel_dim) in seen
        ):
            continue
        seen.add((layer.source, layer.channel_dim))
        component += per_component(couplings, layer.inputs, layer_statistics.taylor)
    component = complete(context, component)
    rank = rank_in_groups(couplings, component)
    return Scores(
        "taylor", {}, component, rank, broadcast(context, component), "loss",
        "first-order Taylor on activations", context.statistics.samples,
    )  # fmt: skip
