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
from edgeprune.session.dense import DenseNetwork, ExportedDense, latency_of
from edgeprune.session.latency_model import latency_unit


@dataclass(frozen=True)
class Goal:
    """What a round aims at: a cost ("macs", "params" or "ms") as a share of the dense network's.

    `tail`: the milliseconds are a 99th percentile; the prediction, of medians, is corrected by it.
    """

    kind: str
    share: float
    tail: bool = False


Goals = tuple[Goal, ...]


def goals_of(dense: DenseNetwork, budget: Budget) -> Goals:
    """The goals of a budget, the tightest of each kind.

    Raises:
        BudgetError: one lies below what structure allows; the floor is printed.
    """
    goals_with_option: list[tuple[Goal, str]] = []
    if budget.macs is not None:
        goals_with_option.append((Goal("macs", budget.macs), f"--macs {budget.macs:.3g}"))
    if budget.params is not None:
        goals_with_option.append((Goal("params", budget.params), f"--params {budget.params:.3g}"))
    if budget.size_mb is not None:
        goals_with_option.append((_size_goal(dense, budget.size_mb), f"--size-mb {budget.size_mb:g}"))
    if budget.speedup is not None:
        goals_with_option.append((Goal("ms", 1 / budget.speedup), f"--speedup {budget.speedup:g}"))
    for name, tail in (("target_ms", False), ("deadline_ms", True)):
        value = getattr(budget, name)
        if value is not None:
            goals_with_option.append(
                (Goal("ms", value / _dense_ms(dense, name, tail=tail), tail), f"{option(name)} {value:g}")
            )
    goals = []
    for kind in NAMES:
        same = [pair for pair in goals_with_option if pair[0].kind == kind]
        if same:
            goal, text = min(same, key=lambda pair: pair[0].share)
            _refuse_below_floor(dense, goal, text)
            goals.append(replace(goal, share=min(goal.share, 1.0)))
    return tuple(goals)


def _refuse_below_floor(dense: DenseNetwork, goal: Goal, text: str) -> None:
    """As costs.refuse_below_floor; a floor in estimated milliseconds is called that."""
    cost = price(dense, goal.kind, dense.trace, dense.couplings)
    try:
        refuse_below_floor(cost, dense.couplings, goal.share, text, goal.kind)
    except BudgetError as error:
        model = latency_of(dense)
        if goal.kind != "ms" or model is None or model.timer is not None:
            raise
        unit = latency_unit(cost)
        raise BudgetError(
            f"{error.message}; this is of {unit}, the target was not timed",
            tip=f"in {unit}, {error.tip}",
        ) from None


def price(dense: DenseNetwork, kind: str, traced: Trace, couplings: Couplings) -> RemovalCost:
    """The cost of a removal from a network on the way, in the unit of its kind."""
    if kind != "ms":
        return size_cost(traced, couplings, kind)
    model = latency_of(dense)
    if model is None:
        raise BudgetError("a latency was asked for and no latency model is there", tip="use --macs instead")
    return model.predict(traced, couplings)


def dense_price(dense: DenseNetwork, kind: str) -> float:
    """What the dense network costs."""
    if kind == "params":
        return parameters(dense.trace)
    if kind == "macs":
        return dense.couplings.macs()
    return price(dense, kind, dense.trace, dense.couplings)(np.zeros(dense.couplings.count, bool))


def shares(dense: DenseNetwork, traced: Trace, couplings: Couplings, goals: Goals) -> dict[str, float]:
    """Share of the dense cost that a network has, per kind of goal."""
    nothing = np.zeros(couplings.count, bool)
    return {
        g.kind: price(dense, g.kind, traced, couplings)(nothing) / dense_price(dense, g.kind) for g in goals
    }


def joint(dense: DenseNetwork, traced: Trace, couplings: Couplings, goals: Goals) -> RemovalCost:
    """Cost of a removal against all goals at once: 1 or less when every one is met."""
    parts: list[tuple[Callable[[BoolArray], float], float]] = [
        (price(dense, g.kind, traced, couplings), g.share * dense_price(dense, g.kind)) for g in goals
    ]
    return lambda removed: max(cost(removed) / allowed for cost, allowed in parts)


def _dense_ms(dense: DenseNetwork, budget: str, *, tail: bool) -> float:
    """The dense file's median latency, or its 99th percentile."""
    model = latency_of(dense)
    value = None if model is None else model.dense_p99_ms if tail else model.dense_ms
    if value is None:
        raise BudgetError(f"{option(budget)}: the dense model was not timed", tip="use --speedup or --macs")
    return value


def _size_goal(dense: DenseNetwork, size_mb: float) -> Goal:
    """Parameters that fit: what leaves the file is four bytes a parameter, its graph stays."""
    if not isinstance(dense, ExportedDense):
        raise BudgetError(f"--size-mb {size_mb:g}: only `compress` writes an ONNX file", tip="use --params")
    count = parameters(dense.trace)
    share = 1 - (dense.artifact.bytes - size_mb * 1e6) / (4 * count)
    if share <= 0:
        raise BudgetError(
            f"--size-mb {size_mb:g}: the file's graph alone takes"
            f" {(dense.artifact.bytes - 4 * count) / 1e6:.3g} MB",
            tip="ask for more",
        )
    return Goal("params", share)
