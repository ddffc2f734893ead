"""The bounds that edgeprune's are compared with: its earlier one, and the empirical Bernstein bound."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Array = npt.NDArray[np.float64]


def normal_upper(mean: Array | float, variance: Array | float, samples: int, error: float) -> Array:
    """The bound until 0.1: normal, with one disagreement in n added as 1 / n^3, n times too small."""
    return np.asarray(mean + -ndtri(error) * np.sqrt(np.asarray(variance) / samples + samples**-3.0))


def grouped_upper(values: Array, groups: npt.NDArray[np.int64], error: float) -> float:
    """The same over groups: cluster-robust with Student's t, never narrower than by samples."""
    n, mean, count = len(values), float(values.mean()), int(groups.max()) + 1
    sums = np.bincount(groups, values - mean)
    spread = count / (count - 1) * float((sums**2).sum()) / n**2
    half = float(stdtrit(count - 1, 1 - error)) * math.sqrt(spread + n**-3.0)
    return max(mean + half, float(normal_upper(mean, values.var(), n, error)))


def bernstein_upper(values: Array, width: float, error: float) -> float:
    """Maurer and Pontil (2009), theorem 4, for values in an interval of this width."""
    n, log = len(values), math.log(2 / error)
    margin = math.sqrt(2 * values.var(ddof=1) * log / n) + 7 * width * log / (3 * (n - 1))
    return float(values.mean()) + margin
