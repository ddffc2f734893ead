"""Choose channels by joint mutual information with the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes, require_codes
from edgeprune.information.validate import FloatArray

MAX_PAIR_BINS = 16


@dataclass(frozen=True)
class Selection:
    """order: int64 (chosen,), first chosen first; score_nats: float64 (chosen,), when chosen."""

    order: npt.NDArray[np.int64]
    score_nats: FloatArray


def jmi_selection(
    codes: Codes | Sequence[Codes],
    labels: Any,
    choose: int,
    *,
    classes: int | None = None,
    theta: float = 0.0,
    entropy: Any = None,
    bonus: Any = None,
    candidates: Any = None,
    correction: Literal["none", "miller-madow"] = "miller-madow",
    threads: int = 0,
) -> Selection:
    """Choose channels greedily, each adding most to those chosen before (JMI; Yang & Moody 1999).

    The first choice A = {i} maximises I(T_i; Y) + bonus_i, each further one
    (1 - theta) mean_{j in A} I(T_i, T_j; Y) + theta H(T_i) + bonus_i; ties go to the lowest index.
    For one channel I(T;Y) + theta H(T|Y) = (1 - theta) I(T;Y) + theta H(T); for pairs the two differ,
    and the criterion ib-jmi takes the former: a bonus of theta H(T_i | Y), from the first choice on.

    Args:
        codes: at most 16 codes a channel: quantize(x, bins=7). Several, of the same channels seen
            at different places: information is the mean over them.
        labels: integers, shape (samples,).
        choose: how many, at most the number of candidates.
        theta: signed weight of the entropy.
        entropy: float64, shape (channels,), nats, needed unless theta is 0.
        bonus: float64, shape (channels,), nats; 0 if left out.
        candidates: bool, shape (channels,), who may be chosen; everyone if left out.

    Raises:
        DataError: too many bins, mismatched lengths, labels out of range, values that
            are not finite, fewer candidates than are to be chosen.
    """
    sources = [codes] if isinstance(codes, Codes) else codes
    if not isinstance(sources, Sequence) or not sources:
        raise DataError(f"codes is {validate.describe_value(codes)}, wanted Codes or a list of them")
    first = sources[0]
    table, checked, classes = _pair_input(first, labels, classes, correction)
    for index, other in enumerate(sources):
        if require_codes(other).codes.shape != first.codes.shape or other.bins != first.bins:
            raise DataError(
                f"codes[{index}] has shape {other.codes.shape} and {other.bins} bins, "
                f"codes[0] has {first.codes.shape} and {first.bins}"
            )
    tables = [table, *(np.ascontiguousarray(other.codes.T) for other in sources[1:])]
    channels = table.shape[0]
    free = np.ones(channels, bool) if candidates is None else validate.array_of(candidates, "candidates")
    if free.shape != (channels,) or free.dtype != np.bool_:
        raise DataError(f"candidates has type {free.dtype} and shape {free.shape}, wanted bool ({channels},)")
    choose = validate.integer_in_range(choose, "choose", 0, int(free.sum()))
    theta = validate.finite(theta, "theta")
    if theta != 0 and entropy is None:
        raise DataError(
            f"theta is {theta} and entropy is missing", tip="pass information.entropy of a fixed-width code"
        )
    added = _per_channel(bonus, "bonus", channels)
    order, score = core.jmi_selection(
        tables,
        first.bins,
        checked,
        classes,
        choose,
        1 - theta,
        added,
        theta * _per_channel(entropy, "entropy", channels) + added,
        np.ascontiguousarray(free),
        correction == "miller-madow",
        validate.thread_count(threads),
    )
    return Selection(order, score)


def joint_information(
    codes: Codes,
    labels: Any,
    other: int,
    *,
    classes: int | None = None,
    correction: Literal["none", "miller-madow"] = "miller-madow",
    threads: int = 0,
) -> FloatArray:
    """Estimate I(T_i, T_other; Y) for every channel i: float64, shape (channels,), nats.

    Raises:
        DataError: too many bins, mismatched lengths, labels out of range, no such channel.
    """
    table, checked, classes = _pair_input(codes, labels, classes, correction)
    other = validate.integer_in_range(other, "other", 0, table.shape[0] - 1)
    threads = validate.thread_count(threads)
    out: FloatArray = core.joint_information(
        table, codes.bins, checked, classes, other, correction == "miller-madow", threads
    )
    return out


def _pair_input(
    codes: Codes, labels: Any, classes: int | None, correction: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], int]:
    if require_codes(codes).bins > MAX_PAIR_BINS:
        raise DataError(
            f"codes have {codes.bins} bins, at most {MAX_PAIR_BINS} fit a pair table",
            tip="use quantize(x, bins=7)",
        )
    if correction not in ("none", "miller-madow"):
        raise DataError(f"correction is {correction!r}, wanted none or miller-madow")
    samples, channels = codes.codes.shape
    if samples == 0 or channels == 0:
        raise DataError(f"codes are empty: shape {codes.codes.shape}")
    checked, classes = validate.labels_and_classes(labels, samples, classes)
    return np.ascontiguousarray(codes.codes.T), checked, classes


def _per_channel(value: Any, name: str, channels: int) -> FloatArray:
    array: FloatArray = np.zeros(channels) if value is None else validate.real_numbers(value, name)
    if array.shape != (channels,) or not np.isfinite(array).all():
        raise DataError(f"{name} has shape {array.shape}, wanted finite ({channels},)")
    return array
