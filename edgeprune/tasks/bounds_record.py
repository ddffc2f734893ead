"""What a bound says, and the checks that every bound makes of its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError, OptionError
from edgeprune.records import Interval

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bound(Interval):
    """An interval that says how it was computed and how much of it is proven.

    `low` and `high` each hold with probability `one_sided_level`, both together with `level`; a one-sided
    90% bound is `high` at level 0.8.

    Fields:
        method: in words, as reports print it.
        proven: the level holds at every number of units, given that the units are independent and, where
            scores have a range, that the range is right. False: the method is approximate and says so.
        samples: compared samples. units: what counts as independent, samples or groups.
    """

    one_sided_level: float = 0.975
    method: str = ""
    proven: bool = True
    samples: int = 0
    units: int = 0


def error_of(level: float) -> float:
    """Error of each end of an interval of two-sided coverage `level`."""
    if not 0 < level < 1:
        raise OptionError(f"a bound at level {level:g}", tip="give the two-sided level, between 0 and 1")
    return (1 - level) / 2


def checked_scores(scores: npt.ArrayLike, what: str) -> FloatArray:
    """Scores as float64, shape (samples,).

    Raises:
        DataError: another shape, fewer than two samples, or values that are not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(
            f"{what}: scores have shape {values.shape}, a bound needs (samples,)", tip="give one per sample"
        )
    if len(values) < 2:
        raise DataError(
            f"{what}: a bound needs two samples or more, there are {len(values)}",
            tip="give more data, or a larger validation part",
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"{what}: {len(wrong)} of {len(values)} scores are not finite, the first at sample {wrong[0]}",
            tip="look at the outputs and targets of that sample",
        )
    return values


def checked_pair(
    before: npt.ArrayLike, after: npt.ArrayLike, groups: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, IntArray | None]:
    """Scores of two models and the samples' groups numbered 0, 1, …; None where there are not two groups.

    Raises:
        DataError: as `checked_scores`, or unequal lengths.
    """
    first, second = checked_scores(before, "before"), checked_scores(after, "after")
    if len(first) != len(second):
        raise DataError(
            f"paired scores: {len(first)} before and {len(second)} after",
            tip="score both models on the same samples",
        )
    return first, second, numbered(groups, len(first))


def numbered(groups: npt.ArrayLike | None, samples: int) -> IntArray | None:
    """Groups numbered 0, 1, … per sample, or None where there are fewer than two."""
    if groups is None:
        return None
    array = np.asarray(groups)
    if array.shape != (samples,):
        raise DataError(
            f"groups have shape {array.shape} for {samples} samples", tip="give one number per sample"
        )
    names, index = np.unique(array, return_inverse=True)
    return index.astype(np.int64) if len(names) > 1 else None


def require_range(values: FloatArray, limits: tuple[float, float], what: str) -> None:
    """Refuse scores outside of the stated range: a bound that rests on the range would be wrong.

    Raises:
        DataError: a value outside. OptionError: no range at all.
    """
    low, high = limits
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise OptionError(f"limits {low:g} to {high:g} are no range", tip="give (smallest, largest), finite")
    slack = 1e-9 * (high - low)
    outside = np.flatnonzero((values < low - slack) | (values > high + slack))
    if len(outside):
        raise DataError(
            f"{what}: sample {outside[0]} scores {values[outside[0]]:g}, outside of the range"
            f" {low:g} to {high:g} that the measure states",
            tip="correct the measure's limits",
        )
