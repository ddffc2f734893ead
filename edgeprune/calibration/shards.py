"""Cut samples into shards and add what they give, the same way at any number of processes.

    bounds = shard_bounds(820, 32)                     [(0, 64), (64, 160), ...]
    root = add_shards(len(bounds), measure, ranks)     the sum over all shards, on every rank

The cut depends on the number of samples alone. Shards are the leaves of one binary tree over their numbers;
each rank adds what lies wholly within its own consecutive shards, the rest of the tree is added by every rank
in the same order. So the bits of the sum do not depend on who computed which shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from edgeprune.ranks import Ranks

SHARD, MOST = 64, 64  # samples of the smallest shard; shards


class Summable(Protocol):
    """What shards give; adds to its own type."""

    def __add__(self, other: Any, /) -> Any: ...


Sum = TypeVar("Sum", bound=Summable)
Nodes = dict[tuple[int, int], Sum]  # (level, index): the sum of shards index·2^level and on


def shard_bounds(samples: int, batch_size: int) -> list[tuple[int, int]]:
    """First and last (exclusive) sample of each shard; whole batches but for the last, never empty."""
    batches = -(-samples // batch_size)
    shards = max(1, min(MOST, samples // max(SHARD, batch_size), batches))
    starts = [min(samples, (i * batches // shards) * batch_size) for i in range(shards + 1)]
    return list(itertools.pairwise(starts))


def add_shards(shards: int, measure: Callable[[int], Sum], ranks: Ranks) -> Sum:
    """The sum of `measure(shard)` over all shards; each is measured by one rank.

    Raises:
        RankError: another rank failed.
    """

    def local() -> Nodes[Sum]:
        nodes: Nodes[Sum] = {}
        for shard in ranks.slice_of(shards):
            _push(nodes, 0, shard, measure(shard), shards)
        return nodes

    merged: Nodes[Sum] = {}
    for nodes in ranks.gather(local):
        for (level, index), value in nodes.items():
            _push(merged, level, index, value, shards)
    (root,) = merged.values()
    return root


def _push(nodes: Nodes[Sum], level: int, index: int, value: Sum, shards: int) -> None:
    """Add a node, and its parents as far as both children are there; the last of a level may be alone."""
    while (1 << level) < shards:
        sibling = index ^ 1
        if sibling << level < shards:
            other = nodes.pop((level, sibling), None)
            if other is None:
                break
            value = value + other if index < sibling else other + value
        level, index = level + 1, index >> 1
    nodes[level, index] = value
