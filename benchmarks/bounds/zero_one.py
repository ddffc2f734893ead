"""Coverage of the bounds of 0/1 scores, as sums over the outcomes: no Monte Carlo error.

Given m disagreements the number lost is binomial, so coverage = 1 - sum over m of P(m) P(lost <= a(m)),
where a(m) is the largest number lost whose bound is below the true loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import binom

from benchmarks.bounds.earlier import normal_upper
from edgeprune.tasks.bounds_exact import PairedTest, paired_upper

SAMPLES = (30, 100, 229, 1000, 3000, 10_000)
DISCORDANCE = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
LOST = (0.5, 0.75, 1.0)  # share of the disagreements that are losses
ERROR = 0.1
REACH = 4.5  # standard deviations of m; what lies beyond counts as not covered
EVERY = 60  # up to so many values of m each is searched; of more, 12 are, and T gives the rest

Below = Callable[[int, int], bool]  # (lost, gained) -> whether the bound lies below the true loss


def rows() -> Iterator[dict[str, Any]]:
    """One row per number of samples, discordance and share lost."""
    for n in SAMPLES:
        for psi in DISCORDANCE:
            for share in LOST:
                if psi or share == 1.0:
                    yield row(n, psi, psi * (2 * share - 1))


def row(n: int, psi: float, theta: float) -> dict[str, Any]:
    """Coverage of both bounds, and their margins at the expected outcome, in points."""
    lost, gained = (round(n * (psi + sign * theta) / 2) for sign in (1, -1))
    mean = (lost - gained) / n
    now = paired_upper(n, lost, gained, ERROR)
    before = float(normal_upper(mean, (lost + gained) / n - mean**2, n, ERROR))
    return {
        "kind": "0/1", "samples": n, "discordance": psi, "loss": theta, "nominal": 1 - ERROR,
        "coverage": coverage(n, psi, theta, lambda a, b: PairedTest(n, a, b, ERROR).may_exclude(theta)),
        "coverage_before": coverage(n, psi, theta, lambda a, b: _normal(n, a, b) < theta, ordered=False),
        "monte_carlo_error": 0.0,
        "margin": 100 * (now - mean), "margin_before": 100 * (before - mean),
    }  # fmt: skip


def _normal(n: int, lost: int, gained: int) -> float:
    mean = (lost - gained) / n
    return float(normal_upper(mean, (lost + gained) / n - mean**2, n, ERROR))


def coverage(n: int, psi: float, theta: float, below: Below, *, ordered: bool = True) -> float:
    """P(bound >= theta), not higher than it is.

    ordered: the bound grows with T = 2 lost - m + z sqrt(m + z^2), as the exact one does; then the outcomes
    below theta are those below one value of T, which a few m pin down.
    """
    if psi == 0:
        return float(not below(0, 0))
    spread = math.sqrt(n * psi * (1 - psi))
    low = max(math.floor(n * psi - REACH * spread - 5), 0)
    m = np.arange(low, min(math.ceil(n * psi + REACH * spread + 5), n) + 1)
    most = np.full(len(m), -1)
    if len(m) <= EVERY or not ordered:
        last = -1
        for i, disagreements in enumerate(m):
            last = most[i] = largest_below(int(disagreements), theta, below, last, n, psi)
    else:
        most = np.minimum(np.floor((_threshold(m, n, psi, theta, below) + m - _root(m)) / 2 - 1e-9), m)
    missed = (binom.pmf(m, n, psi) * binom.cdf(most, m, (psi + theta) / 2 / psi)).sum()
    beyond = binom.cdf(m[0] - 1, n, psi) + binom.sf(m[-1], n, psi)
    return float(1 - missed - beyond)


def _root(m: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    z = -ndtri(ERROR)
    return np.asarray(z * np.sqrt(m + z * z))


def _threshold(m: npt.NDArray[np.int64], n: int, psi: float, theta: float, below: Below) -> float:
    """The smallest T known not to lie below theta; outcomes short of it count as missed.

    Raises:
        AssertionError: an outcome that lies below theta has a larger T than one that does not.
    """
    low, high, last = -math.inf, math.inf, -1
    for disagreements in m[np.unique(np.linspace(0, len(m) - 1, 12).astype(int))]:
        last = largest_below(int(disagreements), theta, below, last, n, psi)
        ends = 2 * np.array([last, last + 1]) - disagreements + float(_root(disagreements))
        low = max(low, ends[0]) if last >= 0 else low
        high = min(high, ends[1]) if last < disagreements else high
    assert low < high + 0.02, (n, psi, theta, low, high)
    return max(low + 1e-6, high)


def largest_below(m: int, theta: float, below: Below, guess: float, n: int, psi: float) -> int:
    """The largest number lost of m disagreements whose bound is below theta; -1 where there is none."""
    a = int(np.clip(guess if guess >= 0 else m * (psi + theta) / 2 / psi, -1, m))
    while a < m and below(a + 1, m - a - 1):
        a += 1
    while a >= 0 and not below(a, m - a):
        a -= 1
    return a


def thresholds(n: int, limit: float, error: float, gained: npt.NDArray[np.int64]) -> dict[int, int]:
    """For each number gained the largest number lost whose bound is below `limit`; -1 where none is."""
    found, a = {}, -1
    for b in np.sort(gained):
        while a + 1 + b <= n and PairedTest(n, a + 1, int(b), error).may_exclude(limit):
            a += 1
        found[int(b)] = a
    return found
