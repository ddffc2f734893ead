"""Nearest-neighbour estimates, as references for the counting ones.

They need every sample at once and do not merge: gather a subsample. Values are
taken in double precision and copied channel by channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.validate import FloatArray


def ross_information(
    x: Any, labels: Any, *, neighbours: int = 3, classes: int | None = None, threads: int = 0
) -> FloatArray:
    """Estimate I(x_c; Y) between real channels and a label by Ross (2014), exactly, by sorting.

    psi(N) + <psi(k)> - <psi(N_y)> - <psi(m)>, as sklearn's mutual_info_classif
    without its noise and without clipping at 0. Classes of one sample are left
    out. Assumes continuous values: an atom makes it too low.

    Args:
        x: floats, shape (samples, channels).
        labels: integers, shape (samples,).
        neighbours: k; smaller classes use all their neighbours.

    Returns:
        float64, shape (channels,), nats.

    Raises:
        DataError: wrong type or shape, unequal lengths, NaN or infinity, no neighbours.
    """
    x = doubles(x)
    classes = validate.classes_of(labels) if classes is None else classes
    checked = validate.class_labels(labels, x.shape[1], classes)
    k = validate.whole(neighbours, "neighbours", 1, validate.MAX_SAMPLES)
    out: FloatArray = core.ross_information(x, checked, int(classes), k, validate.thread_count(threads))
    return out


def mixed_information(x: Any, y: Any, *, neighbours: int = 5, threads: int = 0) -> FloatArray:
    """Estimate I(x_c; y_c) between real variables that may mix continuous parts and atoms.

    Gao, Kannan, Oh & Viswanath (NeurIPS 2017): <psi(k_i) + log N - psi(n_x) - psi(n_y)>.

    Args:
        x, y: floats, shape (samples, channels).

    Returns:
        float64, shape (channels,), nats.

    Raises:
        DataError: wrong type or shape, unequal shapes, NaN or infinity, neighbours outside 1..samples-1.
    """
    x, y = doubles(x), doubles(y, "y")
    if x.shape != y.shape:
        raise DataError(f"x has shape {x.shape[::-1]}, y has {y.shape[::-1]}")
    k = validate.whole(neighbours, "neighbours", 1, x.shape[1] - 1)
    out: FloatArray = core.mixed_information(x, y, k, validate.thread_count(threads))
    return out


def doubles(x: Any, name: str = "x") -> FloatArray:
    """Return x as float64, shape (channels, samples).

    Raises:
        DataError: wrong type or shape, empty, NaN or infinity.
    """
    x, dtype = validate.activations(x, name)
    validate.not_empty(x, name)
    if core.find_non_finite(x, dtype) is not None:
        validate.refuse_non_finite(x, dtype, name)
    if dtype == "bfloat16":
        x = (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(x.T, dtype=np.float64)
