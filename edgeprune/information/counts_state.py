"""What every accumulator of counts is made of: a table, a number of samples, and a lock.

Guarantee: each call is one step for every other thread. A merge takes the other's state under the
other's lock, then adds it under its own; no two locks are ever held together, so accumulators may be
merged into each other from several threads, and into themselves.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import files, validate

STATE: dict[str, tuple[type, int]] = {"table": (np.uint32, 3), "samples": (np.uint64, 0)}


class CountsState:
    """A table of counts, (channels, classes, cells), of samples that each count `unit` times."""

    def __init__(self, channels: int, classes: int, cells: int, unit: int = 1) -> None:
        self.classes = classes
        self.samples = 0
        self._unit = unit
        self._table = validate.zero_counts(channels, classes, cells)
        self._lock = threading.Lock()

    @property
    def counts(self) -> npt.NDArray[np.uint32]:
        """A copy of the counts, uint32, shape (channels, bins, classes)."""
        return self._snapshot()[0].transpose(0, 2, 1)

    def _snapshot(self) -> tuple[npt.NDArray[np.uint32], int]:
        """Copies of the table and the number of samples, of one moment."""
        with self._lock:
            return self._table.copy(), self.samples

    def _room_for(self, more: int) -> None:
        most = validate.MAX_SAMPLES // self._unit
        if self.samples + more > most:
            raise DataError(
                f"{self.samples} samples counted, {more} would follow; at most {most} fit",
                tip="start a second accumulator",
            )

    def _add(self, table: npt.NDArray[np.uint32], samples: int) -> None:
        with self._lock:
            self._room_for(samples)
            self._table += table
            self.samples += samples

    def _restore(self, arrays: files.Arrays, path: str | os.PathLike[str]) -> None:
        table, samples = arrays["table"], int(arrays["samples"])
        if table.shape != self._table.shape:
            raise DataError(f"{os.fspath(path)}: table is {table.shape}, wanted {self._table.shape}")
        if samples * self._unit > validate.MAX_SAMPLES:
            raise DataError(f"{os.fspath(path)} holds {samples} samples, more than can be counted")
        if (table.sum(axis=(1, 2), dtype=np.uint64) != samples * self._unit).any():
            raise DataError(f"{os.fspath(path)}: the counts do not add up to {samples} samples")
        self._table = np.ascontiguousarray(table)
        self.samples = samples
