"""What a run can say of a target that was not timed, and which timing calls it made at all.

    target_estimate(...)   the labelled number for dense and shipped: a roofline, instructions, a profile
    timing(...)            what was timed while planning, what at the end, and on which machine
    planned(...)           predicted against measured, of every file that was planned and timed

Guarantee: an estimate carries its unit and is never called a time; without a board of the target nothing
is timed while planning. Elsewhere: the predictions themselves (latency), what planning uses (latencies).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune.coupling.components import RemovalCost
from edgeprune.latency import roofline
from edgeprune.records import BenchResult
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.latency_model import unit_of
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Options
from edgeprune.store import RunFolder

SHARES = ("asked", "predicted", "measured")


def target_estimate(
    prepared: Prepared, final: SearchState, board: MeasurementTarget
) -> dict[str, Any] | None:
    """Estimates for the target of the dense and the shipped network; None where the target was timed.

    What planning saw, where it looked at latency, else a roofline. 8 bits are not in it.
    """
    if board.measures_target or not board.described:
        return None
    networks = ((prepared.trace, prepared.couplings), (final.trace, final.couplings))
    costs: list[RemovalCost]
    if prepared.latency is not None:
        costs = [prepared.latency.predict(*network) for network in networks]
        unit, source = unit_of(costs[0]), prepared.latency.source
    else:
        found = [roofline(board.target, *network) for network in networks]
        costs, unit, source = [*found], found[0].unit, found[0].source
    dense, shipped = (
        float(cost(np.zeros(couplings.count, bool)))
        for cost, (_, couplings) in zip(costs, networks, strict=True)
    )
    return {"unit": unit, "source": source, "dense": dense, "shipped": shipped}


def timing(
    prepared: Prepared, tried: list[SearchState], options: Options, folder: RunFolder, board: MeasurementTarget,
    bench: BenchResult,
) -> dict[str, Any]:  # fmt: skip
    """What was timed while planning, and what the final table was timed on; with the sentence for it."""
    planning = []
    if prepared.latency is not None and prepared.latency.basis == "measured" and options.profile is None:
        planning.append("layers at many widths")
    if folder.load("staircase") is not None:
        planning.append("small convolutions for the alignment")
    timer = None if prepared.latency is None else prepared.latency.timer
    if timer is not None and (options.budget.timed or options.profile is not None):
        planning.append("the dense file")
    files = sum(len(state.record.get("timed") or ()) for state in tried)
    if files:
        planning.append(f"{files} whole file{'s' if files > 1 else ''} that corrected the plan")
    where = machine_of(bench)
    on_target = board.measures_target
    said = f"timed while planning: {', '.join(planning) or 'nothing'}"
    if bench.ratios:
        said += f"; the final table was timed on {where}" + ("" if on_target else ", not the target")
    else:
        said += f"; the final files were not timed: {bench.device or where} is an emulator"
    return {
        "planning": planning,
        "final": where if bench.ratios else None,
        "on_target": on_target,
        "text": said,
    }


def machine_of(bench: BenchResult) -> str:
    """The machine that files were timed on, with its name for ssh where it has one."""
    where = str(bench.machine["board"] or bench.machine["processor"])
    return f"{bench.device} ({where})" if bench.device else where


def planned(tried: list[SearchState], front: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Share of the dense time, predicted and measured, of every planned file that was timed.

    Files that corrected a plan in their order, then those of the front; measured where `timing` says.
    """
    rows: list[dict[str, Any]] = []
    for state in tried:
        record: Mapping[str, Any] = state.record
        rows += [
            {"name": f"round {record['round']}, try {i}{_of(t)}", **{k: t[k] for k in SHARES}}
            for i, t in enumerate(record.get("timed") or (), 1)
        ]
    rows += [
        {"name": p["name"], "asked": None, "predicted": p["predicted"], "measured": p["ratio"]}
        for p in front
        if p["predicted"] is not None and p["ratio"] is not None
    ]
    return rows


def _of(timed: Mapping[str, Any]) -> str:
    """Which percentile was compared, where that is not the median."""
    found = timed.get("percentile", 50)
    return "" if found == 50 else f", {found}th percentile"
