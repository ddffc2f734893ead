"""Proven bounds on means of bounded values, by betting against every mean that is too large.

To test "the mean is at least m", multiply 1 + lambda * (m - x) over the samples. Where the mean is at
least m, this product has an expectation of at most 1, and by Markov's inequality it exceeds 1/alpha with
probability alpha at most. The bound is the smallest m that is rejected (Waudby-Smith and Ramdas 2024).

The bet is a fixed mixture over lambda. Their hedged capital adapts lambda from sample to sample and is a
little tighter, but depends on the order of the samples; the mixture does not.

Guarantee: coverage for every number of independent values in the range, of any distributions that share
    the mean. With weights the mean is the weighted one: the arithmetic mean of the factors is at most 1,
    hence their product's expectation too.
Elsewhere: what the values are and what the range is (bounds).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

FloatArray = npt.NDArray[np.float64]

RATIO = 2.0  # between neighbouring bets
BOLDEST = 0.4  # weight of the largest bet, which is best where nearly all values are equal
TOLERANCE = 1e-9  # of a bound, as a share of where it can lie; bounds are rounded up by it


def mean_upper(values: FloatArray, high: float, error: float, weights: FloatArray | None = None) -> float:
    """Upper bound on the (weighted) mean of independent values.

    Args:
        values: (units,), none above `high`.
        error: probability that the bound is too low, in (0, 1).
        weights: (units,) above 0; how much a unit counts. Fixed before looking, as sizes of groups.
    """
    share = np.ones_like(values) if weights is None else weights / weights.max()
    bets, weight = _bets(len(values), error)

    def evidence(mean: float) -> float:
        return _evidence(share * ((mean - values) / (high - mean)), bets, weight, error)

    low = float(np.average(values, weights=weights))
    return _smallest(evidence, low, high, TOLERANCE * max(high - low, 0.0))


def ratio_upper(above: FloatArray, below: FloatArray, limit: float, error: float) -> float:
    """Upper bound on mean(above) / mean(below), both of paired values in 0..limit; inf where there is none.

    The mean of r * below - above is tested against 0: every factor is at least 1 - above / limit >= 0.
    """
    base = float(below.mean())
    if base <= 0:
        return math.inf
    bets, weight = _bets(len(below), error)

    def evidence(ratio: float) -> float:
        return _evidence((ratio * below - above) / limit, bets, weight, error)

    low = float(above.mean()) / base
    high = 2 * low + 1
    while evidence(high) < 0:
        high *= 2
        if high > 1e9:
            return math.inf
    return _smallest(evidence, low, high, TOLERANCE * high)


def _evidence(gains: FloatArray, bets: FloatArray, weights: FloatArray, error: float) -> float:
    """Logarithm of the mixture's capital times `error`: 0 or more where a mean is rejected.

    gains: (units,), none below -1.
    """
    with np.errstate(divide="ignore"):
        grown = np.log1p(np.maximum(np.outer(bets, gains), -1.0)).sum(axis=1) + np.log(weights)
    top = float(grown.max())
    return top + math.log(float(np.exp(grown - top).sum())) + math.log(error)


def _bets(units: int, error: float) -> tuple[FloatArray, FloatArray]:
    """Bets as shares of the largest safe one, from 1 down to the best at full spread, and their weights."""
    least = min(math.sqrt(2 * math.log(1 / error) / units), 0.5)
    bets = RATIO ** -np.arange(1 + math.ceil(math.log(1 / least, RATIO)), dtype=np.float64)
    weights = np.full(len(bets), (1 - BOLDEST) / (len(bets) - 1))
    weights[0] = BOLDEST
    return bets, weights


def _smallest(evidence: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """The smallest value that is rejected, rounded up by `tolerance`; `high` where none below it is."""
    last = high - tolerance
    if last <= low or evidence(last) < 0:
        return high
    return min(float(brentq(evidence, low, last, xtol=tolerance, rtol=1e-12)) + 2 * tolerance, high)
