"""Labels that are not one class per sample, brought to counts in a documented way.

- Regression targets: cut into bins of equal mass (`bin_targets`), then labels as any.
- Soft labels: each sample hands out a fixed number of units in proportion to its
  class probabilities, by largest remainder, so counts stay integers and merge
  exactly (`soft_joint_counts`). Information follows with `unit=resolution`.
- Several labels per sample: the information on each label separately
  (`multilabel_information`); how to combine them is the caller's decision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes, require_codes
from edgeprune.information.counts import joint_counts
from edgeprune.information.estimators import Correction, mutual_information
from edgeprune.information.validate import FloatArray


def bin_targets(targets: Any, bins: int = 16) -> npt.NDArray[np.int64]:
    """Cut real targets into at most `bins` classes of equal mass; equal targets share a class.

    Args:
        targets: real numbers, shape (samples,).
        bins: at least 2.

    Returns:
        int64, shape (samples,), in 0..bins-1.

    Raises:
        DataError: wrong type or shape, empty, NaN or infinity, fewer than two bins.
    """
    array = validate.array_of(targets, "targets")
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise DataError(f"targets have type {array.dtype} and shape {array.shape}, wanted real (samples,)")
    if array.size == 0:
        raise DataError("targets are empty")
    bins = validate.whole(bins, "bins", 2, validate.MAX_CLASSES)
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"targets[{at}] is {array[at]}")
    ordered = np.sort(array)
    edges = np.unique(ordered[np.arange(1, bins) * len(ordered) // bins])
    edges = edges[edges > ordered[0]]
    return np.searchsorted(edges, array, side="right").astype(np.int64)


def soft_joint_counts(
    codes: Codes, probabilities: Any, *, resolution: int = 256, threads: int = 0
) -> npt.NDArray[np.uint32]:
    """Count codes against class probabilities, in units of 1/resolution of a sample.

    Args:
        codes: of shape (samples, channels).
        probabilities: floats, shape (samples, classes), each row not negative and of sum one (to 1e-3).
        resolution: units per sample; samples * resolution is at most 2^32 - 1.

    Returns:
        uint32, shape (channels, bins, classes); pass it on with unit=resolution.

    Raises:
        DataError: no Codes, mismatched lengths, a row that is no distribution, too many units.
    """
    p, threads = validate.numbers(probabilities, "probabilities"), validate.thread_count(threads)
    samples, channels = require_codes(codes).codes.shape
    if p.ndim != 2 or p.shape[0] != samples or p.shape[1] == 0:
        raise DataError(f"probabilities have shape {p.shape}, wanted ({samples}, classes)")
    wrong = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | ~(np.abs(p.sum(axis=1) - 1) <= 1e-3)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"probabilities[{at}] is no distribution: least {p[at].min():g}, sum {p[at].sum():g}")
    resolution = validate.whole(resolution, "resolution", 1)
    if samples * resolution > validate.MAX_SAMPLES:
        raise DataError(f"resolution is {resolution}: {samples} samples would need more than 2^32 - 1 units")
    share = p * (resolution / p.sum(axis=1, keepdims=True))
    units = np.floor(share)
    missing = (resolution - units.sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(units - share, axis=1, kind="stable"), axis=1, kind="stable")
    weights = np.ascontiguousarray(units + (rank < missing[:, None]), dtype=np.uint32)
    counts = np.zeros((channels, p.shape[1], codes.bins), np.uint32)
    core.add_soft_counts(codes.codes, codes.bins, weights, counts, threads)
    return counts.transpose(0, 2, 1)


def multilabel_information(
    codes: Codes, labels: Any, *, correction: Correction = "miller-madow", threads: int = 0
) -> FloatArray:
    """Estimate I(T_c; Y_l) for every channel and every one of several binary labels.

    Args:
        codes: of shape (samples, channels).
        labels: bool or 0/1 integers, shape (samples, labels).

    Returns:
        float64, shape (channels, labels), nats.

    Raises:
        DataError: no Codes, labels of the wrong type or shape or neither 0 nor 1, unequal lengths.
    """
    array = validate.array_of(labels, "labels")
    if array.ndim != 2 or array.dtype.kind not in "iub" or array.shape[1] == 0:
        raise DataError(
            f"labels have type {array.dtype} and shape {array.shape}, wanted 0/1 (samples, labels)"
        )
    columns = [
        mutual_information(
            joint_counts(codes, column, 2, threads=threads), correction=correction, threads=threads
        )
        for column in array.T
    ]
    return np.stack(columns, axis=1)
