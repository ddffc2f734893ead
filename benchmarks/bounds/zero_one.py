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
from scipy.stats import binom

from benchmarks.bounds.earlier import normal_upper
from edgeprune.tasks.bounds_exact import PairedTest, paired_upper

SAMPLES = (30, 100, 229, 1000, 3000, 10_000)
DISCORDANCE = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
LOST = (0.5, 0.75, 1.0)  # share of the disagreements that are losses
ERROR = 0.1
REACH = 4.5  # standard deviations of m; what lies beyond counts as not covered

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
        "coverage_before": coverage(n, psi, theta, lambda a, b: _normal(n, a, b) < theta),
        "monte_carlo_error": 0.0,
        "margin": 100 * (now - mean), "margin_before": 100 * (before - mean),
    }  # fmt: skip


def _normal(n: int, lost: int, gained: int) -> float:
    mean = (lost - gained) / n
    return float(normal_upper(mean, (lost + gained) / n - mean**2, n, ERROR))


def coverage(n: int, psi: float, theta: float, below: Below) -> float:
    """P(bound >= theta), not higher than it is: every number of disagreements is searched."""
    if psi == 0:
        return float(not below(0, 0))
    spread = math.sqrt(n * psi * (1 - psi))
    low = max(math.floor(n * psi - REACH * spread - 5), 0)
    m = np.arange(low, min(math.ceil(n * psi + REACH * spread + 5), n) + 1)
    most = np.full(len(m), -1)
    last = -1
    for i, disagreements in enumerate(m):
        last = most[i] = largest_below(int(disagreements), theta, below, last, n, psi)
    missed = (binom.pmf(m, n, psi) * binom.cdf(most, m, (psi + theta) / 2 / psi)).sum()
    beyond = binom.cdf(m[0] - 1, n, psi) + binom.sf(m[-1], n, psi)
    return float(1 - missed - beyond)


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
