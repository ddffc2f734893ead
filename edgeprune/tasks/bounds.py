"""How much was lost, with bounds that hold: paired losses, shares, errors and set measures.

    paired_drop     points lost of a mean score, two models on the same samples
    relative_rise   percent by which a mean error (or its root) rose
    set_drop        loss of a measure of a whole set, as mAP: from a function of sample indices
    share_interval  the mean of one model's scores

Which method a call uses follows from what is stated, not from the result:

    scores                        units    method                               proven
    0 or 1                        samples  exact (bounds_exact)                 yes
    in a stated range             samples  betting (bounds_betting)             yes
    any, `over_groups="betting"`  groups   betting on the groups' means         yes
    0 or 1, or any                groups   Student's t over groups, never       no
                                           narrower than by samples
    no range stated               samples  Student's t                          no
    of a set                      either   jack-knife with Student's t          no

Guarantee: `proven` bounds cover at their level for every number of units. The others say "approximate"
    in `method`. A bound never has width 0: agreement on n samples is no proof of agreement on all.
Elsewhere: several networks judged on the same samples (bounds_sequence); what a score means (tasks).
Evidence: `make bench-bounds`, docs/bounds.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError, OptionError
from edgeprune.tasks.bounds_approximate import (
    GROUP_ERROR,
    jackknife,
    jackknife_half_width,
    jackknife_units,
    mean_half_width,
    unseen,
)
from edgeprune.tasks.bounds_betting import mean_upper, ratio_upper
from edgeprune.tasks.bounds_exact import paired_upper, share_bounds
from edgeprune.tasks.bounds_record import (
    Bound,
    checked_pair,
    checked_scores,
    error_of,
    numbered,
    require_range,
)

__all__ = ["Bound", "SampleScores", "paired_drop", "relative_rise", "set_drop", "share_interval"]

SampleScores = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]
Limits = tuple[float, float]
OverGroups = Literal["student", "betting"]

EXACT = "exact, from the samples on which the models differ"
BETTING = "betting on bounded differences"
STUDENT = "approximate: Student's t"
FEW_GROUPS = "approximate: Student's t over groups"
JACKKNIFE = "approximate: jack-knife with Student's t"


def paired_drop(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    level: float = 0.95,
    groups: npt.ArrayLike | None = None,
    limits: Limits | None = None,
    over_groups: OverGroups = "student",
) -> Bound:
    """Loss of the mean score from `before` to `after` on the same samples, in points of 100.

    A one-sided 90% bound is `high` at level 0.8.

    Args:
        before, after: (samples,) larger is better.
        groups: (samples,) what belongs together (the windows of one person) has one number. With two
            groups or more these count as the independent units. "student" assumes that the means of
            groups scatter about normally; "betting" assumes nothing and needs hundreds of groups to
            bound a loss by a point.
        limits: the range of a score, which must be known beforehand. Without it scores that are all 0 or
            1 count as 0/1 scores, others as unbounded.

    Raises:
        DataError: unequal lengths, fewer than two samples, values not finite or outside of `limits`.
    """
    error = error_of(level)
    first, second, group = checked_pair(before, after, groups)
    difference = first - second
    n, value = len(difference), float(difference.mean())
    binary = limits is None and bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    if limits is not None:
        require_range(first, limits, "before")
        require_range(second, limits, "after")
    width = 1.0 if binary else None if limits is None else float(limits[1] - limits[0])
    method, proven, units = "", True, n
    if over_groups == "betting" and group is not None:
        if width is None:
            raise OptionError("bounds by betting need the range of a score", tip="give limits")
        sizes = np.bincount(group).astype(np.float64)
        means = np.bincount(group, difference) / sizes
        low, high = -mean_upper(-means, width, error, sizes), mean_upper(means, width, error, sizes)
        method, units = f"{BETTING} of groups", len(sizes)
        return _points(value, low, high, level, method, True, n, units)
    if binary:
        lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
        low, high, method = -paired_upper(n, gained, lost, error), paired_upper(n, lost, gained, error), EXACT
    elif width is not None:
        low, high, method = (
            -mean_upper(-difference, width, error),
            mean_upper(difference, width, error),
            BETTING,
        )
    else:
        span = float(np.abs(difference).max()) or float(np.ptp(first))
        half = max(mean_half_width(difference, None, error), span * unseen(n, error))
        low, high, method, proven = value - half, value + half, STUDENT, False
    if group is not None:
        half = mean_half_width(difference, group, error)
        low, high = min(low, value - half), max(high, value + half)
        method, proven, units = (
            f"{FEW_GROUPS}, never narrower than by samples ({method})",
            False,
            group.max() + 1,
        )
        if width is not None:
            low, high = max(low, -width), min(high, width)
    return _points(value, low, high, level, method, proven, n, int(units))


def share_interval(scores: npt.ArrayLike, *, level: float = 0.95, limits: Limits | None = None) -> Bound:
    """Mean of per-sample scores with its interval; exact for 0/1 scores (Clopper and Pearson 1934).

    Args:
        scores: (samples,). limits: as for `paired_drop`.
    """
    error = error_of(level)
    values = checked_scores(scores, "scores")
    n, value = len(values), float(values.mean())
    if limits is not None:
        require_range(values, limits, "scores")
        low, high = -mean_upper(-values, -limits[0], error), mean_upper(values, limits[1], error)
        return _bound(value, low, high, level, "betting on bounded scores", True, n, n)
    if np.isin(values, (0, 1)).all():
        low, high = share_bounds(n, int(values.sum()), error)
        return _bound(value, low, high, level, "exact", True, n, n)
    half = max(mean_half_width(values, None, error), float(np.ptp(values)) * unseen(n, error))
    return _bound(value, value - half, value + half, level, STUDENT, False, n, n)


def relative_rise(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    level: float = 0.95,
    groups: npt.ArrayLike | None = None,
    limits: Limits | None = None,
    root: bool = False,
) -> Bound:
    """Rise of a mean error from `before` to `after` on the same samples, in percent of the dense value.

    Args:
        before, after: (samples,) errors of at least 0, smaller is better: absolute or squared errors.
        limits: (0, largest error), known beforehand: the bound is then proven (by samples).
        root: the measure is the root of the mean (RMSE from squared errors).

    Raises:
        DataError: as `paired_drop`; errors below 0; a dense error of 0, of which nothing is a percentage.
    """
    error = error_of(level)
    first, second, group = checked_pair(before, after, groups)
    least = min(float(first.min()), float(second.min()))
    if least < 0:
        raise DataError(f"relative loss: an error of {least:g}", tip="errors are 0 or more")
    if first.mean() == 0:
        raise DataError(
            "relative loss: the dense model's error is 0 on these samples, nothing is a percentage of it",
            tip="measure by a score with points, or by another error",
        )
    n, value = len(first), float(second.mean() / first.mean())
    method, proven, units = STUDENT, False, n
    if limits is not None and group is None:
        require_range(first, (0.0, limits[1]), "before")
        require_range(second, (0.0, limits[1]), "after")
        high = ratio_upper(second, first, limits[1], error)
        low = 1 / ratio_upper(first, second, limits[1], error) if second.mean() > 0 else 0.0
        method, proven = BETTING, True
    else:
        low, high = _log_ratio(first, second, None, error)
        if group is not None:
            wide = _log_ratio(first, second, group, error)
            low, high = min(low, wide[0]), max(high, wide[1])
            method, units = f"{FEW_GROUPS}, never narrower than by samples", int(group.max()) + 1
    low, value, high = (math.sqrt(x) if root else x for x in (low, value, high))
    return _points(value - 1, low - 1, high - 1, level, method, proven, n, units)


def set_drop(
    measure: Callable[[Groups], float],
    samples: int,
    *,
    level: float = 0.95,
    groups: npt.ArrayLike | None = None,
    span: float | None = 100.0,
) -> Bound:
    """Loss of a measure of a whole set, in the unit of `measure`.

    Args:
        measure: the loss on the samples with these indices, as points of mAP lost or percent of rank
            correlation; called once for all samples and once per unit left out (at most 40 without
            groups), so per-sample parts should be cached.
        span: the largest loss there can be; None where there is no largest.

    Raises:
        DataError: fewer than two samples, or a measure that is not finite.
    """
    error = error_of(level)
    if samples < 2:
        raise DataError(
            f"a bound needs two samples or more, there are {samples}", tip="give a larger validation part"
        )
    group = numbered(groups, samples)
    value = float(measure(np.arange(samples)))
    parts = jackknife_units(samples, group)
    left_out = jackknife(measure, samples, parts)
    if not (math.isfinite(value) and np.isfinite(left_out).all()):
        raise DataError(
            "a measure of the whole set is not finite, or not once some samples are left out",
            tip="give more samples; each class must be met more than once",
        )
    sizes = np.array([len(p) for p in parts], dtype=np.float64)
    half = jackknife_half_width(left_out, sizes, error if group is None else GROUP_ERROR * error)
    if group is not None:
        plain = jackknife_units(samples, None)
        sizes = np.array([len(p) for p in plain], dtype=np.float64)
        half = max(half, jackknife_half_width(jackknife(measure, samples, plain), sizes, error))
    units = samples if group is None else len(parts)
    if span is not None:
        half = max(half, span * unseen(samples, error))
    low, high = value - half, value + half
    if span is not None:
        low, high = max(low, -span), min(high, span)
    method = JACKKNIFE if group is None else f"{JACKKNIFE} over groups"
    return _bound(value, low, high, level, method, False, samples, units)


def _log_ratio(
    before: SampleScores, after: SampleScores, groups: Groups | None, error: float
) -> tuple[float, float]:
    """Ends of mean(after) / mean(before), by a jack-knife of its logarithm."""
    n = len(before)
    unit = np.arange(n) if groups is None else groups
    sizes = np.bincount(unit).astype(np.float64)
    a, b = (x.sum() - np.bincount(unit, x) for x in (after, before))
    base = float(before.mean())
    largest = float(np.abs(after - before).max()) or float(before.max())
    floor = largest / base * unseen(n, error)
    ratio = float(after.mean()) / base
    if ratio == 0:
        return 0.0, floor
    if not ((a > 0).all() and (b > 0).all()):  # one unit holds all of the error
        raise DataError(
            "relative loss: all of the error is in one sample or group, which bounds nothing",
            tip="give more data, or measure by a score with points",
        )
    half = jackknife_half_width(
        np.log(a) - np.log(b), sizes, error if groups is None else GROUP_ERROR * error
    )
    return max(min(ratio * math.exp(-half), ratio - floor), 0.0), max(ratio * math.exp(half), ratio + floor)


def _points(
    value: float, low: float, high: float, level: float, method: str, proven: bool, n: int, units: int
) -> Bound:
    return _bound(100 * value, 100 * low, 100 * high, level, method, proven, n, units)


def _bound(
    value: float, low: float, high: float, level: float, method: str, proven: bool, n: int, units: int
) -> Bound:
    """`low` and `high` never exclude the estimate."""
    low, high = min(low, value), max(high, value)
    return Bound(value, low, high, level, (1 + level) / 2, method, proven, n, units)
