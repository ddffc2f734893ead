"""What a report can say of a target that was not timed, and what was timed at all.

    target_estimate(...)   the labelled number for dense and shipped: a roofline, instructions, a profile
    timing_summary(...)    what was timed while planning, what at the end, and on which machine
    planned_shares(...)    predicted against measured, of every file that was planned and timed

Guarantee: an estimate carries its unit and is never called a time; without a board of the target nothing
is timed while planning.
Elsewhere: the predictions themselves (latency), the one that planning uses (session.latency_model).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.coupling.components import RemovalCost
from edgeprune.latency import roofline
from edgeprune.records import BenchResult
from edgeprune.records.report import Estimate, FrontRow, PlannedShare, TimingSummary
from edgeprune.search.state import SearchState
from edgeprune.session.context import RunContext
from edgeprune.session.dense import DenseNetwork, latency_of
from edgeprune.session.latency_model import latency_unit


def target_estimate(dense: DenseNetwork, final: SearchState, run: RunContext) -> Estimate | None:
    """Estimates for the target of the dense and the shipped network; None if the target was timed.

    What planning used, if it looked at latency, else a roofline. 8 bits are not included.
    """
    if run.target.measures_target or not run.target.described:
        return None
    networks = ((dense.trace, dense.couplings), (final.trace, final.couplings))
    model = latency_of(dense)
    costs: list[RemovalCost]
    if model is not None:
        costs = [model.predict(*network) for network in networks]
        unit, source = latency_unit(costs[0]), model.source
    else:
        rooflines = [roofline(run.target.descriptor, *network) for network in networks]
        costs, unit, source = [*rooflines], rooflines[0].unit, rooflines[0].source
    before, after = (
        float(cost(np.zeros(couplings.count, bool)))
        for cost, (_, couplings) in zip(costs, networks, strict=True)
    )
    return Estimate(unit, source, before, after)


def timing_summary(
    dense: DenseNetwork, tried: Sequence[SearchState], run: RunContext, bench: BenchResult
) -> TimingSummary:
    """What was timed while planning, and what the final table was timed on, with the sentence for it."""
    options, model = run.options, latency_of(dense)
    planning = []
    if model is not None and model.basis == "measured" and options.profile is None:
        planning.append("layers at many widths")
    if run.folder.load("staircase") is not None:
        planning.append("small convolutions for the alignment")
    timer = None if model is None else model.timer
    if timer is not None and (options.budget.timed or options.profile is not None):
        planning.append("the dense file")
    files = sum(len(state.record.timed) for state in tried)
    if files:
        planning.append(f"{files} whole file{'s' if files > 1 else ''} that corrected the plan")
    where, on_target = machine_of(bench), run.target.measures_target
    text = f"timed while planning: {', '.join(planning) or 'nothing'}"
    if bench.ratios:
        text += f"; the final table was timed on {where}" + ("" if on_target else ", not the target")
    else:
        text += f"; the final files were not timed: {bench.board or where} is an emulator"
    return TimingSummary(tuple(planning), where if bench.ratios else None, on_target, text)


def machine_of(bench: BenchResult) -> str:
    """The machine that files were timed on, with its ssh name if it has one."""
    where = str(bench.machine["board"] or bench.machine["processor"])
    return f"{bench.board} ({where})" if bench.board else where


def planned_shares(tried: Sequence[SearchState], front: Sequence[FrontRow]) -> tuple[PlannedShare, ...]:
    """Share of the dense time, predicted and measured, of every planned file that was timed.

    Files that corrected a plan in their order, then those of the front; measured where `timing` says.
    """
    rows = []
    for state in tried:
        for i, timed in enumerate(state.record.timed, 1):
            percentile = "" if timed.percentile == 50 else f", {timed.percentile}th percentile"
            name = f"round {state.record.round}, try {i}{percentile}"
            rows.append(PlannedShare(name, timed.asked, timed.predicted, timed.measured))
    rows += [
        PlannedShare(row.name, None, row.predicted, row.ratio)
        for row in front
        if row.predicted is not None and row.ratio is not None
    ]
    return tuple(rows)
