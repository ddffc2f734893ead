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
from scipy.special import logsumexp

FloatArray = npt.NDArray[np.float64]

RATIO = 2.0  # between neighbouring bets
BOLDEST = 0.4  # weight of the largest bet, which is best where nearly all values are equal
STEPS = 60  # of the bisection


def mean_upper(values: FloatArray, high: float, error: float, weights: FloatArray | None = None) -> float:
    """Upper bound on the (weighted) mean of independent values.

    Args:
        values: (units,), none above `high`.
        error: probability that the bound is too low, in (0, 1).
        weights: (units,) above 0; how much a unit counts. Fixed before looking, as sizes of groups.
    """
    share = np.ones_like(values) if weights is None else weights / weights.max()
    scale = max(abs(high), float(np.abs(values).max()), 1e-300)

    def rejected(mean: float) -> bool:
        return _capital(share * (mean - values) / (high - mean), error)

    low = float(np.average(values, weights=weights))
    return _smallest(rejected, low, high, 1e-12 * scale)


def ratio_upper(above: FloatArray, below: FloatArray, limit: float, error: float) -> float:
    """Upper bound on mean(above) / mean(below), both of paired values in 0..limit; inf where there is none.

    The mean of r * below - above is tested against 0: every factor is at least 1 - above / limit >= 0.
    """
    base = float(below.mean())
    if base <= 0:
        return math.inf

    def rejected(ratio: float) -> bool:
        return _capital((ratio * below - above) / limit, error)

    low = float(above.mean()) / base
    high = 2 * low + 1
    while not rejected(high):
        high *= 2
        if high > 1e9:
            return math.inf
    return _smallest(rejected, low, high, 1e-9 * high)


def _capital(gains: FloatArray, error: float) -> bool:
    """Whether the mixture of bets has grown to 1/error; gains: (units,), none below -1."""
    bets, weights = _bets(len(gains), error)
    with np.errstate(divide="ignore"):
        grown = np.log1p(np.maximum(bets[:, None] * gains, -1.0)).sum(axis=1)
    return bool(logsumexp(grown, b=weights) >= -math.log(error))


def _bets(units: int, error: float) -> tuple[FloatArray, FloatArray]:
    """Bets as shares of the largest safe one, from 1 down to the best at full spread, and their weights."""
    least = min(math.sqrt(2 * math.log(1 / error) / units), 0.5)
    bets = RATIO ** -np.arange(1 + math.ceil(math.log(1 / least, RATIO)), dtype=np.float64)
    weights = np.full(len(bets), (1 - BOLDEST) / (len(bets) - 1))
    weights[0] = BOLDEST
    return bets, weights


def _smallest(rejected: Callable[[float], bool], low: float, high: float, tolerance: float) -> float:
    """The smallest value that is rejected, by bisection; `high` itself needs no test."""
    for _ in range(STEPS):
        if high - low <= tolerance:
            break
        middle = (low + high) / 2
        if rejected(middle):
            high = middle
        else:
            low = middle
    return high
