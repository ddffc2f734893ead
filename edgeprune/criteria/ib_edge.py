"""ib-edge: the article's score of every connection, L = (1−θ)·I(X_ij;Y) + θ·H(X_ij).

X_ij is the input's contribution to output j, quantised in steps of the output's spread:
a small weight loses resolution and with it information. A component's score is the mean
of its outgoing connections' ranks within each layer that reads it. θ = 0 is mutual
information, θ = 1 entropy, θ < 0 punishes bits that say nothing of the label.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from edgeprune import information
from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria.base import (
    Context,
    Scores,
    broadcast,
    classes,
    complete,
    declares,
    matrices,
    per_component,
    rank_in_groups,
)

STEP = 0.1  # of the output's standard deviation over samples


@declares(takes_theta=True)
def ib_edge(context: Context) -> Scores:
    """Score connections, then components."""
    assert context.statistics is not None
    couplings, labels = context.couplings, classes(context, "ib-edge")
    weights = context.weights()
    total, reads = np.zeros(couplings.count), np.zeros(couplings.count)
    connections = {}
    for layer in mixing_layers(couplings):
        name = str(layer.weight)
        x = context.statistics.layers[layer.node].reduced
        if x is None:  # no values per sample: `complete` has a score
            continue
        taps = matrices(weights[name], layer)
        spread = (x.astype(np.float64) @ taps.sum(0).T).std(0)
        steps = np.maximum(STEP * spread, 1e-12).astype(np.float32)
        rows = taps.transpose(1, 0, 2).reshape(-1, taps.shape[2]).astype(np.float32)
        nats = information.edge_information(x, labels, rows, np.repeat(steps, len(taps)), theta=context.theta)
        normal = rankdata(nats).reshape(nats.shape) / nats.size
        total += per_component(couplings, layer.inputs, normal.mean(0))
        reads += per_component(couplings, layer.inputs, np.ones(len(x.T)))
        connections[name] = _as_weight(nats, taps.shape, weights[name].shape, layer.in_dim, layer.out_dim)
    component = complete(context, np.divide(total, reads, out=np.zeros_like(total), where=reads > 0))
    connections = broadcast(context, component) | connections
    return Scores(
        "ib-edge",
        {"theta": context.theta, "step": STEP},
        component,
        rank_in_groups(couplings, component),
        connections,
        "mean rank of connections",
        "plug-in per connection at its own resolution, Miller-Madow",
        context.statistics.samples,
    )


def _as_weight(
    nats: np.ndarray, taps: tuple[int, ...], shape: tuple[int, ...], in_dim: int, out_dim: int
) -> np.ndarray:
    """(outputs·taps, inputs) back to the weight's own shape."""
    kernel = [size for d, size in enumerate(shape) if d not in (in_dim, out_dim)]
    parts = nats.reshape(taps[1], taps[0], taps[2]).transpose(0, 2, 1)
    blocks = parts.reshape(taps[1], taps[2], *kernel)
    return np.moveaxis(blocks, (0, 1), (out_dim, in_dim)).astype(np.float32)
