"""Information and entropy from joint counts, in nats.

Plug-in estimates less the bias term that the caller chooses. Nothing is
clipped: under independence an unbiased estimate is negative half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core
from edgeprune.information.codes import Codes, edges_of
from edgeprune.information.counts import count_table
from edgeprune.information.validate import FloatArray

Correction = Literal["none", "miller-madow", "full", "shuffle"]
# Half of what find_edges takes by itself: a tenth of the time saved for some 3e-5 nats.
FAST_SKETCH = 2048
CORRECTIONS = ("none", "miller-madow", "full", "shuffle")


@dataclass(frozen=True)
class TableStatistics:
    """Plug-in values and occupancy of each channel's table; every field float64, shape (channels,)."""

    samples: FloatArray
    information: FloatArray
    entropy: FloatArray
    class_entropy: FloatArray
    bins: FloatArray
    classes: FloatArray
    cells: FloatArray
    smallest_expected: FloatArray


def table_statistics(counts: Any, *, threads: int = 0) -> TableStatistics:
    """Reduce counts of shape (channels, bins, classes) to plug-in values and occupancy.

    Raises:
        DataError: counts of the wrong type or shape.
    """
    return statistics_of(validate.joint_table(counts), threads)


def statistics_of(table: npt.NDArray[np.uint32], threads: int, unit: int = 1) -> TableStatistics:
    """Do the same for a table (channels, classes, bins) whose type and shape are validated.

    Raises:
        DataError: no number of threads, more counts than can have been counted, or no multiple of `unit`.
    """
    stats = _named(core.table_statistics(table, validate.thread_count(threads)))
    over = stats.samples > validate.MAX_SAMPLES
    if over.any():
        at = int(np.argmax(over))
        raise DataError(
            f"counts of channel {at} add up to {int(stats.samples[at])}, at most {validate.MAX_SAMPLES}",
            tip="arrays of counts wrap when they are added; merge accumulators instead",
        )
    uneven = stats.samples % unit != 0
    if uneven.any():
        at = int(np.argmax(uneven))
        raise DataError(
            f"counts of channel {at} add up to {int(stats.samples[at])}, no multiple of unit={unit}",
            tip="pass the resolution that the counts were made with",
        )
    return stats


def _named(rows: FloatArray) -> TableStatistics:
    return TableStatistics(*(np.ascontiguousarray(column) for column in rows.T))


def mutual_information(
    counts_or_codes: Any,
    labels: Any = None,
    *,
    classes: int | None = None,
    correction: Correction = "miller-madow",
    unit: int = 1,
    threads: int = 0,
) -> FloatArray:
    """Estimate I(T_c; Y) for every channel c, in nats, not clipped.

    Corrections, each subtracted from the plug-in estimate over N samples:

    - ``none``: nothing; too high by about (R-1)(K-1)/2N.
    - ``miller-madow``: (cells - R - K + 1)/2N with the occupied cells, rows R and
      columns K (Miller 1955).
    - ``full``: (R-1)(K-1)/2N over the occupied rows and columns (Panzeri & Treves 1996).
    - ``shuffle``: the mean plug-in information under shuffled labels, exactly,
      by summing the hypergeometric distribution of each cell (Vinh, Epps &
      Bailey 2010). The one to use with many classes.

    Args:
        counts_or_codes: uint32 counts, shape (channels, bins, classes), or Codes.
        labels: with Codes: integers, shape (samples,).
        classes: with Codes: number of classes; the largest label plus one if left out.
        unit: counts per sample; more than one for soft labels (soft_joint_counts), which have no
            `shuffle` and whose bias the other corrections exceed: they take a label for certain.
            `SoftCounts.information` knows better.

    Returns:
        float64, shape (channels,).

    Raises:
        DataError: unequal lengths, labels or counts of the wrong type, fewer than two samples.
    """
    _check_correction(correction)
    unit, threads = (
        validate.integer_in_range(unit, "unit", 1, validate.MAX_SAMPLES),
        validate.thread_count(threads),
    )
    if unit > 1 and correction == "shuffle":
        raise DataError(
            f"unit is {unit} with correction {correction}", tip="soft labels cannot be shuffled by counts"
        )
    table = _table(counts_or_codes, labels, classes, threads)
    stats = _enough(statistics_of(table, threads, unit), unit)
    if correction == "shuffle":
        expected: FloatArray = core.shuffled_information(table, threads)
        return stats.information - expected
    return _corrected(stats, correction, unit)


def _corrected(stats: TableStatistics, correction: Correction, unit: int = 1) -> FloatArray:
    """Subtract a bias term that the occupancy alone decides."""
    samples = stats.samples / unit
    if correction == "miller-madow":
        return stats.information - (stats.cells - stats.bins - stats.classes + 1) / (2 * samples)
    if correction == "full":
        return stats.information - (stats.bins - 1) * (stats.classes - 1) / (2 * samples)
    return stats.information


def _check_correction(correction: str) -> None:
    if correction not in CORRECTIONS:
        raise DataError(f"correction is {correction!r}, wanted one of {', '.join(CORRECTIONS)}")


def entropy(
    counts_or_codes: Any,
    *,
    correction: Literal["none", "miller-madow"] = "miller-madow",
    unit: int = 1,
    threads: int = 0,
) -> FloatArray:
    """Estimate H(T_c) for every channel, in nats: plug-in, plus (R-1)/2N for Miller-Madow.

    Args:
        counts_or_codes: uint32 counts, shape (channels, bins, classes), or Codes.
        unit: counts per sample; as many as a soft label's resolution, and then as right as with one.

    Raises:
        DataError: counts of the wrong type, fewer than two samples, an unknown correction.
    """
    if correction not in ("none", "miller-madow"):
        raise DataError(f"correction is {correction!r}, wanted none or miller-madow")
    unit = validate.integer_in_range(unit, "unit", 1, validate.MAX_SAMPLES)
    table = _table(counts_or_codes, None, 1, threads)
    stats = _enough(statistics_of(table, threads, unit), unit)
    if correction == "none":
        return stats.entropy
    return stats.entropy + (stats.bins - 1) * unit / (2 * stats.samples)


def conditional_entropy(
    counts_or_codes: Any,
    labels: Any = None,
    *,
    classes: int | None = None,
    correction: Literal["none", "miller-madow"] = "miller-madow",
    unit: int = 1,
    threads: int = 0,
) -> FloatArray:
    """Estimate H(T_c | Y) = H(T_c, Y) - H(Y), in nats; Miller-Madow adds (cells - K)/2N.

    Both terms of the bottleneck score, I and H(T|Y), must come from one code:
    H(T) of one code less I of another can be negative.

    Args:
        counts_or_codes, labels, classes: as for `mutual_information`.
        unit: counts per sample. Soft labels (more than one) scatter less than Miller-Madow assumes:
            the truth lies between the two corrections.

    Raises:
        DataError: unequal lengths, labels or counts of the wrong type, fewer than two samples.
    """
    if correction not in ("none", "miller-madow"):
        raise DataError(f"correction is {correction!r}, wanted none or miller-madow")
    unit = validate.integer_in_range(unit, "unit", 1, validate.MAX_SAMPLES)
    table = _table(counts_or_codes, labels, classes, threads)
    stats = _enough(statistics_of(table, threads, unit), unit)
    conditional = stats.entropy - stats.information
    if correction == "none":
        return conditional
    return conditional + (stats.cells - stats.classes) * unit / (2 * stats.samples)


def _table(source: Any, labels: Any, classes: int | None, threads: int) -> npt.NDArray[np.uint32]:
    if not isinstance(source, Codes):
        if labels is not None:
            raise DataError(
                "labels came with counts, which hold them already", tip="pass Codes, or leave labels out"
            )
        return validate.joint_table(source)
    if labels is None:
        if classes != 1:
            raise DataError("labels are missing", tip="pass labels, or counts made with joint_counts")
        labels = np.zeros(source.codes.shape[0], np.int64)
    checked, classes = validate.labels_and_classes(labels, source.codes.shape[0], classes)
    return count_table(source, checked, classes, threads)


def _enough(stats: TableStatistics, unit: int = 1) -> TableStatistics:
    few = stats.samples < 2 * unit
    if few.any():
        at = int(np.argmax(few))
        raise DataError(f"channel {at} has {int(stats.samples[at]) // unit} samples, wanted at least two")
    return stats


def label_information(
    x: Any,
    labels: Any,
    *,
    bins: int = 64,
    classes: int | None = None,
    correction: Correction = "miller-madow",
    sketch: int = FAST_SKETCH,
    threads: int = 0,
) -> FloatArray:
    """Estimate I(x_c; Y) from activations in one call: find edges, count, reduce.

    Codes are counted as they arise and never stored, nor are counts: samples are visited
    class by class and each class is reduced at once, so memory does not grow with the number
    of classes, and time hardly. x is read once, and once more at the sketched samples. The
    same bits as by way of `joint_counts`. x must not be written to meanwhile.

    Args:
        x: floats, shape (samples, channels), any strides.
        labels: integers, shape (samples,).
        bins, sketch: as for `find_edges`.

    Returns:
        float64, shape (channels,), nats.

    Raises:
        DataError: wrong type or shape, unequal lengths, fewer than two samples, NaN or infinity.
    """
    _check_correction(correction)
    threads = validate.thread_count(threads)
    x, dtype = validate.activations(x)
    checked, classes = validate.labels_and_classes(labels, x.shape[0], classes)
    edges = edges_of(x, dtype, bins, sketch, threads)
    shuffle = correction == "shuffle"
    statistics = core.label_statistics(x, dtype, edges.thresholds, checked, classes, shuffle, threads)
    if statistics is None:
        validate.refuse_non_finite(x, dtype)
    rows, shuffled = statistics
    stats = _enough(_named(rows))
    return stats.information - shuffled if shuffle else _corrected(stats, correction)
