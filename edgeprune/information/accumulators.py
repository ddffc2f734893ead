"""Statistics that grow batch by batch and merge exactly.

    edges = find_edges(sketch)                 # once, on a fixed set of samples
    counts = JointCounts(edges, classes=10)    # on every rank
    for x, labels in batches: counts.update(x, labels)
    total = counts.merge(other)                # any order, any split: the same bits

Guarantee: the state is integer counts on frozen edges, so it is bit-identical
for any order and split of the samples and any number of ranks and threads; its
memory does not depend on the number of samples; an update that fails changes
nothing; any thread may call any method at any time. No channel counts more than
2^32 - 1 samples: one more is an error. An empty batch changes nothing.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import files, validate
from edgeprune.information._native import core
from edgeprune.information.codes import Edges, require_edges
from edgeprune.information.counts_state import STATE, CountsState
from edgeprune.information.edge import fine_cells, scores_from_tables
from edgeprune.information.validate import FloatArray


class JointCounts(CountsState):
    """Joint counts of codes and labels on frozen edges.

    Raises:
        DataError: no Edges, or no number of classes.
    """

    def __init__(self, edges: Edges, classes: int) -> None:
        classes = validate.integer_in_range(classes, "classes", 1, validate.MAX_CLASSES)
        super().__init__(require_edges(edges).channels, classes, edges.bins)
        self.edges = edges

    def update(self, x: Any, labels: Any, *, threads: int = 0) -> JointCounts:
        """Count a batch: x floats (samples, channels) of any strides, labels integers (samples,).

        Raises:
            DataError: wrong type or shape, a label out of range, NaN or infinity, or more than
                2^32 - 1 samples in all; the counts are then as they were.
        """
        threads = validate.thread_count(threads)
        x, dtype, checked = _batch(x, labels, self._table.shape[0], self.classes)
        with self._lock:
            self._room_for(len(checked))
            good = core.add_counts(
                x, dtype, self.edges.thresholds, checked, self.classes, self._table, threads
            )
            if good:
                self.samples += len(checked)
        if not good:
            validate.refuse_non_finite(x, dtype)
        return self

    def merge(self, other: JointCounts) -> JointCounts:
        """Add the counts of another accumulator with the same edges and classes.

        Raises:
            DataError: it has others, or both together more than 2^32 - 1 samples.
        """
        if not isinstance(other, JointCounts):
            raise DataError(f"other is a {type(other).__name__}, wanted JointCounts")
        if other.classes != self.classes:
            raise DataError(f"other has {other.classes} classes, this one has {self.classes}")
        if other.edges != self.edges:
            raise DataError(
                first_difference(self.edges, other.edges), tip="freeze the edges once and share them"
            )
        self._add(*other._snapshot())
        return self

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
            }
            files.write(path, "joint-counts", arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JointCounts:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged, inconsistent, or of another kind.
        """
        wanted = {"thresholds": (np.float32, 2), **STATE}
        arrays = files.expect(files.read(path, "joint-counts"), wanted, path)
        out = cls(Edges(arrays["thresholds"]), int(arrays["table"].shape[1]))
        out._restore(arrays, path)
        return out


class EdgeCounts(CountsState):
    """Fine counts of inputs against labels, from which any connection's information is a re-binning.

    ranges: float32, shape (channels,), the largest magnitude of each input, frozen beforehand (for
    instance from a sketch); larger values count in the outermost cells.

    Raises:
        DataError: no magnitudes, or no number of classes.
    """

    def __init__(self, ranges: Any, classes: int) -> None:
        ranges = validate.real_numbers(ranges, "ranges", np.float32).copy()
        classes = validate.integer_in_range(classes, "classes", 1, validate.MAX_CLASSES)
        if ranges.ndim != 1:
            raise DataError(f"ranges have shape {ranges.shape}, wanted (channels,)")
        wrong = ~(np.isfinite(ranges) & (ranges >= 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise DataError(f"ranges[{at}] is {ranges[at]}, wanted a finite magnitude")
        super().__init__(len(ranges), classes, fine_cells(classes))
        ranges.flags.writeable = False
        self.ranges = ranges

    def update(self, x: Any, labels: Any, *, threads: int = 0) -> EdgeCounts:
        """Count a batch; as `JointCounts.update`.

        Raises:
            DataError: as there.
        """
        threads = validate.thread_count(threads)
        x, dtype, checked = _batch(x, labels, self._table.shape[0], self.classes)
        with self._lock:
            self._room_for(len(checked))
            good = core.add_fine_counts(x, dtype, self.ranges, checked, self.classes, self._table, threads)
            if good:
                self.samples += len(checked)
        if not good:
            validate.refuse_non_finite(x, dtype)
        return self

    def merge(self, other: EdgeCounts) -> EdgeCounts:
        """Add the counts of another accumulator with the same ranges and classes.

        Raises:
            DataError: it has others, or both together more than 2^32 - 1 samples.
        """
        if not isinstance(other, EdgeCounts):
            raise DataError(f"other is a {type(other).__name__}, wanted EdgeCounts")
        if other.classes != self.classes:
            raise DataError(f"other has {other.classes} classes, this one has {self.classes}")
        if not np.array_equal(other.ranges, self.ranges):
            raise DataError("other has other ranges", tip="freeze the ranges once and share them")
        self._add(*other._snapshot())
        return self

    def scores(self, weights: Any, steps: Any, *, theta: float = 0.0, threads: int = 0) -> FloatArray:
        """Score connections as `edge_information` does: float64, shape (outputs, channels).

        Raises:
            DataError: mismatched shapes, NaN or infinity, a step that is not positive.
        """
        threads = validate.thread_count(threads)
        with self._lock:
            information, entropy = core.edge_tables(self._table, threads)
        return scores_from_tables(self.ranges, information, entropy, weights, steps, theta, threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ranges and counts to one npz file; the same state gives the same bytes.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._lock:
            arrays = {
                "ranges": self.ranges,
                "table": self._table,
                "samples": np.array(self.samples, np.uint64),
            }
            files.write(path, "edge-counts", arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EdgeCounts:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged, inconsistent, or of another kind.
        """
        wanted = {"ranges": (np.float32, 1), **STATE}
        arrays = files.expect(files.read(path, "edge-counts"), wanted, path)
        out = cls(arrays["ranges"], int(arrays["table"].shape[1]))
        out._restore(arrays, path)
        return out


def _batch(
    x: Any, labels: Any, channels: int, classes: int
) -> tuple[npt.NDArray[Any], str, npt.NDArray[np.int32]]:
    x, dtype = validate.activations(x)
    if x.shape[1] != channels:
        raise DataError(f"x has {x.shape[1]} channels, the accumulator has {channels}")
    return x, dtype, validate.class_labels(labels, x.shape[0], classes)


def first_difference(mine: Edges, other: Edges) -> str:
    """Say where the edges of two accumulators differ."""
    if mine.thresholds.shape != other.thresholds.shape:
        return f"other has edges of shape {other.thresholds.shape}, this one {mine.thresholds.shape}"
    channel, at = np.argwhere(mine.thresholds.view(np.uint32) != other.thresholds.view(np.uint32))[0]
    return (
        f"other has other edges: thresholds[{channel}, {at}] is {other.thresholds[channel, at]}, "
        f"here {mine.thresholds[channel, at]}"
    )
