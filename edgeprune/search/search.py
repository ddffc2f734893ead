"""The loop over rounds: down to a share that was asked for, or as far as accuracy allows.

With a size or a latency asked for, the shares fall geometrically over the rounds. With
`--max-drop` alone each round goes a step further from the last accepted network, in
predicted milliseconds where they can be had, else in MACs; the first refusal is followed
by one try half-way, and the last accepted network is the result. Selection looks at a
one-sided 90% bound of the paired loss on validation only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.errors import BudgetError
from edgeprune.search.costs import NAMES
from edgeprune.search.goals import Goal, Goals, shares
from edgeprune.search.rounds import run_round
from edgeprune.search.state import SearchState, start
from edgeprune.session.dense import Prepared
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder

SEARCH_SHARES = (0.5, 0.36, 0.26, 0.19, 0.14, 0.1, 0.07, 0.05)  # shares of the dense cost, about ×0.72 each
RETREATS = (0.7, 0.85)  # tried when the first rung is refused


def search(
    prepared: Prepared, goals: Goals, options: Options, folder: RunFolder, clock: Clock
) -> tuple[SearchState, SearchState, list[SearchState]]:
    """The state before any round, the accepted one, and all states tried, in order.

    Args:
        goals: of the budget; none where accuracy alone limits it.

    Raises:
        BudgetError: the budget cannot be met, by the rounds or by accuracy (by structure: see prepare).
    """
    state = start(prepared, options, clock)
    tried: list[SearchState] = []
    if goals:
        return state, _descend(prepared, state, goals, options, folder, clock, tried), tried
    return state, _walk(prepared, state, options, folder, clock, tried), tried


def within_budget(state: SearchState, options: Options) -> bool:
    """Whether the bound on the loss keeps to --max-drop."""
    limit = options.budget.max_drop
    drop = state.record.get("validation_drop")
    return limit is None or drop is None or drop["high"] <= limit


def _descend(
    prepared: Prepared,
    state: SearchState,
    goals: Goals,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    tried: list[SearchState],
) -> SearchState:
    for i in range(1, options.rounds + 1):
        before = state
        step = tuple(replace(g, share=g.share ** (i / options.rounds)) for g in goals)
        last = i == options.rounds
        state = run_round(prepared, state, step, i, options, folder, clock, last=last)
        if state is not before:
            tried.append(state)
            _tell(state, prepared, options, clock)
    left = shares(prepared, state.trace, state.couplings, goals)
    for goal in goals:
        if goal.kind != "ms" and left[goal.kind] > goal.share * (1 + 1e-9):
            raise BudgetError(
                f"{options.budget.asked()}: the rounds came down to {left[goal.kind]:.3g} of the"
                f" {NAMES[goal.kind]} and no further; {goal.share:.3g} is needed",
                tip="ask for less, or try --allocation uniform",
            )
    return state


def _walk(
    prepared: Prepared,
    state: SearchState,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    tried: list[SearchState],
) -> SearchState:
    kind = "macs" if prepared.latency is None else "ms"
    number, accepted_share, refused_share = 0, 1.0, None
    pending = list(SEARCH_SHARES)
    while pending:
        share = pending.pop(0)
        number += 1
        goals = (Goal(kind, share),)
        found = run_round(prepared, state, goals, number, options, folder, clock)
        if found is state:
            if shares(prepared, state.trace, state.couplings, goals)[kind] <= share:  # lossless got there
                continue
            break  # nothing more can go
        tried.append(found)
        _tell(found, prepared, options, clock)
        if within_budget(found, options):
            state, accepted_share = found, share
            if refused_share is not None:
                break
        elif refused_share is None:
            refused_share = share
            pending = [float(np.sqrt(share * accepted_share))] if accepted_share < 1 else list(RETREATS)
        elif accepted_share < 1 or not pending:
            break
    if accepted_share == 1.0 and not state.removed.any():
        best = min(tried, key=lambda s: s.record["validation_drop"]["high"]) if tried else None
        lost = f"; the mildest lost up to {best.record['validation_drop']['high']:.2f} points" if best else ""
        raise BudgetError(
            f"--max-drop {options.budget.max_drop:g}: no smaller network stays within_budget it{lost}",
            tip="allow more, give more data (a larger validation part narrows the bound), or more --epochs",
        )
    return state


def _tell(state: SearchState, prepared: Prepared, options: Options, clock: Clock) -> None:
    drop = state.record.get("validation_drop")
    share = state.record["macs"] / prepared.couplings.macs()
    text = f"round {state.record['round']}: {share:.1%} of the MACs"
    if drop is not None:
        text += f", {drop['value']:+.2f} points lost on validation (at most {drop['high']:.2f})"
        if options.budget.max_drop is not None:
            text += ": within_budget the budget" if within_budget(state, options) else ": over the budget"
    clock.progress.note(text)
