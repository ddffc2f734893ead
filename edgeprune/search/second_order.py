"""What removing channels costs to second order, read off the captured statistics: no network runs.

    loss = predicted_losses(trace, couplings, statistics, rank)[group]      # shape (members + 1,)

loss[k] is the expected rise of the loss in nats per sample when the first k components of a group's order
are gone and the layers that read them have taken over what they can. With P the inverse covariance of what
a layer reads and G = WᵀSW, S the moments of the slope at its outputs, that is ½·tr(G_RR·[P_RR]⁻¹) for the
removed inputs R. In the order of removal the blocks P_RR are nested, so one Cholesky factor gives the loss at
every k: with P = L·Lᵀ it is ½ the running sum of the diagonal of L⁻¹·G·L⁻ᵀ.
What reads a component otherwise costs `other_readings`. Elsewhere: how far off this is (sensitivity).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

from edgeprune.calibration.capture import LayerStatistics, Statistics, mixing_layers
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.criteria import Context
from edgeprune.criteria.base import FloatArray, matrices, own_energy
from edgeprune.graph.trace import Trace
from edgeprune.search.groups import in_order

RIDGE = 1e-4  # of the mean variance: keeps the inverse finite where channels are dead or duplicates
INDEPENDENT = 4  # positions of one sample count as at most so many samples


def predicted_losses(
    trace: Trace, couplings: Couplings, statistics: Statistics, rank: npt.NDArray[np.int64]
) -> list[FloatArray]:
    """Per group the loss in nats per sample without its first k components, shape (members + 1,), from 0."""
    context = Context(trace, couplings, statistics)
    weights = context.weights()
    losses = []
    for group in range(len(couplings.group_names)):
        members = in_order(couplings, rank, group)
        steps = statistics.other_readings[members].copy()
        place = np.full(couplings.count + 1, -1, dtype=np.int64)  # one more for −1
        place[members] = np.arange(len(members))
        for layer in mixing_layers(couplings):
            captured = statistics.layers.get(layer.node)
            at = place[couplings.channel_maps[layer.inputs]]
            if captured is not None and (at >= 0).any():
                steps += _steps(weights[str(layer.weight)], layer, captured, at, len(members))
        losses.append(np.concatenate([[0.0], np.cumsum(np.maximum(steps, 0.0))]))
    return losses


def independent_samples(captured: LayerStatistics) -> float:
    """How many independent samples the moments of a layer amount to."""
    return captured.count * min(INDEPENDENT, max(1.0, captured.positions / max(1, captured.count)))


def shrink(second: FloatArray, samples: float) -> FloatArray:
    """A second moment estimated from few samples, drawn towards a multiple of the identity (OAS, Chen 2010).

    A layer with more inputs than samples looks as if its kept inputs could stand in for any removed one; on
    other images they cannot. Without this, planning empties such layers first.
    """
    size = len(second)
    trace, squares = float(np.trace(second)), float((second**2).sum())
    spread = squares - trace**2 / size
    share = 1.0
    if spread > 0:
        share = ((1 - 2 / size) * squares + trace**2) / ((samples + 1 - 2 / size) * spread)
    share = min(max(share, RIDGE), 1.0)
    return (1 - share) * second + (share * trace / size + 1e-12) * np.eye(size)


def _steps(
    weight: npt.NDArray[np.float32],
    layer: Layer,
    captured: LayerStatistics,
    place: npt.NDArray[np.int64],
    count: int,
) -> FloatArray:
    """What each further removal costs at one layer, shape (count,).

    Args:
        place: position of each input in the order of removal, −1 for inputs of other groups.
    """
    taps = matrices(weight, layer)
    if captured.patches is None and captured.second.ndim == 1:
        variance = captured.second - captured.mean**2
        cost = 0.5 * own_energy(taps, captured.slopes) * variance
        return np.bincount(place[place >= 0], cost[place >= 0], count).astype(np.float64)
    if captured.patches is None:
        covariance = captured.covariance
    else:
        covariance = captured.patches.covariance
        taps = taps.transpose(1, 2, 0).reshape(1, taps.shape[1], -1)
        place = np.repeat(place, taps.shape[2] // len(place))
    removable = np.flatnonzero(place >= 0)
    removable = removable[np.argsort(place[removable], kind="stable")]
    shrunk = shrink(covariance, independent_samples(captured))
    precision = np.linalg.inv(shrunk)[np.ix_(removable, removable)]
    lower = scipy.linalg.cholesky((precision + precision.T) / 2, lower=True)
    inverse = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    columns = taps[:, :, removable]
    cost = np.zeros(len(removable))
    for rows in columns:
        root = rows @ inverse.T  # (outputs, removed): W·L⁻ᵀ
        if captured.slopes.ndim == 1:
            cost += (captured.slopes[:, None] * root**2).sum(0)
        else:
            cost += np.einsum("oi,oi->i", root, captured.slopes @ root)
    return np.bincount(place[removable], 0.5 * cost, count).astype(np.float64)
