"""Count codes against labels.

Guarantee: counts are uint32 and exact; the same samples give the same counts in
any order, split or number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes


def joint_counts(codes: Codes, labels: Any, classes: int, *, threads: int = 0) -> npt.NDArray[np.uint32]:
    """Count how often each code meets each label.

    Args:
        codes: of shape (samples, channels).
        labels: integers, shape (samples,), in 0..classes-1.
        classes: number of classes.

    Returns:
        uint32, shape (channels, bins, classes).

    Raises:
        DataError: unequal lengths, labels of the wrong type or out of range.
    """
    if not isinstance(codes, Codes):
        raise DataError(
            f"codes is a {type(codes).__name__}, wanted Codes", tip="make them with information.quantize"
        )
    samples, channels = codes.codes.shape
    checked = validate.class_labels(labels, samples, classes)
    counts = np.zeros((channels, int(classes), codes.bins), np.uint32)
    core.add_code_counts(codes.codes, codes.bins, checked, int(classes), counts, threads)
    return counts.transpose(0, 2, 1)
