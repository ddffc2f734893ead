"""How sure: p-values under independence and false-discovery rates."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.special import chdtrc

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.estimators import statistics_of
from edgeprune.information.validate import FloatArray

PERMUTATION_ROUNDS = 999


def p_values(
    counts: Any,
    *,
    method: Literal["auto", "chi2", "permutation"] = "auto",
    rounds: int = PERMUTATION_ROUNDS,
    seed: int = 0,
    threads: int = 0,
) -> FloatArray:
    """Give the chance of at least this much plug-in information if T and Y were independent.

    chi2: 2N times the uncorrected estimate against (R-1)(K-1) degrees over the
    occupied rows and columns; valid while every expected cell is at least 5.
    permutation: `rounds` shuffles of the labels, (1 + hits)/(1 + rounds).
    auto: chi2 where it is valid, else permutation. A constant channel or label gives 1.

    Args:
        counts: uint32, shape (channels, bins, classes).

    Returns:
        float64, shape (channels,), each in [0, 1].

    Raises:
        DataError: counts of the wrong type, an unknown method, no rounds, a seed outside 0..2^63-1.
    """
    if method not in ("auto", "chi2", "permutation"):
        raise DataError(f"method is {method!r}, wanted auto, chi2 or permutation")
    rounds = validate.whole(rounds, "rounds", 1, validate.MAX_SAMPLES)
    seed, threads = validate.whole(seed, "seed", 0, validate.MAX_INT64), validate.thread_count(threads)
    table = validate.joint_table(counts)
    stats = statistics_of(table, threads)
    degrees = (stats.bins - 1) * (stats.classes - 1)
    varies = degrees > 0
    out = np.ones(len(degrees))
    by_chi2 = varies if method == "chi2" else varies & (stats.smallest_expected >= 5)
    if method == "permutation":
        by_chi2 = np.zeros_like(varies)
    statistic = 2 * stats.samples * np.maximum(stats.information, 0)
    out[by_chi2] = chdtrc(degrees[by_chi2], statistic[by_chi2])
    for channel in np.flatnonzero(varies & ~by_chi2):
        # One channel a call: its stream depends on its own index, whatever the others need.
        part = np.ascontiguousarray(table[channel : channel + 1])
        out[channel] = core.permutation_p_values(part, rounds, seed + int(channel), 1)[0]
    return out


def false_discovery(p: Any) -> FloatArray:
    """Turn p-values into q-values (Benjamini & Hochberg 1995).

    A test's q-value is the least false-discovery rate at which it is still called.

    Args:
        p: float64, shape (tests,), each in [0, 1].

    Raises:
        DataError: wrong type or shape, or outside [0, 1].
    """
    p = validate.numbers(p, "p")
    if p.ndim != 1:
        raise DataError(f"p has shape {p.shape}, wanted (tests,)")
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"p[{at}] is {p[at]}, outside 0..1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q: FloatArray = np.empty_like(p)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return q
