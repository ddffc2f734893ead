"""ib-gauss: what a channel tells the layers that read it and no other channel tells.

Unique Gaussian information of a channel given all other inputs of the layers that read
it, ½·log(1 + tr(G_BB·[P_BB]⁻¹)) nats, with G = Wᵀ·S·W, S the moments of the loss's slope
at the outputs and P the inverse covariance of what remains. B are the channel's inputs:
all taps of a kernel, when the pass kept moments of whole patches. Backward elimination:
the remaining weights absorb each removal before the next score, so a redundant pair loses
one member, not both. To second order the argument is twice the loss that compensation
cannot repair. What other readers lose (recurrent weights) counts in the same unit at every
step of the elimination; so does a layer of which only variances were kept, where nothing
can take over and a removal costs the same at any time.
Derived in docs/method.md, "What the others cannot say"; kin of OBS (Hassibi & Stork 1993),
OBC (Frantar 2022) and K-FAC surgery (Wang, EigenDamage 2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune import information
from edgeprune.calibration.capture import LayerStatistics, mixing_layers
from edgeprune.coupling.components import Layer
from edgeprune.criteria.base import (
    Context,
    FloatArray,
    Scores,
    broadcast,
    matrices,
    own_energy,
    rank_in_groups,
)

RIDGE = 1e-4  # of the mean variance: keeps the inverse finite where channels are dead or duplicates


def ib_gauss(context: Context) -> Scores:
    """Backward elimination per group over all layers that read it."""
    couplings = context.couplings
    assert context.statistics is not None
    weights = context.weights()
    component, initial = np.zeros(couplings.count), np.zeros(couplings.count)
    measured = np.zeros(couplings.count)
    others = 0.5 * np.log1p(2 * context.statistics.other_readings)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        local = np.full(couplings.count + 1, -1, dtype=np.int32)
        local[members] = np.arange(len(members), dtype=np.int32)
        readers = context.readers(group)
        component[members] = initial[members] = others[members]
        if not readers:
            continue
        consumers, fixed = [], others[members]
        for layer, layer_statistics, vector in readers:
            if layer_statistics.patches is None and layer_statistics.second.ndim == 1:
                fixed = fixed + alone(
                    weights[str(layer.weight)], layer, layer_statistics, local[vector], len(members)
                )
            else:
                consumers.append(consumer(weights[str(layer.weight)], layer, layer_statistics, local[vector]))
        result = eliminate(consumers, fixed)
        # What goes later is worth at least what went before it: the score orders as the elimination.
        component[members[result.order]] = np.maximum.accumulate(result.score_nats[result.order])
        component[members[result.order]] += 1e-12 * np.arange(len(members))
        initial[members] = result.initial_nats
        measured[members] = 1.0
    return Scores(
        "ib-gauss",
        {"ridge": RIDGE, "relevance": "slope moments"},
        component,
        rank_in_groups(couplings, component),
        _connections(context, component),
        "nats",
        "conditional Gaussian, backward elimination",
        context.statistics.samples,
        {"initial_nats": initial, "measured": measured},
    )


def consumer(
    weight: npt.NDArray[np.float32],
    layer: Layer,
    layer_statistics: LayerStatistics,
    unit: npt.NDArray[np.int32],
) -> information.Consumer:
    """One reading layer for the elimination: whole patches where there are moments of them."""
    taps = matrices(weight, layer)
    if layer_statistics.patches is None:
        return information.Consumer(
            ridged(layer_statistics.covariance), energy(taps, layer_statistics.slopes), unit
        )
    rows = taps.transpose(1, 2, 0).reshape(1, taps.shape[1], -1)
    covariance = ridged(layer_statistics.patches.covariance)
    return information.Consumer(covariance, energy(rows, layer_statistics.slopes), np.repeat(unit, len(taps)))


def alone(
    weight: npt.NDArray[np.float32],
    layer: Layer,
    layer_statistics: LayerStatistics,
    unit: npt.NDArray[np.int32],
    units: int,
) -> FloatArray:
    """Nats of each unit at a layer of uncorrelated inputs, shape (units,): ½·log(1 + Σ G_ii·Σ_ii)."""
    variance = layer_statistics.second - layer_statistics.mean**2
    gain = own_energy(matrices(weight, layer), layer_statistics.slopes) * (
        variance + ridge(float(variance.mean()))
    )
    mine = unit >= 0
    return np.asarray(0.5 * np.log1p(np.bincount(unit[mine], gain[mine], units)))


def eliminate(consumers: list[information.Consumer], fixed: FloatArray) -> information.Elimination:
    """Backward elimination where unit u costs fixed[u] nats on top whatever else has gone.

    A unit's own input of variance 1 and energy e adds ½·log(1 + e) and touches no other.
    """
    if not consumers:
        return information.Elimination(np.argsort(fixed, kind="stable"), fixed, fixed)
    if fixed.any():
        units = np.arange(len(fixed), dtype=np.int32)
        independent = information.Consumer(np.eye(len(fixed)), np.diag(np.expm1(2 * fixed)), units)
        consumers = [*consumers, independent]
    return information.backward_elimination(consumers, len(fixed))


def ridged(covariance: FloatArray) -> FloatArray:
    """Covariance with a ridge of RIDGE times its mean variance, positive definite."""
    level = float(np.trace(covariance)) / len(covariance)
    return covariance + np.eye(len(covariance)) * ridge(level)


def ridge(variance: float) -> float:
    """What is added to each variance, given their mean."""
    return max(RIDGE * variance, 1e-12)


def energy(taps: FloatArray, slopes: FloatArray) -> FloatArray:
    """Σ over taps of WᵀSW, for weights (taps, outputs, inputs).

    Args:
        slopes: moments S (outputs, outputs), or their diagonal.
    """
    if slopes.ndim == 1:
        total = sum((rows * slopes[:, None]).T @ rows for rows in taps)
    else:
        total = sum(rows.T @ slopes @ rows for rows in taps)
    return np.asarray((total + total.T) / 2)


def _connections(context: Context, component: FloatArray) -> dict[str, npt.NDArray[np.float32]]:
    """Unique information of single connections, scaled so that a component's mass is its score.

    ½·log(1 + w²·F_j/[P]_ii) says how a component's mass divides over its connections; the
    elimination says how large the mass is.
    """
    assert context.statistics is not None
    weights = context.weights()
    scores = broadcast(context, component)
    for layer in mixing_layers(context.couplings):
        name = str(layer.weight)
        statistics = context.statistics.layers[layer.node]
        if statistics.second.ndim == 1:
            residual = statistics.second - statistics.mean**2
            residual = residual + ridge(float(residual.mean()))
        else:
            residual = 1.0 / np.diag(np.linalg.inv(ridged(statistics.covariance)))
        shape = [1] * weights[name].ndim
        into, outof = list(shape), list(shape)
        into[layer.in_dim], outof[layer.out_dim] = -1, -1
        power = weights[name] ** 2 * residual.reshape(into) * statistics.fisher.reshape(outof)
        unique = 0.5 * np.log1p(power)
        axes = tuple(d for d in range(unique.ndim) if d != layer.in_dim)
        mean = unique.mean(axes, keepdims=True)
        share = np.divide(unique, mean, out=np.ones_like(unique), where=mean > 0)
        scores[name] = (scores[name] * share).astype(np.float32)
    return scores
