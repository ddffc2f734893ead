"""How far off a profile's predictions of whole networks are, at sets of widths that it was not fitted to.

    errors = whole_errors(profile)      relative, of every network run but the dense one

Guarantee: nothing of a network that is predicted, neither its operators nor its own time, takes part in
the fit that predicts it. The dense network takes part always: it is what every lot is scaled by.
Elsewhere: the fit itself (fitting), errors of single layers (costs.explained).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeprune.latency.costs import predictions
from edgeprune.latency.profiles import Profile, ProfilePoint

FOLDS = 4
LEAST = 12  # networks, below which a fold's fit says little of the profile's own


@dataclass(frozen=True)
class WholeErrors:
    """Relative errors of whole networks, predicted against measured."""

    networks: int
    median: float
    p90: float
    worst: float


def whole_errors(profile: Profile) -> WholeErrors | None:
    """Predict each quarter of a profile's networks from the others; None where there are too few."""
    if len(profile.wholes) < LEAST:
        return None
    owned = points_by_network(profile)
    fold = np.arange(len(profile.wholes)) % FOLDS
    fold[0] = -1
    errors = np.zeros(len(profile.wholes))
    for n in range(FOLDS):
        known = [i for i in range(len(profile.wholes)) if fold[i] != n]
        points = tuple(point for i in known for point in owned[i])
        part = replace(profile, points=points, wholes=tuple(profile.wholes[i] for i in known))
        asked = [i for i in range(len(profile.wholes)) if fold[i] == n]
        wholes = [profile.wholes[i] for i in asked]
        errors[asked] = np.abs(predictions(part, wholes) / _measured(profile)[asked] - 1)
    off = errors[1:]
    middle, high = (float(np.quantile(off, q)) for q in (0.5, 0.9))
    return WholeErrors(len(off), middle, high, float(off.max()))


def points_by_network(profile: Profile) -> list[list[ProfilePoint]]:
    """The points that each network gave: they were kept in the order of networks, and of layers in each."""
    shapes = [profile.shapes.index(layer.shape) for layer in profile.layers]
    by_network: list[list[ProfilePoint]] = []
    place = 0
    for network in profile.wholes:
        mine: list[ProfilePoint] = []
        for shape, pair in zip(shapes, network.widths, strict=True):  # a layer fused away gave none
            point = profile.points[place] if place < len(profile.points) else None
            if point is not None and (point.shape, (point.inputs, point.outputs)) == (shape, pair):
                mine.append(point)
                place += 1
        by_network.append(mine)
    return by_network


def _measured(profile: Profile) -> npt.NDArray[np.float64]:
    """p50 of every network, as if all had run while the dense one took what it took in the middle."""
    middle = profile.dense_ms.value
    return np.array([w.p50_ms.value * middle / profile.lots[w.lot][0] for w in profile.wholes])
