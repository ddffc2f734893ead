"""Covariance, deterministic and mergeable.

Floating-point sums depend on their order, so the order is fixed: samples are
numbered, blocks of 256 consecutive numbers are summed in sequence, and blocks are
added pairwise up a binary tree over block numbers.

Guarantee: the same numbered samples give the same bits however they were split,
ordered or merged, on any number of threads and any instruction set. Memory is
O(log N) matrices while a part's blocks are consecutive; scattered blocks wait for
their siblings. Elsewhere: INT8 codes, whose covariance needs no order at all (integer_covariance).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import files, validate
from edgeprune.information._native import core
from edgeprune.information.validate import FloatArray

BLOCK = 256


@dataclass
class _Loose:
    """Samples of one block that is not yet whole."""

    rows: npt.NDArray[np.float32]  # (BLOCK, channels)
    there: npt.NDArray[np.bool_]  # (BLOCK,)


@dataclass(frozen=True)
class Moments:
    """samples, mean float64 (channels,), and covariance float64 (channels, channels), divided by samples."""

    samples: int
    mean: FloatArray
    covariance: FloatArray


_Node = tuple[FloatArray, FloatArray]  # sums and sums of products about the shift
_STATE: dict[str, tuple[type, int]] = {
    "shift": (np.float64, 1),
    "samples": (np.int64, 1),
    "nodes": (np.int64, 2),
    "sums": (np.float64, 2),
    "products": (np.float64, 3),
    "blocks": (np.int64, 1),
    "rows": (np.float32, 2),
    "there": (np.bool_, 2),
}


class Covariance:
    """Means and covariances of numbered samples.

    shift: float64, shape (channels,), subtracted first; near the mean it avoids
    cancellation. Frozen, and the same on every rank. Zero if left out.

    Raises:
        DataError: no channels, or a shift that is not finite or of another shape.
    """

    def __init__(self, channels: int, shift: Any = None) -> None:
        channels = validate.whole(channels, "channels", 1, validate.MAX_CHANNELS)
        shift = np.zeros(channels) if shift is None else validate.numbers(shift, "shift").copy()
        if shift.shape != (channels,) or not np.isfinite(shift).all():
            raise DataError(f"shift has shape {shift.shape}, wanted finite ({channels},)")
        self.channels = channels
        self.shift = shift
        self.samples = 0
        self._next = 0
        self._nodes: dict[tuple[int, int], _Node] = {}  # (level, index): blocks index*2^level and on
        self._loose: dict[int, _Loose] = {}

    def update(self, x: Any, start: int | None = None, *, threads: int = 0) -> Covariance:
        """Add samples numbered start, start + 1, ...; they follow the last batch if `start` is left out.

        Raises:
            DataError: wrong type or shape, NaN or infinity, or a number that was there already; nothing
                is then added.
        """
        x, dtype = validate.activations(x)
        if x.shape[1] != self.channels:
            raise DataError(f"x has {x.shape[1]} channels, the accumulator has {self.channels}")
        threads = validate.thread_count(threads)
        start = validate.whole(
            self._next if start is None else start, "start", 0, validate.MAX_INT64 - x.shape[0]
        )
        stop = start + x.shape[0]
        self._refuse_known(start, stop)
        if core.find_non_finite(x, dtype) is not None:
            validate.refuse_non_finite(x, dtype)
        at = start
        while at < stop:
            block = at // BLOCK
            end = min(stop, (block + 1) * BLOCK)
            part = x[at - start : end - start]
            if end - at == BLOCK:
                self._push(0, block, core.block_moments(part, dtype, 0, BLOCK, self.shift, threads))
            else:
                self._keep(block, at % BLOCK, _as_float32(part, dtype), threads)
            at = end
        self.samples += x.shape[0]
        self._next = stop
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
        for level, index in other._nodes:
            self._refuse_known(index * BLOCK << level, (index + 1) * BLOCK << level)
        for block, loose in other._loose.items():
            for place in np.flatnonzero(loose.there):
                self._refuse_known(block * BLOCK + int(place), block * BLOCK + int(place) + 1)
        for (level, index), node in other._nodes.items():
            self._push(level, index, node)
        for block, loose in other._loose.items():
            for place in np.flatnonzero(loose.there):
                self._keep(block, int(place), loose.rows[place : place + 1], threads)
        self.samples += other.samples
        self._next = max(self._next, other._next)
        return self

    def moments(self, *, threads: int = 0) -> Moments:
        """Give mean and covariance (divided by the number of samples) of everything added so far.

        Raises:
            DataError: no samples.
        """
        threads = validate.thread_count(threads)
        if self.samples == 0:
            raise DataError("no samples were added")
        level_nodes = {(level, index): node for (level, index), node in self._nodes.items()}
        for block, loose in self._loose.items():
            part = np.ascontiguousarray(loose.rows[loose.there])
            level_nodes[0, block] = core.block_moments(part, "float32", 0, len(part), self.shift, threads)
        level = 0
        while len(level_nodes) > 1 or level < max(key[0] for key in level_nodes):
            for index in sorted(index for at, index in level_nodes if at == level):
                if (level, index) not in level_nodes:
                    continue  # went up with its sibling
                node = level_nodes.pop((level, index))
                sibling = level_nodes.pop((level, index ^ 1), None)
                level_nodes[level + 1, index // 2] = node if sibling is None else _sum(node, sibling)
            level += 1
        ((sums, products),) = level_nodes.values()
        centre = sums / self.samples
        covariance = products / self.samples - np.outer(centre, centre)
        return Moments(self.samples, self.shift + centre, (covariance + covariance.T) / 2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one npz file.

        Raises:
            OutputError: the file cannot be written.
        """
        nodes = sorted(self._nodes)
        loose = sorted(self._loose)
        empty = (0, self.channels)
        arrays: files.Arrays = {
            "shift": self.shift,
            "samples": np.array([self.samples, self._next], np.int64),
            "nodes": np.array(nodes, np.int64).reshape(-1, 2),
            "sums": np.array([self._nodes[n][0] for n in nodes]).reshape(-1, self.channels),
            "products": np.array([self._nodes[n][1] for n in nodes]).reshape(
                -1, self.channels, self.channels
            ),
            "blocks": np.array(loose, np.int64),
            "rows": np.concatenate([self._loose[b].rows for b in loose])
            if loose
            else np.zeros(empty, np.float32),
            "there": np.array([self._loose[b].there for b in loose], bool).reshape(-1, BLOCK),
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
        for (level, index), *node in zip(nodes, arrays["sums"], arrays["products"], strict=True):
            out._nodes[int(level), int(index)] = (node[0], node[1])
        rows = arrays["rows"].reshape(-1, BLOCK, out.channels)
        for block, part, known in zip(blocks, rows, there, strict=True):
            out._loose[int(block)] = _Loose(part.copy(), known.copy())
        out.samples, out._next = (int(n) for n in arrays["samples"])
        if out.samples != there.sum() + sum(BLOCK << level for level, _ in out._nodes):
            raise DataError(f"{os.fspath(path)}: its blocks do not add up to {out.samples} samples")
        return out

    def _refuse_known(self, start: int, stop: int) -> None:
        for level, index in self._nodes:
            low = max(start, index * BLOCK << level)
            if low < min(stop, (index + 1) * BLOCK << level):
                raise DataError(f"sample {low} was added before")
        for block, loose in self._loose.items():
            low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            if low < high:
                known = np.flatnonzero(loose.there[low - block * BLOCK : high - block * BLOCK])
                if known.size:
                    raise DataError(f"sample {low + int(known[0])} was added before")

    def _keep(self, block: int, place: int, part: npt.NDArray[np.float32], threads: int) -> None:
        loose = self._loose.get(block)
        if loose is None:
            loose = _Loose(np.zeros((BLOCK, self.channels), np.float32), np.zeros(BLOCK, bool))
            self._loose[block] = loose
        loose.rows[place : place + len(part)] = part
        loose.there[place : place + len(part)] = True
        if loose.there.all():
            del self._loose[block]
            self._push(0, block, core.block_moments(loose.rows, "float32", 0, BLOCK, self.shift, threads))

    def _push(self, level: int, index: int, node: _Node) -> None:
        while (sibling := self._nodes.pop((level, index ^ 1), None)) is not None:
            node = _sum(node, sibling)
            level, index = level + 1, index // 2
        self._nodes[level, index] = node


def covariance(x: Any, *, threads: int = 0) -> Moments:
    """Give mean and covariance of x, floats of shape (samples, channels), divided by the number of samples.

    The shift is the mean of the first block, so offsets cost no precision.

    Raises:
        DataError: wrong type or shape, no samples, NaN or infinity.
    """
    x, dtype = validate.activations(x)
    validate.not_empty(x)
    if core.find_non_finite(x, dtype) is not None:
        validate.refuse_non_finite(x, dtype)
    shift = _as_float32(x[:BLOCK], dtype).astype(np.float64).mean(axis=0)
    return Covariance(x.shape[1], shift).update(x, threads=threads).moments(threads=threads)


def _as_float32(x: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "bfloat16":
        return (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(x, dtype=np.float32)


def _sum(a: _Node, b: _Node) -> _Node:
    return a[0] + b[0], a[1] + b[1]
