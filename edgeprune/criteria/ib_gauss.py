"""ib-gauss: what a channel tells the layers that read it and no other channel tells.

Unique Gaussian information of a channel given all other inputs of the layers that read
it, ½·log(1 + tr(G_BB·[P_BB]⁻¹)) nats, with G = Wᵀ·S·W, S the moments of the loss's slope
at the outputs and P the inverse covariance of what remains. B are the channel's inputs:
all taps of a kernel, when the pass kept moments of whole patches. Backward elimination:
the remaining weights absorb each removal before the next score, so a redundant pair loses
one member, not both. To second order the argument is twice the loss that compensation
cannot repair. What other readers lose (recurrent weights) is added in the same unit.
Derived in docs/method.md, "What the others cannot say"; kin of OBS (Hassibi & Stork 1993),
OBC (Frantar 2022) and K-FAC surgery (Wang, EigenDamage 2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune import information
from edgeprune.capture import LayerStatistics, mixing_layers
from edgeprune.coupling.components import Layer
from edgeprune.criteria.base import Context, FloatArray, Scores, broadcast, matrices, rank_in_groups

RIDGE = 1e-4  # of the mean variance: keeps the inverse finite where channels are dead or duplicates


def ib_gauss(context: Context) -> Scores:
    """Backward elimination per group over all layers that read it."""
    couplings = context.couplings
    assert context.statistics is not None
    weights = context.weights()
    component, initial = np.zeros(couplings.count), np.zeros(couplings.count)
    measured = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        local = np.full(couplings.count + 1, -1, dtype=np.int32)
        local[members] = np.arange(len(members), dtype=np.int32)
        consumers = [
            consumer(weights[str(layer.weight)], layer, found, local[vector])
            for layer, found, vector in context.readers(group)
        ]
        if not consumers:
            continue
        result = information.backward_elimination(consumers, len(members))
        # What goes later is worth at least what went before it: the score orders as the elimination.
        component[members[result.order]] = np.maximum.accumulate(result.score_nats[result.order])
        component[members[result.order]] += 1e-12 * np.arange(len(members))
        initial[members] = result.initial_nats
        measured[members] = 1.0
    others = 0.5 * np.log1p(2 * context.statistics.other_readings)
    component += others
    return Scores(
        "ib-gauss",
        {"ridge": RIDGE, "relevance": "slope moments"},
        component,
        rank_in_groups(couplings, component),
        _connections(context, component),
        "nats",
        "conditional Gaussian, backward elimination",
        context.statistics.samples,
        {"initial_nats": initial + others, "measured": measured},
    )


def consumer(
    weight: npt.NDArray[np.float32], layer: Layer, found: LayerStatistics, unit: npt.NDArray[np.int32]
) -> information.Consumer:
    """One reading layer for the elimination: whole patches where there are moments of them."""
    taps = matrices(weight, layer)
    if found.patches is None:
        return information.Consumer(ridged(found.covariance), energy(taps, found.slope_moments), unit)
    rows = taps.transpose(1, 2, 0).reshape(1, taps.shape[1], -1)
    covariance = ridged(found.patches.covariance)
    return information.Consumer(covariance, energy(rows, found.slope_moments), np.repeat(unit, len(taps)))


def ridged(covariance: FloatArray) -> FloatArray:
    """Covariance with a ridge of RIDGE times its mean variance, positive definite."""
    level = float(np.trace(covariance)) / len(covariance)
    return covariance + np.eye(len(covariance)) * max(RIDGE * level, 1e-12)


def energy(taps: FloatArray, slopes: FloatArray) -> FloatArray:
    """Σ over taps of WᵀSW, for weights (taps, outputs, inputs) and slope moments (outputs, outputs)."""
    total = sum(rows.T @ slopes @ rows for rows in taps)
    return np.asarray((total + total.T) / 2)


def _connections(context: Context, component: FloatArray) -> dict[str, npt.NDArray[np.float32]]:
    """Unique information of single connections, scaled so that a component's mass is its score.

    ½·log(1 + w²·F_j/[P]_ii) says how a component's mass divides over its connections; the
    elimination says how large the mass is.
    """
    assert context.statistics is not None
    weights = context.weights()
    found = broadcast(context, component)
    for layer in mixing_layers(context.couplings):
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
        found[name] = (found[name] * share).astype(np.float32)
    return found
