"""From a budget to what the rounds aim at: shares of the dense network in each kind of cost.

A kind is MACs, parameters or predicted milliseconds. Several goals hold at once: planning
sees the one that is farthest from being met. Elsewhere: where the prediction of
milliseconds comes from (latencies), how a removal is chosen (planning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings, RemovalCost
from edgeprune.errors import BudgetError
from edgeprune.graph.trace import Trace
from edgeprune.search.costs import NAMES, parameters, refuse_below_floor, size_cost
from edgeprune.session.budget import Budget, option
from edgeprune.session.dense import Prepared
from edgeprune.session.latency_model import unit_of


@dataclass(frozen=True)
class Goal:
    """What a round aims at: a cost ("macs", "params" or "ms") as a share of the dense network's.

    `tail`: the milliseconds are a 99th percentile; the prediction, of medians, is corrected by it.
    """

    kind: str
    share: float
    tail: bool = False


Goals = tuple[Goal, ...]


def goals_of(prepared: Prepared, budget: Budget) -> Goals:
    """The goals of a budget, the tightest of each kind.

    Raises:
        BudgetError: one lies below what structure allows; the floor is printed.
    """
    found: list[tuple[Goal, str]] = []
    if budget.macs is not None:
        found.append((Goal("macs", budget.macs), f"--macs {budget.macs:.3g}"))
    if budget.params is not None:
        found.append((Goal("params", budget.params), f"--params {budget.params:.3g}"))
    if budget.size_mb is not None:
        found.append((_size_goal(prepared, budget.size_mb), f"--size-mb {budget.size_mb:g}"))
    if budget.speedup is not None:
        found.append((Goal("ms", 1 / budget.speedup), f"--speedup {budget.speedup:g}"))
    for name, tail in (("target_ms", False), ("deadline_ms", True)):
        value = getattr(budget, name)
        if value is not None:
            assert prepared.latency is not None
            whole = prepared.latency.dense_p99_ms if tail else prepared.latency.dense_ms
            assert whole is not None
            found.append((Goal("ms", value / whole, tail), f"{option(name)} {value:g}"))
    goals = []
    for kind in NAMES:
        same = [pair for pair in found if pair[0].kind == kind]
        if same:
            goal, text = min(same, key=lambda pair: pair[0].share)
            _refuse_below_floor(prepared, goal, text)
            goals.append(replace(goal, share=min(goal.share, 1.0)))
    return tuple(goals)


def _refuse_below_floor(prepared: Prepared, goal: Goal, text: str) -> None:
    """As costs.refuse_below_floor; a floor in estimated milliseconds is called that."""
    cost = price(prepared, goal.kind, prepared.trace, prepared.couplings)
    try:
        refuse_below_floor(cost, prepared.couplings, goal.share, text, goal.kind)
    except BudgetError as error:
        if goal.kind != "ms" or prepared.latency is None or prepared.latency.timer is not None:
            raise
        unit = unit_of(cost)
        raise BudgetError(
            f"{error.message}; this is of {unit}, the target was not timed",
            tip=f"in {unit}, {error.tip}",
        ) from None


def price(prepared: Prepared, kind: str, traced: Trace, couplings: Couplings) -> RemovalCost:
    """The cost of a removal from a network on the way, in the unit of its kind."""
    if kind != "ms":
        return size_cost(traced, couplings, kind)
    assert prepared.latency is not None
    return prepared.latency.predict(traced, couplings)


def dense_price(prepared: Prepared, kind: str) -> float:
    """What the dense network costs."""
    if kind == "params":
        return parameters(prepared.trace)
    if kind == "macs":
        return prepared.couplings.macs()
    return price(prepared, kind, prepared.trace, prepared.couplings)(np.zeros(prepared.couplings.count, bool))


def shares(prepared: Prepared, traced: Trace, couplings: Couplings, goals: Goals) -> dict[str, float]:
    """Share of the dense cost that a network has, per kind of goal."""
    nothing = np.zeros(couplings.count, bool)
    return {
        g.kind: price(prepared, g.kind, traced, couplings)(nothing) / dense_price(prepared, g.kind)
        for g in goals
    }


def joint(prepared: Prepared, traced: Trace, couplings: Couplings, goals: Goals) -> RemovalCost:
    """Cost of a removal against all goals at once: 1 or less when every one is met."""
    parts: list[tuple[Callable[[BoolArray], float], float]] = [
        (price(prepared, g.kind, traced, couplings), g.share * dense_price(prepared, g.kind)) for g in goals
    ]
    return lambda removed: max(cost(removed) / allowed for cost, allowed in parts)


def _size_goal(prepared: Prepared, size_mb: float) -> Goal:
    """Parameters that fit: what leaves the file is four bytes a parameter, its graph stays."""
    assert prepared.file is not None
    count = parameters(prepared.trace)
    share = 1 - (prepared.file.bytes - size_mb * 1e6) / (4 * count)
    if share <= 0:
        raise BudgetError(
            f"--size-mb {size_mb:g}: the file's graph alone takes"
            f" {(prepared.file.bytes - 4 * count) / 1e6:.3g} MB",
            tip="ask for more",
        )
    return Goal("params", share)
