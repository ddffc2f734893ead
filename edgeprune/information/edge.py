"""Information per connection: I(x_i; Y) at the resolution that output j can see.

Mutual information does not change when x_i is rescaled, so a weight can only
matter through resolution: output j resolves steps of Delta_j, the connection
delivers q(w_ij x_i) in such steps, and a small contribution collapses into one
bin. An input needs one table of I and H against delta = Delta_j / |w_ij|; each
connection is a look-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.validate import FloatArray

_FEW_CLASSES = 64


def fine_cells(classes: int) -> int:
    """Return the cells of the fine histogram that every step is re-binned from."""
    return 4096 if classes <= _FEW_CLASSES else 1024


def edge_information(
    x: Any,
    labels: Any,
    weights: Any,
    steps: Any,
    *,
    theta: float = 0.0,
    classes: int | None = None,
    threads: int = 0,
) -> FloatArray:
    """Score every connection by L = (1 - theta) I(X_ij; Y) + theta H(X_ij), in nats.

    X_ij = floor(w_ij x_i / Delta_j + 1/2). delta = Delta_j/|w_ij| is held between
    max|x_i|/127, the input's own INT8 step, and 2 max|x_i|, where one bin holds
    everything and the score is 0; 256 steps between are tabulated and
    interpolated. I and H carry the Miller-Madow correction.

    Args:
        x: floats, shape (samples, channels): inputs reduced over positions.
        labels: integers, shape (samples,).
        weights: float32, shape (outputs, channels); a k x k kernel is k*k rows per output.
        steps: float32, shape (outputs,): Delta_j > 0 of each row of `weights`.
        theta: signed; 0 is mutual information, 1 is entropy.
        classes: the largest label plus one if left out.

    Returns:
        float64, shape (outputs, channels); 0 for a zero weight or a dead input.

    Raises:
        DataError: mismatched shapes, NaN or infinity anywhere, a step that is not positive.
    """
    threads = validate.thread_count(threads)
    x, dtype = validate.activations(x)
    validate.not_empty(x)
    samples, channels = x.shape
    checked, classes = validate.labels_and_classes(labels, samples, classes)
    ranges = core.find_ranges(x, dtype, threads)
    if ranges is None:
        validate.refuse_non_finite(x, dtype)
    cells = fine_cells(classes)
    width = max(16, (64 << 20) // (classes * cells * 4) // 16 * 16)  # at most some 64 MB of counts at once
    information = np.empty((channels, core.edge_steps))
    entropy = np.empty((channels, core.edge_steps))
    for first in range(0, channels, width):
        part = slice(first, min(first + width, channels))
        counts = validate.zero_counts(part.stop - part.start, classes, cells)
        if not core.add_fine_counts(x[:, part], dtype, ranges[part], checked, classes, counts, threads):
            validate.refuse_non_finite(x, dtype)
        information[part], entropy[part] = core.edge_tables(counts, threads)
    return scores_from_tables(ranges, information, entropy, weights, steps, theta, threads)


def scores_from_tables(
    ranges: npt.NDArray[np.float32],
    information: FloatArray,
    entropy: FloatArray,
    weights: Any,
    steps: Any,
    theta: float,
    threads: int,
) -> FloatArray:
    """Look every connection up in its input's table; weights and steps are validated here.

    Raises:
        DataError: mismatched shapes, NaN or infinity, a step that is not positive.
    """
    weights = _finite(weights, "weights", 2)
    steps = _finite(steps, "steps", 1)
    if weights.shape != (len(steps), len(ranges)):
        raise DataError(
            f"weights have shape {weights.shape}, wanted (steps, inputs) = ({len(steps)}, {len(ranges)})"
        )
    wrong = steps <= 0
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"steps[{at}] is {steps[at]}, wanted a positive step")
    theta, threads = validate.finite(theta, "theta"), validate.thread_count(threads)
    scores = core.edge_scores(
        np.ascontiguousarray(ranges), information, entropy, weights, steps, theta, threads
    )
    return np.asarray(scores)


def _finite(value: Any, name: str, ndim: int) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = validate.real_numbers(value, name, np.float32)
    if array.ndim != ndim:
        raise DataError(f"{name} has shape {array.shape}, wanted {ndim} dimensions")
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), array.shape)
        raise DataError(f"{name}[{', '.join(map(str, at))}] is {array[at]}")
    return array
