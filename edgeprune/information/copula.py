"""The Gaussian copula: information that only the dependence of ranks carries.

A lower bound of the mutual information, exact where ranks are jointly Gaussian
(Ince et al. 2017, gcmi).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.special import digamma

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.neighbours import doubles
from edgeprune.information.validate import FloatArray


def normal_scores(x: Any, *, offset: float = 0.0, threads: int = 0) -> FloatArray:
    """Replace each value by the normal quantile of (rank - offset)/(N + 1 - 2 offset); ties share a rank.

    Args:
        x: floats, shape (samples, channels).
        offset: 0 (van der Waerden, as gcmi) to 1/2 (Hazen).

    Returns:
        float64, shape (samples, channels).

    Raises:
        DataError: wrong type or shape, no samples, NaN or infinity, an offset outside 0..1/2.
    """
    return _scores(x, "x", offset, threads)[0].T


def copula_information(
    x: Any,
    y: Any = None,
    *,
    correction: Literal["none", "gcmi"] = "gcmi",
    offset: float = 0.0,
    threads: int = 0,
) -> FloatArray:
    """Estimate I between every pair of channels by -1/2 log(1 - rho^2) of their normal scores.

    A constant channel has information 0. Where ranks agree entirely I is infinite, or as much
    as rounding leaves of it.

    Args:
        x: floats, shape (samples, channels).
        y: floats, shape (samples, others); x itself if left out (the diagonal is then inf).
        correction: gcmi subtracts the mean of the estimate under independence, so that
            independent channels scatter around zero; none does not.
        offset: as for `normal_scores`.

    Returns:
        float64, shape (channels, others), nats.

    Raises:
        DataError: wrong type or shape, unequal lengths, fewer than four samples, NaN or infinity.
    """
    if correction not in ("none", "gcmi"):
        raise DataError(f"correction is {correction!r}, wanted none or gcmi")
    a, _ = _scores(x, "x", offset, threads)
    b = a if y is None else _scores(y, "y", offset, threads)[0]
    samples = a.shape[1]
    if b.shape[1] != samples:
        raise DataError(f"x has {samples} samples, y has {b.shape[1]}")
    if samples < 4:
        raise DataError(f"x has {samples} samples, wanted at least four")
    rho = _unit(a) @ _unit(b).T
    with np.errstate(divide="ignore"):
        plug_in = -0.5 * np.log1p(-np.minimum(rho * rho, 1.0))
    if correction == "none":
        return np.asarray(plug_in)
    bias: float = 0.5 * (digamma((samples - 1) / 2) - digamma((samples - 2) / 2))
    constant = (a == a[:, :1]).all(axis=1)[:, None] | (b == b[:, :1]).all(axis=1)
    return np.where(constant, 0.0, plug_in - bias)


def copula_label_information(
    x: Any, labels: Any, *, classes: int | None = None, threads: int = 0
) -> FloatArray:
    """Estimate I(x_c; Y) by 1/2 [log var(z) - <log var(z|Y)>] of normal scores z, bias corrected.

    Tied values count with the variance that breaking their ties would give them, on average: a
    channel that is constant within a class (a dead one) has a finite spread there, that of the ranks
    it shares, and a constant channel has information 0.

    Args:
        x: floats, shape (samples, channels).
        labels: integers, shape (samples,); every class present needs two samples.

    Returns:
        float64, shape (channels,), nats.

    Raises:
        DataError: wrong type or shape, unequal lengths, NaN or infinity, a class of one sample.
    """
    z, spread = _scores(x, "x", 0.0, threads, spread=True)
    samples = z.shape[1]
    checked, _ = validate.labels_and_classes(labels, samples, classes)

    def entropy(of: Any) -> FloatArray:  # up to log(2 pi e)/2, which cancels
        part, n = z[:, of], np.count_nonzero(of)
        squares = ((part - part.mean(axis=1, keepdims=True)) ** 2 + spread[:, of]).sum(axis=1)
        bias: float = 0.5 * (np.log(2 / (n - 1)) + digamma((n - 1) / 2))
        with np.errstate(divide="ignore"):
            return np.asarray(0.5 * np.log(squares / (n - 1)) - bias)

    present, often = np.unique(checked, return_counts=True)
    if often.min() < 2:
        raise DataError(f"class {present[np.argmin(often)]} has one sample, wanted at least two")
    constant = (z == z[:, :1]).all(axis=1)
    out = entropy(np.ones(samples, bool))
    for k, n in zip(present, often, strict=True):
        out = out - n / samples * entropy(checked == k)
    return np.where(constant, 0.0, out)


def _scores(
    x: Any, name: str, offset: float, threads: int, *, spread: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Normal scores, shape (channels, samples), and the variance that ties hide, if it is wanted."""
    offset = validate.finite(offset, "offset")
    if not 0 <= offset <= 0.5:
        raise DataError(f"offset is {offset}, wanted 0..0.5")
    threads = validate.thread_count(threads)
    scores, hidden = core.normal_scores(doubles(x, name), offset, spread, threads)
    return scores, hidden


def _unit(z: FloatArray) -> FloatArray:
    z = z - z.mean(axis=1, keepdims=True)
    norm = np.sqrt((z * z).sum(axis=1, keepdims=True))
    return np.asarray(z / np.where(norm > 0, norm, 1))
