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
    unit: int = 1,
    threads: int = 0,
) -> FloatArray:
    """Give the chance of at least this much plug-in information if T and Y were independent.

    chi2: 2N times the uncorrected estimate against (R-1)(K-1) degrees over the
    occupied rows and columns; valid while every expected cell is at least 5.
    permutation: `rounds` shuffles of the labels, (1 + hits)/(1 + rounds). All channels meet the same
    shuffles, so equal tables have equal p-values and none depends on which others there are.
    auto: chi2 where it is valid, else permutation. A constant channel or label gives 1.

    Args:
        counts: uint32, shape (channels, bins, classes).
        unit: counts per sample. Soft labels (more than one) scatter less than classes do, so that chi2
            gives too large a p-value, never too small a one; they cannot be permuted by counts.
            `SoftCounts.p_values` knows how much they scatter.

    Returns:
        float64, shape (channels,), each in [0, 1].

    Raises:
        DataError: counts of the wrong type, an unknown method, no rounds, a seed outside 0..2^63-1, or
            a channel that wants a permutation with soft labels or with more than 2^26 samples.
    """
    if method not in ("auto", "chi2", "permutation"):
        raise DataError(f"method is {method!r}, wanted auto, chi2 or permutation")
    rounds = validate.integer_in_range(rounds, "rounds", 1, validate.MAX_SAMPLES)
    seed, threads = (
        validate.integer_in_range(seed, "seed", 0, validate.MAX_INT64),
        validate.thread_count(threads),
    )
    unit = validate.integer_in_range(unit, "unit", 1, validate.MAX_SAMPLES)
    table = validate.joint_table(counts)
    stats = statistics_of(table, threads, unit)
    degrees = (stats.bins - 1) * (stats.classes - 1)
    varies = degrees > 0
    out = np.ones(len(degrees))
    by_chi2 = varies if method == "chi2" else varies & (stats.smallest_expected >= 5 * unit)
    if method == "permutation":
        by_chi2 = np.zeros_like(varies)
    statistic = 2 * stats.samples / unit * np.maximum(stats.information, 0)
    out[by_chi2] = chdtrc(degrees[by_chi2], statistic[by_chi2])
    rest = np.flatnonzero(varies & ~by_chi2)
    if rest.size and unit > 1:
        raise DataError(
            f"unit is {unit}, channel {rest[0]} wants a permutation: soft labels have none from counts alone",
            tip="use fewer bins, or method='chi2' all the same",
        )
    large = rest[stats.samples[rest] > core.most_permuted]
    if large.size:
        raise DataError(
            f"counts of channel {large[0]} add up to {int(stats.samples[large[0]])}, "
            f"at most {core.most_permuted} samples can be permuted",
            tip="method='chi2'",
        )
    if rest.size:
        out[rest] = core.permutation_p_values(table[rest], rounds, seed, threads)
    return out


def false_discovery(p: Any) -> FloatArray:
    """Turn p-values into q-values (Benjamini & Hochberg 1995).

    A test's q-value is the least false-discovery rate at which it is still called.

    Args:
        p: float64, shape (tests,), each in [0, 1].

    Raises:
        DataError: wrong type or shape, or outside [0, 1].
    """
    p = validate.real_numbers(p, "p")
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
