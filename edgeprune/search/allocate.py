"""Widths of all groups at once: least measured loss within a cost that may be a staircase.

A multiple-choice knapsack: each group takes one of its widths, losses add up, and the
cost (milliseconds, MACs, bytes) is asked of the whole network, since the time of a layer
depends on two widths. For a price per unit of cost the groups take turns at their best
width until none moves (coordinate descent on the Lagrangian, Everett 1963); the price is
found by bisection; what is left of the budget is then spent on the widths around, one
channel at a time, so that a width just over a step of the staircase ends on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings, RemovalCost
from edgeprune.search.groups import Curve, block_of, in_order, largest

GRID = 16  # widths per group while the price is sought
AROUND = 16  # channels looked at on either side of a width when the rest is spent
SWEEPS = 6
CLOSEST = 3  # solutions near the target that are filled up
EXCHANGES = 10_000  # networks priced at most
BISECTIONS = 14


@dataclass
class _Choice:
    """Removed counts per group, with the network's cost and loss at any of them."""

    couplings: Couplings
    members: dict[int, npt.NDArray[np.int64]]
    curves: dict[int, Curve]
    cost: RemovalCost
    block: dict[int, int]
    least: dict[int, int]
    known: dict[tuple[int, ...], float] = field(default_factory=dict)
    losses: dict[int, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for g, rows in self.members.items():
            curve, count = self.curves[g], len(rows)
            highest = np.maximum.accumulate(curve.losses)
            self.losses[g] = np.interp(np.arange(count + 1) / count, curve.shares, highest).tolist()

    def removal(self, counts: dict[int, int]) -> BoolArray:
        removed = np.zeros(self.couplings.count, bool)
        for g, count in counts.items():
            removed[self.members[g][:count]] = True
        return removed

    def price(self, counts: dict[int, int]) -> float:
        """Cost of these counts; infinite where a dimension would be emptied."""
        key = tuple(counts.values())
        if key not in self.known:
            removed = self.removal(counts)
            empty = len(self.couplings.emptied(removed)) > 0
            self.known[key] = math.inf if empty else self.cost(removed)
        return self.known[key]

    def loss(self, g: int, count: int) -> float:
        return self.losses[g][count]

    def total(self, counts: dict[int, int]) -> float:
        return sum(self.loss(g, count) for g, count in counts.items())


def allocate(
    couplings: Couplings,
    rank: npt.NDArray[np.int64],
    curves: dict[int, Curve],
    cost: RemovalCost,
    target: float,
    *,
    align: int = 1,
    held: BoolArray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BoolArray:
    """Components to remove so that `cost` is at most `target` at the least summed loss.

    Args:
        rank: removal order within each group.
        curves: group -> its measured loss; a group without one stays whole.
        cost: of a removal (MACs, bytes, milliseconds); need not be monotone.
        align: kept channels of a group are a multiple of this, or all; for a cost that does not
            know what widths the machine likes.
        held: components that go in any case, in each group those of the lowest rank.

    Returns what costs least where the target lies out of reach; the caller compares.
    """
    members = {g: in_order(couplings, rank, g) for g in curves}
    block = {g: block_of(couplings, g, align) for g in members}
    counts = {g: 0 if held is None else int(held[rows].sum()) for g, rows in members.items()}
    choice = _Choice(couplings, members, curves, cost, block, counts)
    if choice.price(counts) <= target:
        return choice.removal(counts)
    grids = {g: _grid(len(rows), block[g]) for g, rows in members.items()}
    options = {g: [counts[g], *(c for c in grid if c > counts[g])] for g, grid in grids.items()}
    scale = sum(choice.loss(g, o[-1]) for g, o in options.items()) / choice.price(counts) + 1e-12
    low, high = -12.0, 12.0  # of log2(price / scale)
    fitting: list[dict[int, int]] = []  # ever closer to the target
    for turn in range(BISECTIONS):
        middle = (low + high) / 2
        price = scale * 2.0**middle
        starts = [counts, *fitting[-1:]]
        ends = [_descend(choice, options, dict(start), price) for start in starts]
        candidate = min(ends, key=lambda c: choice.total(c) + price * choice.price(c))
        if choice.price(candidate) <= target:
            fitting.append(candidate)
            high = middle
        else:
            low = middle
        if progress:
            progress(turn + 1, BISECTIONS)
    if not fitting:
        least = _descend(choice, options, counts, math.inf)
        if choice.price(least) > target:
            return choice.removal(least)
        fitting = [least]
    full = [_exchange(choice, _spend(choice, candidate, target), target) for candidate in fitting[-CLOSEST:]]
    return choice.removal(min(full, key=lambda c: (choice.total(c), -choice.price(c))))


def cheapest(couplings: Couplings, rank: npt.NDArray[np.int64], cost: RemovalCost) -> BoolArray:
    """What costs least whatever it loses: where narrower is not always faster, not the largest removal."""
    groups = range(len(couplings.group_names))
    members = {g: in_order(couplings, rank, g) for g in groups}
    none, most = dict.fromkeys(members, 0), largest(couplings, rank)
    flat = dict.fromkeys(members, Curve((0.0, 1.0), (0.0, 0.0)))
    choice = _Choice(couplings, members, flat, cost, dict.fromkeys(members, 1), none)
    options = {g: _grid(len(rows), 1) for g, rows in members.items()}
    starts = [{g: int(most[rows].sum()) for g, rows in members.items()}, none]
    ends = [_descend(choice, options, start, math.inf) for start in starts]
    return choice.removal(min(ends, key=choice.price))


def _grid(total: int, block: int) -> list[int]:
    """Removed counts whose kept counts are multiples of a step, from nothing to one block."""
    step = max(block, -(-total // GRID // block) * block)
    kept = [total, *range((total - 1) // step * step, 0, -step), min(block, total)]
    return [total - k for k in dict.fromkeys(kept)]


def _given_back(choice: _Choice, g: int, count: int) -> list[int]:
    """Smaller removed counts around one that keep to the block, most given back first."""
    total, block = len(choice.members[g]), choice.block[g]
    least = choice.least[g]
    near = range(max(least, count - AROUND * block), count)
    return [c for c in near if c == least or (total - c) % block == 0]


def _descend(
    choice: _Choice, options: dict[int, list[int]], counts: dict[int, int], price: float
) -> dict[int, int]:
    """Groups take turns at the width of the least loss + price × cost until none moves."""

    def value(trial: dict[int, int], g: int) -> float:
        cost = choice.price(trial)
        return cost if math.isinf(price) else choice.loss(g, trial[g]) + price * cost

    for _ in range(SWEEPS):
        moved = False
        for g in counts:
            now = value(counts, g)
            trials = [{**counts, g: count} for count in options[g]]
            values = [value(trial, g) for trial in trials]
            least = int(np.argmin(values))
            if values[least] < now - 1e-12 * abs(now):
                counts, moved = trials[least], True
        if not moved:
            break
    return counts


def _spend(choice: _Choice, counts: dict[int, int], target: float) -> dict[int, int]:
    """Give channels back while the cost stays within the target: the most loss saved per cost first."""
    while True:
        now, moves = choice.price(counts), []
        for g, count in counts.items():
            for fewer in _given_back(choice, g, count):
                trial = {**counts, g: fewer}
                more = choice.price(trial)
                if more <= target:
                    saved = choice.loss(g, count) - choice.loss(g, fewer)
                    moves.append((saved / max(more - now, 1e-3 * target / len(counts)), g, fewer))
        if not moves:
            return counts
        gain, g, fewer = max(moves, key=lambda m: (m[0], m[2]))
        if gain <= 0 and choice.price({**counts, g: fewer}) > now:
            return _keep_more(choice, counts, target)
        counts = {**counts, g: fewer}


def _keep_more(choice: _Choice, counts: dict[int, int], target: float) -> dict[int, int]:
    """Give channels back that no measured loss speaks for, the same share of every group.

    Where all curves are flat the price of a cost alone decides, and it would take whatever can go: far
    more than was asked for, on the word of curves that say nothing.
    """

    def scaled(share: float) -> dict[int, int]:
        kept_counts = {}
        for g, count in counts.items():
            least, total, block = choice.least[g], len(choice.members[g]), choice.block[g]
            kept = total - least - share * (count - least)
            fewer = total - min(math.ceil(kept / block) * block, total)
            kept_counts[g] = min(max(fewer, least), count)
        return kept_counts

    low, high = 0.0, 1.0  # of what is removed; the higher end fits
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if choice.price(scaled(middle)) <= target else (middle, high)
    if high < 1.0:
        counts = scaled(high)
    for g in sorted(counts, key=lambda g: -counts[g] / len(choice.members[g])):
        for fewer in _given_back(choice, g, counts[g]):
            if choice.price({**counts, g: fewer}) <= target:
                counts = {**counts, g: fewer}
                break
    return counts


def _exchange(choice: _Choice, counts: dict[int, int], target: float) -> dict[int, int]:
    """One group gives channels up and another gets some back, while that lowers the loss."""
    until = len(choice.known) + EXCHANGES
    while len(choice.known) < until:
        now, moves = choice.total(counts), []
        for g, h in itertools.permutations(counts, 2):
            if len(choice.known) >= until:
                break
            for more in (1, 2, 4, 8, 16):
                smaller = {**counts, g: counts[g] + more * choice.block[g]}
                if smaller[g] >= len(choice.members[g]) or choice.price(smaller) > target:
                    continue
                worse = choice.loss(g, smaller[g]) - choice.loss(g, counts[g])
                for fewer in _given_back(choice, h, counts[h]):
                    if choice.loss(h, counts[h]) - choice.loss(h, fewer) <= worse:
                        break
                    trial = {**smaller, h: fewer}
                    if choice.price(trial) <= target:
                        moves.append((choice.total(trial), g, smaller[g], h, fewer))
                        break
        if not moves or min(moves)[0] >= now - 1e-12:
            return counts
        _, g, more, h, fewer = min(moves)
        counts = {**counts, g: more, h: fewer}
    return counts
