"""Labels that are not one class per sample, brought to counts in a documented way.

- Regression targets: cut into bins of equal mass (`bin_targets`), then labels as any.
- Several labels per sample: the information on each label separately
  (`multilabel_information`); how to combine them is the caller's decision.

Elsewhere: class probabilities (soft).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information.codes import Codes
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
    bins = validate.integer_in_range(bins, "bins", 2, validate.MAX_CLASSES)
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"targets[{at}] is {array[at]}")
    ordered = np.sort(array)
    edges = np.unique(ordered[np.arange(1, bins) * len(ordered) // bins])
    edges = edges[edges > ordered[0]]
    return np.searchsorted(edges, array, side="right").astype(np.int64)


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
