"""Intervals for accuracy: paired differences and shares."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from edgeprune.records import Interval

SampleScores = npt.NDArray[np.float64]


def paired_drop(
    before: SampleScores,
    after: SampleScores,
    *,
    level: float = 0.95,
    groups: npt.NDArray[np.int64] | None = None,
) -> Interval:
    """Loss of the mean score from `before` to `after` on the same samples, in points of 100.

    Normal interval on the paired differences. Two models that agree on every sample have no
    spread, so one disagreement in n is added to the variance: the interval never has width 0.
    A one-sided 90% bound is `high` at level 0.8.

    Args:
        groups: (samples,) what belongs together (the windows of one person) has one number. With two
            groups or more these count as the independent units, not the samples: cluster-robust variance
            with Student's t (Cameron and Miller 2015, eq. 11), never narrower than by samples.
    """
    difference = (before - after) * 100.0
    n = len(difference)
    mean = float(difference.mean())
    least = 100.0**2 / n**3
    half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(float(difference.var()) / n + least)
    count = 0 if groups is None else len(np.unique(groups))
    if groups is not None and count > 1:
        sums = np.bincount(np.unique(groups, return_inverse=True)[1], difference - mean)
        spread = count / (count - 1) * float((sums**2).sum()) / n**2
        half = max(half, float(stdtrit(count - 1, 0.5 + level / 2)) * math.sqrt(spread + least))
    return Interval(mean, mean - half, mean + half, level)


def share_interval(scores: SampleScores, *, level: float = 0.95) -> Interval:
    """Mean of per-sample scores in 0..1, with Wilson's interval for shares."""
    n, p = len(scores), float(scores.mean())
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(p, max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0), level)
