"""Approximate bounds, for what has no proven one: scores without a range, few groups, set measures.

No bound on the mean of unbounded values holds at every number of samples (Bahadur and Savage 1956).
These use Student's t on a jack-knife estimate of spread, with corrections for small samples:

    spread   delete-one jack-knife; over groups of unequal size it is the most careful of the
             cluster-robust estimates (CR3; Cameron and Miller 2015)
    freedom  as many groups of equal size as would weigh the same, (sum of sizes)^2 / sum of squares, less 1
    error    groups are few and what they lose is skewed to one side, so t is taken at half of the error
    floor    `unseen`: n units prove only that what none of them shows befalls fewer than 1 - alpha^(1/n);
             these could change by as much as any sample did

Elsewhere: what is measured, units, records (bounds).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GROUP_ERROR = 0.5  # share of the error at which t is taken over groups; docs/bounds.md has the coverage
BLOCKS = 40  # more units than this are left out a block at a time


def unseen(units: int, error: float) -> float:
    """The share of units that can differ although none of `units` did, at one-sided level 1 - error."""
    return -math.expm1(math.log(error) / units)


def mean_half_width(values: FloatArray, groups: IntArray | None, error: float) -> float:
    """Half the width of a t-interval of the mean of `values`, (samples,); groups numbered 0, 1, …"""
    n = len(values)
    if groups is None:
        return float(stdtrit(n - 1, 1 - error)) * float(values.std(ddof=1)) / math.sqrt(n)
    sizes, sums = np.bincount(groups).astype(np.float64), np.bincount(groups, values)
    return jackknife_half_width((values.sum() - sums) / (n - sizes), sizes, GROUP_ERROR * error)


def jackknife_half_width(left_out: FloatArray, sizes: FloatArray, error: float) -> float:
    """Half width from the estimates that leave one unit out each, (units,), of `sizes`."""
    count = len(left_out)
    variance = (count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum())
    freedom = max(float(sizes.sum() ** 2 / (sizes**2).sum()) - 1, 1.0)
    return float(stdtrit(freedom, 1 - error)) * math.sqrt(variance)


def jackknife_units(samples: int, groups: IntArray | None) -> list[IntArray]:
    """What the jack-knife leaves out at a time: a group, or every 40th sample where there are no groups."""
    unit = np.arange(samples) % min(samples, BLOCKS) if groups is None else groups
    order = np.argsort(unit, kind="stable")
    return [np.sort(part) for part in np.split(order, np.cumsum(np.bincount(unit))[:-1])]


def jackknife(measure: Callable[[IntArray], float], samples: int, parts: list[IntArray]) -> FloatArray:
    """`measure` of all samples but those of each part; shape (parts,)."""
    everything = np.arange(samples)
    keep = np.ones(samples, dtype=bool)
    estimates = []
    for part in parts:
        keep[part] = False
        estimates.append(float(measure(everything[keep])))
        keep[part] = True
    return np.array(estimates)
