"""Soft labels: class probabilities instead of classes.

Each sample hands out a fixed number of units, `resolution`, in proportion to its class
probabilities, by largest remainder, so counts stay integers and merge exactly.

What counts alone cannot tell is how much a sample's label scatters: a certain label is a whole draw, a
vague one hardly any. It decides bias and significance alike, and is one (classes, classes) matrix
for all channels: with w the units of a sample over `resolution` and p their mean,

    V = diag(p)^-1/2 cov(w) diag(p)^-1/2,

under independence 2N I is distributed as the sum of the eigenvalues of V times chi-square of R - 1
degrees (Rao & Scott 1981). For certain labels all K - 1 of them are 1. SoftCounts keeps that matrix.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from edgeprune.errors import DataError
from edgeprune.information import files, validate
from edgeprune.information._native import core
from edgeprune.information.accumulators import first_difference
from edgeprune.information.codes import Codes, Edges, encode, require_codes, require_edges
from edgeprune.information.counts_state import STATE, CountsState
from edgeprune.information.estimators import statistics_of
from edgeprune.information.validate import FloatArray

MAX_CLASSES = 4096  # their scatter is a matrix of 128 MB
MAX_RESOLUTION = 2**16


def soft_joint_counts(
    codes: Codes, probabilities: Any, *, resolution: int = 256, threads: int = 0
) -> npt.NDArray[np.uint32]:
    """Count codes against class probabilities, in units of 1/resolution of a sample.

    Args:
        codes: of shape (samples, channels).
        probabilities: floats, shape (samples, classes), each row not negative and of sum one (to 1e-3).
        resolution: units per sample; samples * resolution is at most 2^32 - 1.

    Returns:
        uint32, shape (channels, bins, classes); pass it on with unit=resolution. To add several, use
        SoftCounts: arrays of uint32 wrap.

    Raises:
        DataError: no Codes, mismatched lengths, a row that is no distribution, too many units.
    """
    threads = validate.thread_count(threads)
    samples, channels = require_codes(codes).codes.shape
    weights = _shares(probabilities, samples, resolution)
    counts = validate.zero_counts(channels, weights.shape[1], codes.bins)
    core.add_soft_counts(codes.codes, codes.bins, weights, counts, threads)
    return counts.transpose(0, 2, 1)


class SoftCounts(CountsState):
    """Counts of codes against class probabilities on frozen edges, batch by batch.

    State and guarantee as `JointCounts`: integers, the same bits for any split, order or number of ranks.
    `counts` are in units of 1/resolution.

    Raises:
        DataError: no Edges, more than 4,096 classes, a resolution outside 1..65536.
    """

    def __init__(self, edges: Edges, classes: int, resolution: int = 256) -> None:
        classes = validate.integer_in_range(classes, "classes", 1, MAX_CLASSES)
        self.resolution = validate.integer_in_range(resolution, "resolution", 1, MAX_RESOLUTION)
        super().__init__(require_edges(edges).channels, classes, edges.bins, self.resolution)
        self.edges = edges
        self._pairs = np.zeros((classes, classes), np.int64)  # sums of products of a sample's units

    def update(self, x: Any, probabilities: Any, *, threads: int = 0) -> SoftCounts:
        """Count a batch: x floats (samples, channels), probabilities floats (samples, classes).

        Raises:
            DataError: wrong type or shape, a row that is no distribution, NaN or infinity, or more than
                2^32 - 1 units in all; the counts are then as they were.
        """
        codes = encode(x, self.edges, threads=threads)
        weights = _shares(probabilities, len(codes.codes), self.resolution)
        if weights.shape[1] != self.classes:
            raise DataError(
                f"probabilities have {weights.shape[1]} classes, the accumulator has {self.classes}"
            )
        pairs = _products(weights, self.resolution)
        with self._lock:
            self._room_for(len(weights))
            core.add_soft_counts(codes.codes, codes.bins, weights, self._table, threads)
            self._pairs += pairs
            self.samples += len(weights)
        return self

    def merge(self, other: SoftCounts) -> SoftCounts:
        """Add the counts of another accumulator with the same edges, classes and resolution.

        Raises:
            DataError: it has others, or both together more than 2^32 - 1 units.
        """
        if not isinstance(other, SoftCounts):
            raise DataError(f"other is a {type(other).__name__}, wanted SoftCounts")
        if (other.classes, other.resolution) != (self.classes, self.resolution):
            raise DataError(
                f"other has {other.classes} classes and resolution {other.resolution}, "
                f"this one has {self.classes} and {self.resolution}"
            )
        if other.edges != self.edges:
            raise DataError(
                first_difference(self.edges, other.edges), tip="freeze the edges once and share them"
            )
        with other._lock:
            table, pairs, samples = other._table.copy(), other._pairs.copy(), other.samples
        with self._lock:
            self._room_for(samples)
            self._table += table
            self._pairs += pairs
            self.samples += samples
        return self

    def information(self, *, correction: Literal["none", "full"] = "full", threads: int = 0) -> FloatArray:
        """Estimate I(T_c; Y): float64, shape (channels,), nats, not clipped.

        full subtracts (R-1) tr(V) / 2N, the mean under independence; for certain labels that is the
        full-degrees correction.

        Raises:
            DataError: an unknown correction, or fewer than two samples.
        """
        if correction not in ("none", "full"):
            raise DataError(f"correction is {correction!r}, wanted none or full")
        plug_in, rows, mean, _, samples = self._reduced(threads)
        return plug_in if correction == "none" else plug_in - (rows - 1) * mean / (2 * samples)

    def p_values(self, *, threads: int = 0) -> FloatArray:
        """Give the chance of at least this much plug-in information under independence.

        float64, shape (channels,). The sum of chi-squares is matched in mean and variance by one (Rao &
        Scott's second-order correction); valid while every expected cell holds 5 samples.

        Raises:
            DataError: fewer than two samples.
        """
        plug_in, rows, mean, squares, samples = self._reduced(threads)
        out = np.ones(len(rows))
        varies = rows > 1
        if mean > 0:
            scale = squares / mean
            statistic = 2 * samples * np.maximum(plug_in[varies], 0) / scale
            out[varies] = chdtrc((rows[varies] - 1) * mean / scale, statistic)
        return out

    def _reduced(self, threads: int) -> tuple[FloatArray, FloatArray, float, float, int]:
        """Plug-in information, occupied rows, tr V, tr V^2, and samples."""
        with self._lock:
            stats = statistics_of(self._table, threads, self.resolution)
            pairs, samples = self._pairs.astype(np.float64), self.samples
        if samples < 2:
            raise DataError(f"{samples} samples were added, wanted at least two")
        second = pairs / (samples * self.resolution**2)  # mean of w w^T; its rows sum to p
        p = second.sum(axis=1)
        used = p > 0
        scatter = (second - np.outer(p, p))[np.ix_(used, used)] / np.sqrt(np.outer(p[used], p[used]))
        scatter[np.abs(scatter) < 1e-14] = 0  # a label that never varies
        return stats.information, stats.bins, float(np.trace(scatter)), float((scatter**2).sum()), samples

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write edges and counts to one npz file; the same state gives the same bytes.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._lock:
            arrays: files.Arrays = {
                "thresholds": self.edges.thresholds,
                "table": self._table,
                "samples": np.array(self.samples, np.uint64),
                "pairs": self._pairs,
                "resolution": np.array(self.resolution, np.int64),
            }
            files.write(path, "soft-counts", arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SoftCounts:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged, inconsistent, or of another kind.
        """
        wanted = {"thresholds": (np.float32, 2), "pairs": (np.int64, 2), "resolution": (np.int64, 0), **STATE}
        arrays = files.expect(files.read(path, "soft-counts"), wanted, path)
        out = cls(Edges(arrays["thresholds"]), int(arrays["table"].shape[1]), int(arrays["resolution"]))
        out._restore(arrays, path)
        pairs = arrays["pairs"]
        per_class = arrays["table"][:1].sum(axis=(0, 2), dtype=np.int64) * out.resolution
        good = pairs.shape == out._pairs.shape and (pairs >= 0).all() and np.array_equal(pairs, pairs.T)
        if not good or (len(arrays["table"]) and (pairs.sum(axis=1) != per_class).any()):
            raise DataError(f"{os.fspath(path)}: pairs are not those of its counts")
        out._pairs = np.ascontiguousarray(pairs)
        return out


def _shares(probabilities: Any, samples: int, resolution: int) -> npt.NDArray[np.uint32]:
    """Units of each sample over the classes, uint32, each row of sum `resolution`."""
    p = validate.real_numbers(probabilities, "probabilities")
    if p.ndim != 2 or p.shape[0] != samples or p.shape[1] == 0:
        raise DataError(f"probabilities have shape {p.shape}, wanted ({samples}, classes)")
    wrong = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | ~(np.abs(p.sum(axis=1) - 1) <= 1e-3)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"probabilities[{at}] is no distribution: least {p[at].min():g}, sum {p[at].sum():g}")
    resolution = validate.integer_in_range(resolution, "resolution", 1)
    if samples * resolution > validate.MAX_SAMPLES:
        raise DataError(f"resolution is {resolution}: {samples} samples would need more than 2^32 - 1 units")
    share = p * (resolution / p.sum(axis=1, keepdims=True))
    units = np.floor(share)
    missing = (resolution - units.sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(units - share, axis=1, kind="stable"), axis=1, kind="stable")
    return np.ascontiguousarray(units + (rank < missing[:, None]), dtype=np.uint32)


def _products(weights: npt.NDArray[np.uint32], resolution: int) -> npt.NDArray[np.int64]:
    """Sum of w w^T over samples, in integers: each part's sums stay below 2^53, where doubles are exact."""
    out = np.zeros((weights.shape[1], weights.shape[1]), np.int64)
    most = min(2**53 // resolution**2, 2**16)
    for first in range(0, len(weights), most):
        part = weights[first : first + most].astype(np.float64)
        out += (part.T @ part).astype(np.int64)
    return out
