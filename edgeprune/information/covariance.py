"""Covariance, deterministic and mergeable.

Floating-point sums depend on their order, so the order is fixed (moment_tree): samples are
numbered, and what is added to what follows from the numbers alone.

Guarantee: the same numbered samples give the same bits however they were split,
ordered or merged, on any number of threads and any instruction set; any thread may call any
method at any time. Memory is O(log N) matrices while a part's blocks are consecutive; scattered
blocks wait for their siblings. float64 is taken as it is, other types exactly.
Elsewhere: INT8 codes, whose covariance needs no order at all (integer_covariance).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import DataError
from edgeprune.information import files, validate
from edgeprune.information.codes import LARGEST
from edgeprune.information.moment_tree import BLOCK, Loose, MomentTree, as_float64
from edgeprune.information.validate import FloatArray


@dataclass(frozen=True)
class Moments:
    """samples, mean float64 (channels,), and covariance float64 (channels, channels), divided by samples."""

    samples: int
    mean: FloatArray
    covariance: FloatArray


_STATE: dict[str, tuple[type, int]] = {
    "shift": (np.float64, 1),
    "samples": (np.int64, 1),
    "nodes": (np.int64, 2),
    "sums": (np.float64, 2),
    "products": (np.float64, 3),
    "blocks": (np.int64, 1),
    "rows": (np.float64, 2),
    "there": (np.bool_, 2),
}
_HIGHEST = 54  # level of a node whose samples are numbered in 63 bits


class Covariance:
    """Means and covariances of numbered samples.

    shift: float64, shape (channels,), subtracted first, in double precision; near the
    mean it avoids cancellation. Frozen, and the same on every rank. Zero if left out.

    Raises:
        DataError: no channels, or a shift of another shape or beyond float32.
    """

    def __init__(self, channels: int, shift: Any = None) -> None:
        channels = validate.integer_in_range(channels, "channels", 1, validate.MAX_CHANNELS)
        shift = np.zeros(channels) if shift is None else validate.real_numbers(shift, "shift").copy()
        if shift.shape != (channels,) or not (np.abs(shift) <= LARGEST).all():
            raise DataError(f"shift has shape {shift.shape}, wanted ({channels},) of what float32 can hold")
        self.channels = channels
        self.shift: FloatArray = shift
        self.samples = 0
        self._next = 0
        self._tree = MomentTree(shift)
        self._lock = threading.Lock()

    def update(self, x: Any, start: int | None = None, *, threads: int = 0) -> Covariance:
        """Add samples numbered start, start + 1, ...; they follow the last batch if `start` is left out.

        Raises:
            DataError: wrong type or shape, NaN or infinity (also as float32), or a number that was there
                already; nothing is then added.
        """
        x, dtype = validate.activations(x)
        if x.shape[1] != self.channels:
            raise DataError(f"x has {x.shape[1]} channels, the accumulator has {self.channels}")
        threads = validate.thread_count(threads)
        with self._lock:
            start = validate.integer_in_range(
                self._next if start is None else start, "start", 0, validate.MAX_INT64 - x.shape[0]
            )
            self._tree.refuse_known(start, start + x.shape[0])
            batch = MomentTree(self.shift)
            good = batch.add(x, dtype, start, threads)
            if good:
                self._absorb(batch, x.shape[0], start + x.shape[0], threads)
        if not good:
            validate.refuse_non_finite(x, dtype)
        return self

    def merge(self, other: Covariance, *, threads: int = 0) -> Covariance:
        """Add the samples of another accumulator with the same shift; their numbers must differ.

        Raises:
            DataError: another shift, other channels, or a number that was there already; nothing is
                then added.
        """
        threads = validate.thread_count(threads)
        if not isinstance(other, Covariance):
            raise DataError(f"other is a {type(other).__name__}, wanted Covariance")
        if other.channels != self.channels or not np.array_equal(other.shift, self.shift):
            raise DataError(
                "other has other channels or another shift", tip="freeze the shift once and share it"
            )
        with other._lock:  # never held together with this one's: two may be merged into each other
            tree, samples, after = other._tree.copy(), other.samples, other._next
        with self._lock:
            self._tree.refuse_shared(tree)
            self._absorb(tree, samples, max(self._next, after), threads)
        return self

    def _absorb(self, tree: MomentTree, samples: int, after: int, threads: int) -> None:
        self._tree.absorb(tree, threads)
        self.samples += samples
        self._next = after

    def moments(self, *, threads: int = 0) -> Moments:
        """Give mean and covariance (divided by the number of samples) of everything added so far.

        Raises:
            DataError: no samples.
        """
        threads = validate.thread_count(threads)
        with self._lock:
            tree, samples = self._tree.copy(), self.samples
        if samples == 0:
            raise DataError("no samples were added")
        sums, products = tree.total(threads)
        centre = sums / samples
        covariance = products / samples - np.outer(centre, centre)
        return Moments(samples, self.shift + centre, (covariance + covariance.T) / 2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one npz file.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._lock:
            tree, samples, after = self._tree.copy(), self.samples, self._next
        nodes, loose = sorted(tree.nodes), sorted(tree.loose)
        size = self.channels
        arrays: files.Arrays = {
            "shift": self.shift,
            "samples": np.array([samples, after], np.int64),
            "nodes": np.array(nodes, np.int64).reshape(-1, 2),
            "sums": np.array([tree.nodes[n][0] for n in nodes]).reshape(-1, size),
            "products": np.array([tree.nodes[n][1] for n in nodes]).reshape(-1, size, size),
            "blocks": np.array(loose, np.int64),
            "rows": np.array([tree.loose[b].rows for b in loose]).reshape(-1, size),
            "there": np.array([tree.loose[b].there for b in loose], bool).reshape(-1, BLOCK),
        }
        files.write(path, "covariance", arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Covariance:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged, inconsistent, or of another kind.
        """
        arrays = files.expect(files.read(path, "covariance"), _STATE, path)
        out = cls(len(arrays["shift"]), arrays["shift"])
        nodes, blocks, there = arrays["nodes"], arrays["blocks"], arrays["there"]
        shapes = {
            "samples": (2,),
            "nodes": (len(nodes), 2),
            "sums": (len(nodes), out.channels),
            "products": (len(nodes), out.channels, out.channels),
            "rows": (len(blocks) * BLOCK, out.channels),
            "there": (len(blocks), BLOCK),
        }
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        if wrong:
            raise DataError(f"{os.fspath(path)}: {wrong[0]} has shape {arrays[wrong[0]].shape}")
        _refuse_impossible(arrays, path)
        tree = out._tree
        for (level, index), *node in zip(nodes.tolist(), arrays["sums"], arrays["products"], strict=True):
            tree.refuse_known(index * BLOCK << level, (index + 1) * BLOCK << level)
            tree.nodes[level, index] = (node[0], node[1])
        rows = arrays["rows"].reshape(-1, BLOCK, out.channels)
        for block, part, known in zip(blocks.tolist(), rows, there, strict=True):
            tree.refuse_known(block * BLOCK, (block + 1) * BLOCK)
            tree.loose[block] = Loose(part.copy(), known.copy())
        out.samples, out._next = (int(n) for n in arrays["samples"])
        if out.samples != there.sum() + sum(BLOCK << level for level, _ in tree.nodes):
            raise DataError(f"{os.fspath(path)}: its blocks do not add up to {out.samples} samples")
        return out


def _refuse_impossible(arrays: files.Arrays, path: str | os.PathLike[str]) -> None:
    """Refuse numbers that no samples have."""
    level, index = arrays["nodes"].T
    numbered = (level >= 0) & (level <= _HIGHEST) & (index >= 0) & (index < 1 << (_HIGHEST + 1))
    products = arrays["products"]
    there = arrays["there"]
    good = {
        "samples": bool((arrays["samples"] >= 0).all()),
        "nodes": bool((numbered & (index >> np.clip(_HIGHEST + 1 - level, 0, 63) == 0)).all()),
        "blocks": bool(((arrays["blocks"] >= 0) & (arrays["blocks"] < 1 << (_HIGHEST + 1))).all()),
        "sums": bool(np.isfinite(arrays["sums"]).all()),
        "products": bool(
            np.isfinite(products).all()
            and (products == products.transpose(0, 2, 1)).all()
            and (np.diagonal(products, axis1=1, axis2=2) >= 0).all()
        ),
        "rows": bool(np.isfinite(arrays["rows"]).all()),
        "there": not bool(there.all(axis=1).any()) if len(there) else True,
    }
    for name, fine in good.items():
        if not fine:
            raise DataError(f"{os.fspath(path)}: {name} are those of no samples")


def covariance(x: Any, *, threads: int = 0) -> Moments:
    """Give mean and covariance of x, floats of shape (samples, channels), divided by the number of samples.

    The shift is the mean of the first block, taken off in double precision, so offsets cost no
    precision: not even that of float64, of which 1e8 + 1 is as good as 1.

    Raises:
        DataError: wrong type or shape, no samples, NaN or infinity.
    """
    x, dtype = validate.activations(x)
    validate.not_empty(x)
    threads = validate.thread_count(threads)
    with np.errstate(invalid="ignore", over="ignore"):
        shift = as_float64(x[:BLOCK], dtype).mean(axis=0)
    if not np.isfinite(shift).all():
        validate.refuse_non_finite(x, dtype)
    total = Covariance(x.shape[1], shift)
    if not total._tree.add(x, dtype, 0, threads):
        validate.refuse_non_finite(x, dtype)
    total.samples = x.shape[0]
    return total.moments(threads=threads)
