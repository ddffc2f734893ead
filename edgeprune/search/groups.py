"""What planning works on: a cost of removals, a loss curve per group, and the uniform control.

Guarantee: removal follows the rank within each group, and every group and dimension keeps
something. Elsewhere: the widths of all groups at once (allocate), costs (pipeline, latency).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings, RemovalCost


@dataclass(frozen=True)
class Curve:
    """Loss (nats per sample) at removed shares of one group, both ascending from (0, 0).

    correction: measured loss over the predicted one; None where nothing was predicted.
    """

    shares: tuple[float, ...]
    losses: tuple[float, ...]
    correction: float | None = None


def uniform(
    couplings: Couplings, rank: npt.NDArray[np.int64], cost: RemovalCost, target: float, *, align: int = 1
) -> BoolArray:
    """The same share out of every group, as large as the target needs: the control."""
    members = {g: in_order(couplings, rank, g) for g in range(len(couplings.group_names))}
    blocks = {g: block_of(couplings, g, align) for g in members}

    def take(share: float) -> BoolArray:
        removed = np.zeros(couplings.count, bool)
        for g, rows in members.items():
            kept = _aligned_up(max(round((1 - share) * len(rows)), 1), blocks[g])
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
    """Everything that can go while each group and each channel_map keeps one."""
    removed = np.ones(couplings.count, dtype=bool)
    for g in range(len(couplings.group_names)):
        removed[in_order(couplings, rank, g)[-1:]] = False
    return _refill(couplings, removed)


def block_of(couplings: Couplings, group: int, align: int) -> int:
    """How many components make `align` channels of the layers that the group writes."""
    for layer in couplings.layers:
        vector = couplings.channel_maps[layer.outputs]
        mine = vector[vector >= 0]
        mine = mine[couplings.group[mine] == group]
        if len(mine):
            channels = len(mine) // len(np.unique(mine))
            return max(1, align // math.gcd(align, channels))
    return 1


def _aligned_up(kept: int, block: int) -> int:
    return -(-kept // block) * block


def _refill(couplings: Couplings, removed: BoolArray) -> BoolArray:
    for channel_map in couplings.emptied(removed):
        vector = couplings.channel_maps[channel_map]
        removed[vector[vector >= 0][-1]] = False
    return removed


def in_order(couplings: Couplings, rank: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(couplings.group == group)
    return rows[np.argsort(rank[rows], kind="stable")]
