"""Sums and sums of products of numbered samples, in an order that no split can change.

Blocks of 256 consecutive numbers are summed in sequence, and blocks are added pairwise up a binary
tree over block numbers. Whole siblings are added at once, so what is held is one node for each
binary digit of the number of blocks, and the samples of blocks that are not yet whole.

Guarantee: the same numbered samples make the same tree, bit for bit, in any order and from any parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information._native import core
from edgeprune.information.validate import FloatArray

BLOCK = 256
Node = tuple[FloatArray, FloatArray]  # sums and sums of products about the shift


@dataclass
class Loose:
    """Samples of one block that is not yet whole; float64 holds those of every type."""

    rows: FloatArray  # (BLOCK, channels)
    there: npt.NDArray[np.bool_]  # (BLOCK,)


class MomentTree:
    """nodes: by (level, index), of blocks index*2^level and on. loose: by block."""

    def __init__(self, shift: FloatArray) -> None:
        self.shift = shift
        self.nodes: dict[tuple[int, int], Node] = {}
        self.loose: dict[int, Loose] = {}

    def add(self, x: npt.NDArray[Any], dtype: str, start: int, threads: int) -> bool:
        """Add samples numbered start, start + 1, ...; False, and unfit for use, if one is not finite."""
        at, stop = start, start + x.shape[0]
        while at < stop:
            block = at // BLOCK
            end = min(stop, (block + 1) * BLOCK)
            part = x[at - start : end - start]
            if end - at == BLOCK:
                node = core.block_moments(part, dtype, 0, BLOCK, self.shift, threads)
                if node is None:
                    return False
                self._push(0, block, node)
            else:
                rows = as_float64(part, dtype)
                if core.find_non_finite(rows, "float64") is not None:
                    return False
                there = np.zeros(BLOCK, bool)
                there[at % BLOCK : at % BLOCK + len(rows)] = True
                self._fill(block, rows, there, threads)
            at = end
        return True

    def absorb(self, other: MomentTree, threads: int) -> None:
        """Add the samples of another tree, none of which may be here."""
        for (level, index), node in other.nodes.items():
            self._push(level, index, node)
        for block, loose in other.loose.items():
            self._fill(block, loose.rows[loose.there], loose.there, threads)

    def copy(self) -> MomentTree:
        """Return a tree that later additions do not change. Nodes are never written to."""
        out = MomentTree(self.shift)
        out.nodes = dict(self.nodes)
        out.loose = {block: Loose(part.rows.copy(), part.there.copy()) for block, part in self.loose.items()}
        return out

    def refuse_shared(self, other: MomentTree) -> None:
        """Refuse a tree that holds a sample of this one.

        Raises:
            DataError: it does; the sample is named.
        """
        for level, index in other.nodes:
            self.refuse_known(index * BLOCK << level, (index + 1) * BLOCK << level)
        for block, loose in other.loose.items():
            for place in np.flatnonzero(loose.there):
                self.refuse_known(block * BLOCK + int(place), block * BLOCK + int(place) + 1)

    def refuse_known(self, start: int, stop: int) -> None:
        """Refuse numbers start..stop-1 where one of them is here.

        Raises:
            DataError: one is; it is named.
        """
        for level, index in self.nodes:
            low = max(start, index * BLOCK << level)
            if low < min(stop, (index + 1) * BLOCK << level):
                raise DataError(f"sample {low} was added before")
        for block, loose in self.loose.items():
            low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            if low < high:
                known = np.flatnonzero(loose.there[low - block * BLOCK : high - block * BLOCK])
                if known.size:
                    raise DataError(f"sample {low + int(known[0])} was added before")

    def total(self, threads: int) -> Node:
        """Add everything up; there is at least one sample."""
        nodes = dict(self.nodes)
        for block, loose in self.loose.items():
            nodes[0, block] = self._sum_rows(loose.rows[loose.there], threads)
        level = 0
        while len(nodes) > 1 or level < max(key[0] for key in nodes):
            for index in sorted(index for at, index in nodes if at == level):
                if (level, index) not in nodes:
                    continue  # went up with its sibling
                node = nodes.pop((level, index))
                sibling = nodes.pop((level, index ^ 1), None)
                nodes[level + 1, index // 2] = node if sibling is None else _sum(node, sibling)
            level += 1
        ((sums, products),) = nodes.values()
        return sums, products

    def _fill(self, block: int, rows: FloatArray, there: npt.NDArray[np.bool_], threads: int) -> None:
        loose = self.loose.get(block)
        if loose is None:
            loose = Loose(np.zeros((BLOCK, len(self.shift))), np.zeros(BLOCK, bool))
            self.loose[block] = loose
        loose.rows[there] = rows
        loose.there |= there
        if loose.there.all():
            del self.loose[block]
            self._push(0, block, self._sum_rows(loose.rows, threads))

    def _sum_rows(self, rows: FloatArray, threads: int) -> Node:
        node = core.block_moments(rows, "float64", 0, len(rows), self.shift, threads)
        assert node is not None  # `add` and Covariance.load let no other rows in than finite ones
        return node

    def _push(self, level: int, index: int, node: Node) -> None:
        while (sibling := self.nodes.pop((level, index ^ 1), None)) is not None:
            node = _sum(node, sibling)
            level, index = level + 1, index // 2
        self.nodes[level, index] = node


def as_float64(x: npt.NDArray[Any], dtype: str) -> FloatArray:
    """Return a copy of activations of any type, exactly."""
    if dtype == "bfloat16":
        x = (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.array(x, dtype=np.float64, order="C")


def _sum(a: Node, b: Node) -> Node:
    return a[0] + b[0], a[1] + b[1]
