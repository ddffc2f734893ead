"""Choose channels by joint mutual information with the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes
from edgeprune.information.validate import FloatArray

MAX_PAIR_BINS = 16


@dataclass(frozen=True)
class Selection:
    """order: int64 (chosen,), first chosen first; score_nats: float64 (chosen,), when chosen."""

    order: npt.NDArray[np.int64]
    score_nats: FloatArray


def jmi_selection(
    codes: Codes,
    labels: Any,
    choose: int,
    *,
    classes: int | None = None,
    theta: float = 0.0,
    entropy: Any = None,
    correction: Literal["none", "miller-madow"] = "miller-madow",
    threads: int = 0,
) -> Selection:
    """Choose channels greedily, each adding most to those chosen before (JMI; Yang & Moody 1999).

    The first choice A = {i} maximises I(T_i; Y), each further one
    (1 - theta) mean_{j in A} I(T_i, T_j; Y) + theta H(T_i); ties go to the lowest index.

    Args:
        codes: at most 16 codes a channel: quantize(x, bins=7).
        labels: integers, shape (samples,).
        choose: how many, at most the number of channels.
        theta: signed weight of the entropy.
        entropy: float64, shape (channels,), needed unless theta is 0.

    Raises:
        DataError: too many bins, mismatched lengths, labels out of range.
    """
    table, checked, classes = _pair_input(codes, labels, classes, correction)
    channels = table.shape[0]
    if isinstance(choose, bool) or not isinstance(choose, int | np.integer) or not 0 <= choose <= channels:
        raise DataError(f"choose is {choose!r}, wanted 0..{channels}")
    if theta != 0 and entropy is None:
        raise DataError(
            f"theta is {theta} and entropy is missing", tip="pass information.entropy of a fixed-width code"
        )
    h = np.zeros(channels) if entropy is None else np.ascontiguousarray(entropy, dtype=np.float64)
    if h.shape != (channels,) or not np.isfinite(h).all() or not np.isfinite(theta):
        raise DataError(f"entropy has shape {h.shape}, wanted finite ({channels},), and theta is {theta}")
    order, score = core.jmi_selection(
        table,
        codes.bins,
        checked,
        classes,
        int(choose),
        float(theta),
        h,
        correction == "miller-madow",
        threads,
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
    """Estimate I(T_i, T_other; Y) for every channel i: float64, shape (channels,)."""
    table, checked, classes = _pair_input(codes, labels, classes, correction)
    if not 0 <= other < table.shape[0]:
        raise DataError(f"other is {other}, wanted 0..{table.shape[0] - 1}")
    out: FloatArray = core.joint_information(
        table, codes.bins, checked, classes, int(other), correction == "miller-madow", threads
    )
    return out


def _pair_input(
    codes: Codes, labels: Any, classes: int | None, correction: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], int]:
    if not isinstance(codes, Codes):
        raise DataError(
            f"codes is a {type(codes).__name__}, not Codes", tip="make them with quantize(x, bins=7)"
        )
    if codes.bins > MAX_PAIR_BINS:
        raise DataError(
            f"codes have {codes.bins} bins, at most {MAX_PAIR_BINS} fit a pair table",
            tip="use quantize(x, bins=7)",
        )
    if correction not in ("none", "miller-madow"):
        raise DataError(f"correction is {correction!r}, wanted none or miller-madow")
    samples, channels = codes.codes.shape
    if samples == 0 or channels == 0:
        raise DataError(f"codes are empty: shape {codes.codes.shape}")
    classes = validate.classes_of(labels) if classes is None else classes
    checked = validate.class_labels(labels, samples, classes)
    return np.ascontiguousarray(codes.codes.T), checked, int(classes)
