"""Conditional Gaussian information of channels, by backward elimination.

The unique information of unit u given everything that remains, summed over the
consumers that read it, is 1/2 log(1 + tr(G_BB inv(P_BB))) nats: B are u's inputs
of the consumer, P the inverse covariance of what remains, G = W^T diag(1/tau^2) W
the energy of the weights after they absorbed every removal so far. With one
input it is 1/2 log(1 + sum_j w_ij^2/tau_j^2 / [inv(Sigma)]_ii).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.validate import FloatArray


@dataclass(frozen=True)
class Consumer:
    """One layer that reads the units.

    covariance: float64 (inputs, inputs), symmetric positive definite, ridge included.
    energy: float64 (inputs, inputs), W^T diag(1/tau^2) W.
    unit: int32 (inputs,), the unit each input belongs to; -1 is never removed.
    """

    covariance: FloatArray
    energy: FloatArray
    unit: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Elimination:
    """The order in which units go and what each costs, in nats.

    order: int64 (units,), first removed first.
    score_nats: float64 (units,), by unit, at its removal.
    initial_nats: float64 (units,), by unit, while everything is there.
    """

    order: npt.NDArray[np.int64]
    score_nats: FloatArray
    initial_nats: FloatArray


def backward_elimination(consumers: Sequence[Consumer], units: int, *, threads: int = 0) -> Elimination:
    """Remove units one by one, always the one of least conditional information (ties: the lowest index).

    After each removal of input p the covariance of the rest is conditioned by
    an exact Schur downdate, P -= P[:,p] P[p,:] / P[p,p], and the remaining weights
    absorb it, W -= w_p a with a = P[p,:]/P[p,p]. A unit without inputs scores 0.

    Args:
        consumers: layers that read the units.
        units: number of units; every `unit` entry is below it.

    Raises:
        DataError: no Consumer, shapes that differ, values that are not finite, a matrix that is
            not symmetric, a covariance that is not positive definite.
    """
    units, threads = validate.integer_in_range(units, "units", 0, 2**31 - 1), validate.thread_count(threads)
    if not isinstance(consumers, Sequence):
        raise DataError(f"consumers is {validate.describe_value(consumers)}, wanted a list of Consumer")
    checked = [_check(consumer, index, units) for index, consumer in enumerate(consumers)]
    try:
        order, score, initial = core.backward_elimination(
            [c.covariance for c in checked],
            [c.energy for c in checked],
            [c.unit for c in checked],
            units,
            threads,
        )
    except ValueError as error:
        raise DataError(str(error), tip="add a ridge to its diagonal") from None
    return Elimination(order, score, initial)


def _check(consumer: Consumer, index: int, units: int) -> Consumer:
    if not isinstance(consumer, Consumer):
        raise DataError(f"consumers[{index}] is {validate.describe_value(consumer)}, wanted a Consumer")
    unit = validate.array_of(consumer.unit, f"consumers[{index}].unit")
    if unit.ndim != 1 or unit.dtype.kind not in "iu":
        raise DataError(
            f"consumers[{index}].unit has type {unit.dtype} and shape {unit.shape}, wanted (inputs,)"
        )
    wrong = (unit < -1) | (unit >= units)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"consumers[{index}].unit[{at}] is {unit[at]}, outside -1..{units - 1}")
    covariance = _symmetric(consumer.covariance, f"consumers[{index}].covariance", len(unit))
    energy = _symmetric(consumer.energy, f"consumers[{index}].energy", len(unit))
    return Consumer(covariance, energy, np.ascontiguousarray(unit, dtype=np.int32))


def _symmetric(value: Any, name: str, size: int) -> FloatArray:
    matrix: FloatArray = validate.real_numbers(value, name)
    if matrix.shape != (size, size):
        raise DataError(f"{name} has shape {matrix.shape}, wanted ({size}, {size})")
    wrong = ~np.isfinite(matrix)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), matrix.shape)
        raise DataError(f"{name}[{row}, {column}] is {matrix[row, column]}")
    scale = float(np.abs(matrix).max()) if size else 0.0
    skewed = np.abs(matrix - matrix.T) > 1e-8 * scale
    if skewed.any():
        row, column = np.unravel_index(int(np.argmax(skewed)), matrix.shape)
        raise DataError(
            f"{name}[{row}, {column}] differs from its mirror image", tip="the matrix must be symmetric"
        )
    return matrix
