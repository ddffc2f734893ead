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
    out. Where the k-th neighbour has the sample's own value (an atom, as ReLU makes
    one at zero), k and m count all samples of that value, as Gao et al. (2017) do. A
    constant channel gives 0.

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
    checked, classes = validate.labels_and_classes(labels, x.shape[1], classes)
    k = validate.integer_in_range(neighbours, "neighbours", 1, validate.MAX_SAMPLES)
    out: FloatArray = core.ross_information(x, checked, classes, k, validate.thread_count(threads))
    return out


def mixed_information(x: Any, y: Any, *, neighbours: int = 5, threads: int = 0) -> FloatArray:
    """Estimate I(x_c; y_c) between real variables that may mix continuous parts and atoms.

    Gao, Kannan, Oh & Viswanath (NeurIPS 2017): <psi(k_i) + log N - psi(n_x) - psi(n_y)>. A
    constant x or y gives 0.

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
    k = validate.integer_in_range(neighbours, "neighbours", 1, x.shape[1] - 1)
    out: FloatArray = core.mixed_information(x, y, k, validate.thread_count(threads))
    return out


def doubles(x: Any, name: str = "x") -> FloatArray:
    """Return a copy of x as float64, shape (channels, samples).

    Always a copy, checked after it was made: sorting must not meet a NaN that a caller writes meanwhile.

    Raises:
        DataError: wrong type or shape, empty, NaN or infinity.
    """
    x, dtype = validate.activations(x, name)
    validate.not_empty(x, name)
    if dtype == "bfloat16":
        x = (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    out: FloatArray = np.array(x.T, dtype=np.float64, order="C")
    if core.find_non_finite(out.T, "float64") is not None:
        validate.refuse_non_finite(out.T, "float64", name)
    return out
