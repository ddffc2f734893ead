"""From points to functions: the time of a layer shape by its two widths, and of a network by its layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from edgeprune.latency.profiles import Profile

ShapeTime = Callable[[int, int], float]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Overhead:
    """What a whole network takes beside its operators: a share of their time, and a constant."""

    scale: float
    constant_ms: float

    def whole_ms(self, operators_ms: float) -> float:
        return self.scale * operators_ms + self.constant_ms


@dataclass(frozen=True)
class Smooth:
    """a + b·in·out + c·in + d·out with non-negative coefficients."""

    coefficients: tuple[float, ...]

    def __call__(self, inputs: int, outputs: int) -> float:
        return float(np.dot(self.coefficients, (1.0, inputs * outputs, inputs, outputs)))


def fit_shapes(profile: Profile) -> dict[str, ShapeTime]:
    """A function of (inputs, outputs) in ms for every layer shape."""
    rows = defaultdict(list)
    for point in profile.points:
        rows[point.shape].append((point.inputs, point.outputs, point.ms.value))
    found: dict[str, ShapeTime] = {}
    for index, shape in enumerate(profile.shapes):
        table = np.array(rows[index], dtype=np.float64).reshape(-1, 3)
        found[shape] = _fit(table)
    return found


def _fit(table: FloatArray) -> Smooth:
    if not len(table):
        return Smooth((0.0, 0.0, 0.0, 0.0))
    i, o, t = table.T
    features = np.stack([np.ones_like(i), i * o, i, o], axis=1)
    solved, _ = nnls(features / t[:, None], np.ones(len(t)))
    return Smooth(tuple(float(x) for x in solved))


def fit_overhead(profile: Profile, times: Mapping[str, ShapeTime]) -> Overhead:
    """From the networks that were run both whole and with their operators timed."""
    operators = np.array([w.operators_ms for w in profile.wholes])
    walls = np.array([w.p50_ms.value for w in profile.wholes])
    features = np.stack([operators, np.ones_like(operators)], axis=1) / walls[:, None]
    if len(walls) < 3:
        return Overhead(float(walls[0] / operators[0]), 0.0)
    scale, constant = np.linalg.lstsq(features, np.ones(len(walls)), rcond=None)[0]
    return Overhead(float(scale), float(constant))
