"""ib-gauss: what a channel tells the layers that read it and no other channel tells.

Unique Gaussian information of a channel given all other inputs of the layers that read
it, ½·log(1 + tr(G_BB·[P_BB]⁻¹)) nats, with G = Wᵀ·diag(F)·W, F the Fisher weight of each
output and P the inverse covariance. Backward elimination: the remaining weights absorb
each removal before the next score, so a redundant pair loses one member, not both.
To first order the argument is twice the loss that compensation cannot repair, in nats.
See SCIENCE in docs/method.md; kin of OBS (Hassibi & Stork 1993) and OBC (Frantar 2022).
"""

from __future__ import annotations

import numpy as np

from edgeprune import information
from edgeprune.capture import mixing_layers
from edgeprune.criteria.base import Context, FloatArray, Scores, broadcast, magnitude, matrices
from edgeprune.criteria.base import rank_in_groups as by_score

RIDGE = 1e-4  # of the mean variance: keeps the inverse finite where channels are dead or duplicates


def ib_gauss(context: Context) -> Scores:
    """Backward elimination per group over all layers that read it."""
    couplings = context.couplings
    assert context.statistics is not None
    weights = context.weights()
    component, initial = np.zeros(couplings.count), np.zeros(couplings.count)
    rank = by_score(couplings, magnitude(context))  # for groups that no mixing layer reads
    measured = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        local = np.full(couplings.count + 1, -1, dtype=np.int32)
        local[members] = np.arange(len(members), dtype=np.int32)
        consumers = []
        for layer, found, vector in context.readers(group):
            energy = _energy(matrices(weights[str(layer.weight)], layer), found.fisher)
            covariance = ridged(found.covariance)
            consumers.append(information.Consumer(covariance, energy, local[vector]))
        if not consumers:
            continue
        result = information.backward_elimination(consumers, len(members))
        component[members[result.order]] = np.maximum.accumulate(result.score_nats[result.order])
        rank[members[result.order]] = np.arange(len(members))
        initial[members] = result.initial_nats
        measured[members] = 1.0
    return Scores(
        "ib-gauss",
        {"ridge": RIDGE, "relevance": "fisher"},
        component,
        rank,
        _connections(context, component),
        "nats",
        "conditional Gaussian, backward elimination",
        context.statistics.samples,
        {"initial_nats": initial, "measured": measured},
    )


def ridged(covariance: FloatArray) -> FloatArray:
    """Covariance with a ridge of RIDGE times its mean variance, positive definite."""
    level = float(np.trace(covariance)) / len(covariance)
    return covariance + np.eye(len(covariance)) * max(RIDGE * level, 1e-12)


def _energy(taps: FloatArray, fisher: FloatArray) -> FloatArray:
    weighted = taps * np.sqrt(fisher)[None, :, None]
    flat = weighted.reshape(-1, taps.shape[2])
    return flat.T @ flat


def _connections(context: Context, component: FloatArray) -> dict[str, np.ndarray]:
    """Unique information of single connections, scaled so that a component's mass is its score.

    ½·log(1 + w²·F_j/[P]_ii) says how a component's mass divides over its connections; the
    elimination says how large the mass is.
    """
    assert context.statistics is not None
    couplings, weights = context.couplings, context.weights()
    even = broadcast(context, component)
    found = {}
    for layer in mixing_layers(couplings):
        name = str(layer.weight)
        statistics = context.statistics.layers[layer.node]
        residual = 1.0 / np.diag(np.linalg.inv(ridged(statistics.covariance)))
        shape = [1] * weights[name].ndim
        into, outof = list(shape), list(shape)
        into[layer.in_dim], outof[layer.out_dim] = -1, -1
        power = weights[name] ** 2 * residual.reshape(into) * statistics.fisher.reshape(outof)
        unique = 0.5 * np.log1p(power)
        axes = tuple(d for d in range(unique.ndim) if d != layer.in_dim)
        mean = unique.mean(axes, keepdims=True)
        share = np.divide(unique, mean, out=np.ones_like(unique), where=mean > 0)
        found[name] = (even[name] * share).astype(np.float32)
    return found
