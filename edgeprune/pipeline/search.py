"""The loop over rounds: down to a share that was asked for, or as far as accuracy allows.

With `--macs` or `--params` the shares fall geometrically over the rounds. With
`--max-drop` alone each round goes a step further from the last accepted network; the
first refusal is followed by one try half-way, and the last accepted network is the
result. Selection looks at a one-sided 90% bound of the paired loss on validation only.
"""

from __future__ import annotations

import numpy as np

from edgeprune.errors import BudgetError
from edgeprune.pipeline.costs import whole
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.rounds import State, Target, run_round, start
from edgeprune.store import RunFolder

LADDER = (0.5, 0.36, 0.26, 0.19, 0.14, 0.1, 0.07, 0.05)  # shares of the dense MACs, about ×0.72 each
RETREATS = (0.7, 0.85)  # tried when the first rung is refused


def search(
    prepared: Prepared, options: Options, folder: RunFolder, clock: Clock
) -> tuple[State, list[State]]:
    """The accepted state and all states tried, in order.

    Raises:
        BudgetError: the budget cannot be met, by the rounds or by accuracy (by structure: see prepare).
    """
    state = start(prepared, options, clock)
    budget = options.budget
    targets = [Target(k, s) for k, s in (("macs", budget.macs), ("params", budget.params)) if s is not None]
    tried: list[State] = []
    if targets:
        return _descend(prepared, state, targets, options, folder, clock, tried), tried
    return _walk(prepared, state, options, folder, clock, tried), tried


def within(state: State, options: Options) -> bool:
    """Whether the bound on the loss keeps to --max-drop."""
    limit = options.budget.max_drop
    drop = state.record.get("validation_drop")
    return limit is None or drop is None or drop["high"] <= limit


def _descend(
    prepared: Prepared,
    state: State,
    targets: list[Target],
    options: Options,
    folder: RunFolder,
    clock: Clock,
    tried: list[State],
) -> State:
    number = 0
    for target in targets:
        for i in range(1, options.rounds + 1):
            number += 1
            share = target.share ** (i / options.rounds)
            before = state
            state = run_round(prepared, state, Target(target.kind, share), number, options, folder, clock)
            if state is not before:
                tried.append(state)
                _tell(state, prepared, options, clock)
    for target in targets:
        dense = whole(prepared.trace, prepared.couplings, target.kind)
        left = whole(state.trace, state.couplings, target.kind) / dense
        if left > target.share * (1 + 1e-9):
            raise BudgetError(
                f"--{target.kind} {target.share:.3g}: the rounds came down to {left:.3g} and no further",
                tip=f"use --{target.kind} {left + 0.005:.2f} or more, or --allocation uniform",
            )
    return state


def _walk(
    prepared: Prepared,
    state: State,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    tried: list[State],
) -> State:
    number, accepted_share, refused_share = 0, 1.0, None
    pending = list(LADDER)
    while pending:
        share = pending.pop(0)
        number += 1
        found = run_round(prepared, state, Target("macs", share), number, options, folder, clock)
        if found is state:
            dense = whole(prepared.trace, prepared.couplings, "macs")
            if whole(state.trace, state.couplings, "macs") <= share * dense:  # lossless rounds got there
                continue
            break  # nothing more can go
        tried.append(found)
        _tell(found, prepared, options, clock)
        if within(found, options):
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
            f"--max-drop {options.budget.max_drop:g}: no smaller network stays within it{lost}",
            tip="allow more, give more data (a larger validation part narrows the bound), or more --epochs",
        )
    return state


def _tell(state: State, prepared: Prepared, options: Options, clock: Clock) -> None:
    drop = state.record.get("validation_drop")
    share = state.record["macs"] / prepared.couplings.macs()
    text = f"round {state.record['round']}: {share:.1%} of the MACs"
    if drop is not None:
        text += f", {drop['value']:+.2f} points lost on validation (at most {drop['high']:.2f})"
        if options.budget.max_drop is not None:
            text += ": within the budget" if within(state, options) else ": over the budget"
    clock.progress.note(text)
