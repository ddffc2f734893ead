"""Share a budget over groups: least loss per unit of cost saved, by measured curves.

A curve says what removing a share of one group costs (alone, after compensation). Its
lower convex hull turns the multiple-choice knapsack into a greedy walk: always the step
with the smallest loss per cost saved at the current state; the saving is recomputed as
the walk goes on, since a product of two widths shrinks with both.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings

Cost = Callable[[BoolArray], float]


@dataclass(frozen=True)
class Curve:
    """Loss (nats per sample) at removed shares of one group, both ascending from (0, 0)."""

    shares: tuple[float, ...]
    losses: tuple[float, ...]

    def hull(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower convex hull of the monotone curve."""
        points: list[tuple[float, float]] = []
        highest = 0.0
        for x, y in zip(self.shares, self.losses, strict=True):
            highest = max(highest, y)
            while len(points) > 1 and _turns_down(points[-2], points[-1], (x, highest)):
                points.pop()
            points.append((x, highest))
        return np.array([p[0] for p in points]), np.array([p[1] for p in points])


def allocate(
    couplings: Couplings,
    rank: npt.NDArray[np.int64],
    curves: dict[int, Curve],
    cost: Cost,
    target: float,
    *,
    align: int = 1,
    steps: int = 32,
) -> BoolArray:
    """Components to remove so that `cost` falls to `target`, or as far as it can.

    Args:
        rank: removal order within each group.
        curves: group -> its measured loss; a group without one stays whole.
        cost: of a removal, monotone (MACs, parameters, milliseconds).
        align: kept channels of a group are a multiple of this, or all; from a measured staircase.
        steps: a group is walked in at most this many steps.
    """
    removed = np.zeros(couplings.count, bool)
    members = {g: _in_order(couplings, rank, g) for g in curves}
    hulls = {g: c.hull() for g, c in curves.items()}
    taken = dict.fromkeys(members, 0)
    block = {g: _block(couplings, g, align) for g in members}
    now = cost(removed)
    scale = max(now, 1e-12)

    def offer(g: int) -> tuple[float, int, BoolArray, float] | None:
        """Loss per relative saving of the next step of a group; None when it has none left."""
        total = len(members[g])
        count = total - _aligned_down(total - taken[g] - max(1, total // steps), block[g])
        if count >= total:
            return None
        trial = removed.copy()
        trial[members[g][:count]] = True
        if couplings.emptied(trial):
            return None
        after = cost(trial)
        x, y = hulls[g]
        loss = np.interp(count / total, x, y) - np.interp(taken[g] / total, x, y)
        saving = (now - after) / scale
        return (max(loss, 1e-9) / saving if saving > 0 else math.inf), count, trial, after

    queue: list[tuple[float, int]] = []
    for g in members:
        found = offer(g)
        if found and math.isfinite(found[0]):
            heapq.heappush(queue, (found[0], g))
    while queue and now > target:
        _, g = heapq.heappop(queue)
        found = offer(g)
        if found is None or not math.isfinite(found[0]):
            continue
        if queue and found[0] > queue[0][0] * (1 + 1e-9):  # others moved meanwhile: look again
            heapq.heappush(queue, (found[0], g))
            continue
        _, taken[g], removed, now = found
        heapq.heappush(queue, (found[0], g))
    return removed


def uniform(
    couplings: Couplings, rank: npt.NDArray[np.int64], cost: Cost, target: float, *, align: int = 1
) -> BoolArray:
    """The same share out of every group, as large as the target needs: the control."""
    members = {g: _in_order(couplings, rank, g) for g in range(len(couplings.group_names))}

    def take(share: float) -> BoolArray:
        removed = np.zeros(couplings.count, bool)
        for g, rows in members.items():
            kept = _aligned_up(max(round((1 - share) * len(rows)), 1), _block(couplings, g, align))
            removed[rows[: max(len(rows) - kept, 0)]] = True
        return _refill(couplings, removed)

    low, high = 0.0, 1.0
    if cost(take(high)) > target:
        return take(high)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(take(middle)) <= target else (middle, high)
    return take(high)


def largest(couplings: Couplings, rank: npt.NDArray[np.int64]) -> BoolArray:
    """Everything that can go while each group and each extent keeps one."""
    removed = np.ones(couplings.count, dtype=bool)
    for g in range(len(couplings.group_names)):
        removed[_in_order(couplings, rank, g)[-1:]] = False
    return _refill(couplings, removed)


def _block(couplings: Couplings, group: int, align: int) -> int:
    """How many components make `align` channels of the layers that the group writes."""
    for layer in couplings.layers:
        vector = couplings.extents[layer.outputs]
        mine = vector[vector >= 0]
        mine = mine[couplings.group[mine] == group]
        if len(mine):
            channels = len(mine) // len(np.unique(mine))
            return max(1, align // math.gcd(align, channels))
    return 1


def _aligned_down(kept: int, block: int) -> int:
    """The largest multiple of the block; below one block, whatever is left (0 or less: nothing)."""
    return kept // block * block


def _aligned_up(kept: int, block: int) -> int:
    return -(-kept // block) * block


def _refill(couplings: Couplings, removed: BoolArray) -> BoolArray:
    for extent in couplings.emptied(removed):
        vector = couplings.extents[extent]
        removed[vector[vector >= 0][-1]] = False
    return removed


def _in_order(couplings: Couplings, rank: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(couplings.group == group)
    return rows[np.argsort(rank[rows], kind="stable")]


def _turns_down(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
