"""Exact bounds for 0/1 scores: the loss between two models on the same samples, and a share.

Two models scored 0 or 1 on the same n samples differ on n10 (the first right, the second wrong)
and on n01 (the reverse). The loss is theta = p10 - p01; how often the models differ at all,
psi = p10 + p01, is a nuisance parameter.

    upper bound  the largest theta that the test below does not reject
    test         P(T <= t_observed) <= alpha for every psi that the data leave plausible
    T            n10 - n01 + z * sqrt(n10 + n01 + c), an approximate upper bound times n

Guarantee: P(bound < theta) <= alpha for every n, p10 and p01.
  1. T grows with n10 and falls with n01 (c >= z^2/4), so P(T <= t) falls as p10 grows and as p01 falls.
     The bound is that of Buehler (1957): the smallest bound that orders outcomes as T does.
  2. The supremum runs over psi in an exact 1 - gamma interval, and gamma is taken from alpha
     (Berger and Boos 1994); gamma = alpha / 100,000.
  3. The supremum is computed on cells with a remainder, not on a grid: for the derivative along psi,
     |f''| is at most the Fisher information, and f is monotone as in 1.
With no disagreement the bound is 1 - (alpha - gamma)^(1/n). One more gain never raises the bound from 40
samples up; below, the interval of psi that moves with it can outweigh it, by about a point at most.

Elsewhere: choosing the bound for a kind of score, units, records (bounds).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, gammaln, ndtri, xlog1py, xlogy

FloatArray = npt.NDArray[np.float64]

NUISANCE = 1e-5  # share of the error that pays for the interval of psi
SLACK = 4e-3  # share of the error that the remainder between grid points may take
FINE = (50, 1e-5)  # up to so many disagreements the sums are short, and the slack is this
TAIL = 6.5  # standard deviations of the number of disagreements that are summed over; the rest is added


def paired_upper(samples: int, lost: int, gained: int, error: float) -> float:
    """Upper bound on the share of samples lost, net of those gained, in -1..1.

    Args:
        samples: n >= 1. lost: n10, gained: n01; lost + gained <= n.
        error: probability that the bound is too low, in (0, 0.5).
    """
    return _paired_upper(int(samples), int(lost), int(gained), float(error))


def share_bounds(samples: int, hits: int, error: float) -> tuple[float, float]:
    """Lower and upper bound on a share (Clopper and Pearson 1934); each fails with at most `error`."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, samples - hits + 1, error))
    high = 1.0 if hits == samples else float(betaincinv(hits + 1, samples - hits, 1 - error))
    return low, high


@lru_cache(maxsize=65536)
def _paired_upper(samples: int, lost: int, gained: int, error: float) -> float:
    test = PairedTest(samples, lost, gained, error)
    low, high = max((lost - gained) / samples, -test.psi_high), test.psi_high
    if high >= 1.0 and test.largest(1.0) > test.allowed:
        return 1.0
    goal = math.log(test.goal)

    def excess(theta: float) -> float:
        return math.log(max(test.largest(theta), 1e-300)) - goal

    spread = math.sqrt(lost + gained + 1) / samples
    if excess(high) >= 0:  # cannot be for long: at psi_high only theta = psi is left
        theta = high
    else:
        theta = float(brentq(excess, low, high, xtol=1e-5 * spread, rtol=1e-12))
    step = 2e-4 * spread
    while theta < 1.0 and not test.rejects(theta):
        theta, step = theta + step, 2 * step
    return min(theta, 1.0)


class PairedTest:
    """P(T <= t_observed) at (theta, psi), as sums over the number of disagreements m.

    Given m, n10 is binomial: f = sum over m of Bin(m; n, psi) * BinCDF(b(m); m, p10/psi), where b(m) is
    the largest n10 with T <= t_observed.
    """

    def __init__(self, samples: int, lost: int, gained: int, error: float) -> None:
        self.n = samples
        self.z = float(-ndtri(error))
        self.c = self.z**2
        self.t = lost - gained + self.z * math.sqrt(lost + gained + self.c)
        gamma = NUISANCE * error
        self.allowed = error - gamma
        self.goal = self.allowed * (1 - (FINE[1] if lost + gained <= FINE[0] else SLACK))
        self.psi_low, self.psi_high = share_bounds(samples, lost + gained, gamma / 2)

    def probability(self, p10: FloatArray, p01: FloatArray) -> FloatArray:
        """P(T <= t_observed), at most 1e-9 too high and never too low; arrays of one shape (points,)."""
        psi = np.clip(p10 + p01, 1e-300, 1.0)
        centre = self.n * psi
        reach = TAIL * np.sqrt(centre * (1 - psi)) + 30
        first = np.maximum(np.floor(centre - reach), 0)
        width = int(min(np.max(np.ceil(2 * reach)) + 2, self.n + 1))
        m = first[:, None] + np.arange(width)
        inside = m <= self.n
        m = np.minimum(m, self.n)
        p = psi[:, None]
        log = gammaln(self.n + 1) - gammaln(m + 1) - gammaln(self.n - m + 1) + xlogy(m, p)
        weight = np.where(inside, np.exp(log + xlog1py(self.n - m, -p)), 0.0)
        most = np.minimum(np.floor((self.t + m - self.z * np.sqrt(m + self.c)) / 2 + 1e-9), m)
        share = np.broadcast_to(np.clip(p10 / psi, 0, 1)[:, None], m.shape)
        below = np.where(most < 0, 0.0, 1.0)
        partly = (most >= 0) & (most < m) & (weight > 1e-18)
        below[partly] = bdtr(most[partly], m[partly].astype(np.int64), share[partly])
        return np.asarray((weight * below).sum(axis=1) + np.clip(1 - weight.sum(axis=1), 0, 1e-9))

    def span(self, theta: float) -> tuple[float, float]:
        """The plausible range of the smaller of p10 and p01 at `theta`; empty where first > second."""
        size = abs(theta)
        return max((self.psi_low - size) / 2, 0.0), (min(self.psi_high, 1.0) - size) / 2

    def at(self, theta: float, smaller: FloatArray) -> FloatArray:
        return self.probability(smaller + max(theta, 0.0), smaller + max(-theta, 0.0))

    def may_exclude(self, theta: float) -> bool:
        """Whether the bound lies below `theta`, give or take the last step of its certificate; fast.

        Never False where the bound lies below.
        """
        return self.largest(theta) <= self.goal

    def largest(self, theta: float) -> float:
        """The largest probability on a grid that is even in the square root of the smaller share."""
        low, high = self.span(theta)
        if high < low:
            return 0.0
        return float(self.at(theta, np.linspace(math.sqrt(low), math.sqrt(high), 24) ** 2).max())

    def rejects(self, theta: float) -> bool:
        """Whether the supremum over psi is at most what is allowed; False where it cannot be shown."""
        low, high = self.span(theta)
        if high < low:
            return True
        nodes = np.linspace(math.sqrt(low), math.sqrt(high), 33)[:, None] ** 2
        values = self.at(theta, nodes.ravel())[:, None]
        cut = np.linspace(0, 1, 5)[:, None]
        for _ in range(14):
            if values.max() > self.allowed:
                return False
            left, right = nodes[:-1].ravel(), nodes[1:].ravel()
            top = np.maximum(values[:-1], values[1:]).ravel() + self.remainder(theta, left, right)
            corner = np.zeros_like(top)
            wide = top > self.allowed
            if not wide.any():
                return True
            corner[wide] = self.probability(left[wide] + max(theta, 0.0), right[wide] + max(-theta, 0.0))
            wide &= corner > self.allowed
            if not wide.any():
                return True
            ends = values[:-1].ravel()[wide], values[1:].ravel()[wide]
            nodes = left[wide] + cut * (right - left)[wide]
            inner = self.at(theta, nodes[1:-1].ravel()).reshape(3, -1)
            values = np.concatenate([ends[0][None], inner, ends[1][None]])
        return False

    def remainder(self, theta: float, left: FloatArray, right: FloatArray) -> FloatArray:
        """How far f can rise above both ends inside each cell: width^2 / 8 times the Fisher information."""
        p10, p01 = left + max(theta, 0.0), left + max(-theta, 0.0)
        rest = np.maximum(1 - abs(theta) - 2 * right, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            rise = (right - left) ** 2 / 8 * self.n * (1 / p10 + 1 / p01 + 4 / rest)
        return np.where(np.isfinite(rise), rise, 1.0)
