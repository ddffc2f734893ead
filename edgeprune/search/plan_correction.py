"""Correct a plan by timing whole models until the measured share of the dense time is the one asked for.

The aim, in predicted terms, is moved by what the prediction was off. Where a step of the staircase lies
at the goal, that finds plans on both sides and none between. Then the groups that the nearest faster
plan cuts deeper than the nearest slower one go over to the slower one's widths, half of them at a time:
this finds the group that makes the step. It is held, and what is left of the time goes to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray

CORRECTIONS, SEARCH, FILLED = 4, 4, 2  # timings of whole models at most: of each of the three ways
TIMINGS = CORRECTIONS + SEARCH + FILLED
CLOSE = 0.02  # measured over asked that is good enough


@dataclass(frozen=True)
class TimedPlan:
    """A removal, and its share of the dense latency as measured and as predicted."""

    measured: float
    predicted: float
    removed: BoolArray


Choose = Callable[[float, BoolArray | None], BoolArray]
TimePlan = Callable[[BoolArray, int], TimedPlan]


def correct_plan(
    asked: float,
    choose: Choose,
    measure: TimePlan,
    group: npt.NDArray[np.int32] | None,
    allowed: Callable[[BoolArray], bool],
) -> tuple[TimedPlan, list[TimedPlan]]:
    """The slowest plan measured that keeps to the goal (else the fastest), and all that were measured.

    Args:
        asked: the share of the dense latency.
        choose: gives the removal for a predicted share and components that go in any case.
        measure: of a removal and the number of this timing, from 1.
        group: of each component; None where the groups may not be told apart (the uniform control).
        allowed: whether a removal keeps to the other goals; what `choose` gives does.
    """
    tried: list[TimedPlan] = []

    def close(removed: BoolArray) -> bool:
        """Whether this removal was measured before (then nothing is), or is near enough."""
        if any(np.array_equal(removed, t.removed) for t in tried):
            return True
        tried.append(measure(removed, len(tried) + 1))
        return abs(tried[-1].measured / asked - 1) <= CLOSE

    aim = asked
    for _ in range(CORRECTIONS):
        if close(choose(aim, None)):
            break
        again = _next_aim(asked, tried)
        if abs(again / aim - 1) < CLOSE / 4:
            break
        aim = again
    slow, fast = _nearest(asked, tried)
    if group is not None and slow and fast and all(abs(t.measured / asked - 1) > CLOSE for t in tried):
        _cross(asked, slow, fast, choose, close, tried, group, allowed)
    fits = [t for t in tried if t.measured <= asked * (1 + CLOSE)]
    best = max(fits, key=lambda t: t.measured) if fits else min(tried, key=lambda t: t.measured)
    return best, tried


def _cross(
    asked: float,
    slow: TimedPlan,
    fast: TimedPlan,
    choose: Choose,
    close: Callable[[BoolArray], bool],
    tried: list[TimedPlan],
    group: npt.NDArray[np.int32],
    allowed: Callable[[BoolArray], bool],
) -> None:
    """Find the group of the step between two plans, hold it, and give the others what is left."""
    size = int(group.max()) + 1
    cuts = [np.bincount(group[t.removed], minlength=size) for t in (fast, slow)]
    deeper = np.flatnonzero(cuts[0] > cuts[1])
    if not len(deeper):
        return
    below, above = 0, len(deeper)  # of these groups that many may be as in the slower plan; that many not
    for _ in range(SEARCH):
        if above - below <= 1:
            break
        middle = (below + above) // 2
        wide = np.isin(group, deeper[:middle])
        between = np.where(wide, slow.removed & fast.removed, fast.removed)
        if not allowed(between) or close(between):
            return
        below, above = (middle, above) if tried[-1].measured <= asked else (below, middle)
    held = fast.removed & np.isin(group, deeper[below:above])
    for _ in range(FILLED):
        with_it = [t for t in tried if (t.removed >= held).all()]
        if close(choose(_next_aim(asked, with_it), held)):
            return


def _nearest(asked: float, tried: list[TimedPlan]) -> tuple[TimedPlan | None, TimedPlan | None]:
    """The plans next to the goal: of those slower than asked, and of the others."""
    slow = min((t for t in tried if t.measured > asked), key=lambda t: t.measured, default=None)
    return slow, max((t for t in tried if t.measured <= asked), key=lambda t: t.measured, default=None)


def _next_aim(asked: float, tried: list[TimedPlan]) -> float:
    """What to aim at in predicted terms: between the nearest plans on both sides, else scaled by the error.

    Scaling alone swings from one side to the other where a step of the staircase lies at the goal.
    """
    slow, fast = _nearest(asked, tried)
    if slow and fast:
        part = (asked - fast.measured) / (slow.measured - fast.measured)
        return fast.predicted + (slow.predicted - fast.predicted) * part
    only = slow or fast
    assert only is not None
    return only.predicted * asked / only.measured
