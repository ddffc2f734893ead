"""The loop over rounds: down to a share that was asked for, or as far as accuracy allows.

With a size or a latency asked for, the shares fall geometrically over the rounds. With `--max-drop` alone
each round goes a step further from the last accepted network, in predicted milliseconds if a latency model
exists, else in MACs; the first refusal is followed by one try half-way, and the last accepted network is
the result. Networks are judged by one-sided bounds of the paired loss on validation, which decides nothing
else, at levels under which the search as a whole accepts a network beyond the budget with at most 10%
(tasks.bounds_sequence; 2.5% of these are kept for the 8-bit form).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgeprune.errors import BudgetError
from edgeprune.masks import Mask
from edgeprune.search.costs import NAMES
from edgeprune.search.goals import Goal, Goals, shares
from edgeprune.search.lossless_round import start
from edgeprune.search.rounds import run_round
from edgeprune.search.state import SearchState
from edgeprune.session.context import RunContext
from edgeprune.session.dense import DenseNetwork, latency_of
from edgeprune.session.options import Options
from edgeprune.tasks.bounds_sequence import LadderTest

SEARCH_SHARES = (0.5, 0.36, 0.26, 0.19, 0.14, 0.1, 0.07, 0.05)  # of the dense cost, about ×0.72 each
RETREATS = (0.85, 0.7)  # tried when the first share is refused, mild to strong


LEVEL = 0.9  # one-sided, of everything that is judged on the validation part
INT8_ERROR = 0.025  # share of 1 − LEVEL that judges 8-bit forms


def float_level(options: Options) -> float:
    """One-sided level at which float networks are judged."""
    return LEVEL if options.int8 == "off" else LEVEL + INT8_ERROR


@dataclass(frozen=True)
class SearchResult:
    """The network before any scored round, the accepted one, and all that were tried, in order."""

    first: SearchState
    accepted: SearchState
    tried: list[SearchState] = field(default_factory=list)


def search(dense: DenseNetwork, goals: Goals, run: RunContext, *, mask: Mask | None = None) -> SearchResult:
    """Find the network that the budget allows.

    Args:
        goals: of the budget; empty if accuracy alone limits it.

    Raises:
        BudgetError: the budget cannot be met, by the rounds or by accuracy (by structure: see prepare).
    """
    first = start(dense, run.options, run.clock, mask=mask)
    tried: list[SearchState] = []
    accepted = _descend(dense, first, goals, run, tried) if goals else _walk(dense, first, run, tried)
    return SearchResult(first, accepted, tried)


def within_budget(state: SearchState, options: Options) -> bool:
    """Whether the bound on the loss meets --max-drop."""
    limit, drop = options.budget.max_drop, state.record.drop
    return limit is None or drop is None or drop.high <= limit


def _descend(
    dense: DenseNetwork, state: SearchState, goals: Goals, run: RunContext, tried: list[SearchState]
) -> SearchState:
    """Geometric steps down to the goals."""
    rounds = run.options.rounds
    for number in range(1, rounds + 1):
        before = state
        step = tuple(replace(g, share=g.share ** (number / rounds)) for g in goals)
        state = run_round(
            dense, state, step, number, run, last=number == rounds, level=2 * float_level(run.options) - 1
        )
        if state is not before:
            tried.append(state)
            _report(state, dense, run)
    reached = shares(dense, state.trace, state.couplings, goals)
    for goal in goals:
        if goal.kind != "ms" and reached[goal.kind] > goal.share * (1 + 1e-9):
            raise BudgetError(
                f"{run.options.budget.asked()}: the rounds came down to {reached[goal.kind]:.3g} of the"
                f" {NAMES[goal.kind]} and no further; {goal.share:.3g} is needed",
                tip="ask for less, or try --allocation uniform",
            )
    return state


def _walk(dense: DenseNetwork, state: SearchState, run: RunContext, tried: list[SearchState]) -> SearchState:
    """Step by step as far as --max-drop allows, at one level for the search as a whole."""
    kind = "macs" if latency_of(dense) is None else "ms"
    ladder = LadderTest(SEARCH_SHARES, retreats=RETREATS, level=float_level(run.options))
    number = 0
    while trial := ladder.next():
        number += 1
        goals = (Goal(kind, trial.share),)
        candidate = run_round(dense, state, goals, number, run, level=trial.interval_level)
        if candidate is state:
            if shares(dense, state.trace, state.couplings, goals)[kind] <= trial.share:
                ladder.skip()  # the lossless round was enough
                continue
            ladder.stop()  # nothing more can go
            break
        tried.append(candidate)
        _report(candidate, dense, run)
        accepted = within_budget(candidate, run.options)
        ladder.record(accepted)
        if accepted:
            state = candidate
    if ladder.accepted == 1.0 and not state.removed.any():
        raise _refused(tried, run.options)
    return state


def _refused(tried: list[SearchState], options: Options) -> BudgetError:
    """No network that was tried meets --max-drop."""
    losses = [(s.record.drop.high, s.record.unit) for s in tried if s.record.drop is not None]
    least = min(losses, default=None)
    lost = f"; the mildest lost up to {least[0]:.2f} {least[1]}" if least else ""
    return BudgetError(
        f"--max-drop {options.budget.max_drop:g}: no smaller network stays within it{lost}",
        tip="allow more, give more data (a larger validation part narrows the bound), or more --epochs",
    )


def _report(state: SearchState, dense: DenseNetwork, run: RunContext) -> None:
    record = state.record
    text = f"round {record.round}: {record.macs / dense.couplings.macs():.1%} of the MACs"
    if record.drop is not None:
        text += (
            f", {record.drop.value:+.2f} {record.unit} lost on validation (at most {record.drop.high:.2f})"
        )
        if run.options.budget.max_drop is not None:
            text += ": within the budget" if within_budget(state, run.options) else ": over the budget"
    run.progress.note(text)
