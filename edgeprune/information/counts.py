"""Count codes against labels.

Guarantee: counts are uint32 and exact; the same samples give the same counts in
any order, split or number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes, require_codes


def joint_counts(codes: Codes, labels: Any, classes: int, *, threads: int = 0) -> npt.NDArray[np.uint32]:
    """Count how often each code meets each label.

    Args:
        codes: of shape (samples, channels).
        labels: integers, shape (samples,), in 0..classes-1.
        classes: number of classes.

    Returns:
        uint32, shape (channels, bins, classes).

    Raises:
        DataError: no Codes, unequal lengths, labels of the wrong type or out of range, or a table that
            does not fit into memory.
    """
    checked = validate.class_labels(labels, require_codes(codes).codes.shape[0], classes)
    return count_table(codes, checked, int(classes), threads).transpose(0, 2, 1)


def count_table(
    codes: Codes, labels: npt.NDArray[np.int32], classes: int, threads: int
) -> npt.NDArray[np.uint32]:
    """Count against labels that are validated already: uint32, shape (channels, classes, bins).

    Raises:
        DataError: the table does not fit into memory.
    """
    counts = validate.zero_counts(codes.codes.shape[1], classes, codes.bins)
    core.add_code_counts(codes.codes, codes.bins, labels, classes, counts, validate.thread_count(threads))
    return counts
