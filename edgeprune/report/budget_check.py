"""Whether a finished run kept to its budget, by what was measured of the shipped file.

Guarantee: a budget that was missed is never reported as met; one that nobody could measure (a target
that is not at hand) is said to be unmeasured. Elsewhere: planning for it (plans), the search (search).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.pareto.proof import Delivery
from edgeprune.records import to_json
from edgeprune.search.plan_correction import CLOSE
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.latency_model import unit_of
from edgeprune.session.options import Options


def missed(final: SearchState, made: Delivery, options: Options) -> list[str]:
    """One line per budget that the shipped file does not keep to; empty when all is well.

    Latencies count as missed when the whole interval lies beyond what was asked, by more than planning
    itself allows (2%).
    """
    budget, found = options.budget, list[str]()
    drop = lost(final, made)
    if budget.max_drop is not None and drop is not None and drop["high"] > budget.max_drop:
        found.append(
            f"--max-drop {budget.max_drop:g}: {drop['value']:.2f} points were lost on validation"
            f" (up to {drop['high']:.2f} at 90% confidence)"
        )
    if budget.size_mb is not None and made.shipped.bytes > budget.size_mb * 1e6:
        found.append(f"--size-mb {budget.size_mb:g}: the file has {made.shipped.bytes / 1e6:.3g} MB")
    if not made.on_target or not made.bench.ratios:
        return found
    ratio, shipped = made.bench.ratios[0].ratio, made.bench.models[1]
    if budget.speedup is not None and ratio.low > (1 + CLOSE) / budget.speedup:
        found.append(f"--speedup {budget.speedup:g}: the file is {1 / ratio.value:.2f} times as fast")
    for name, asked, time in (
        ("target", budget.target_ms, shipped.p50_ms),
        ("deadline", budget.deadline_ms, shipped.p99_ms),
    ):
        if asked is not None and time is not None and time.low > asked * (1 + CLOSE):
            what = "median" if name == "target" else "99th percentile"
            found.append(f"--{name}-ms {asked:g}: the {what} is {time.value:.3g} ms")
    return found


def unmeasured(made: Delivery, options: Options) -> list[str]:
    """Latency budgets that no measurement stands behind."""
    budget = options.budget
    if not budget.timed:
        return []
    if not made.on_target or not made.bench.ratios:
        return [f"{budget.asked()}: planned for {made.target.name}, not measured there"]
    if budget.deadline_ms is not None and made.bench.models[1].p99_ms is None:
        return [f"--deadline-ms {budget.deadline_ms:g}: too few samples for a 99th percentile"]
    return []


def lost(final: SearchState, made: Delivery) -> Mapping[str, float] | None:
    """Points lost on validation: of the 8-bit file where that is shipped, else of the network."""
    eight = next((row["drop"] for row in made.front if row["chosen"] and row["int8"]), None)
    found: Mapping[str, float] | None = final.record.get("validation_drop")
    return found if eight is None else to_json(eight)


def nothing_removed(
    prepared: Prepared, final: SearchState, tried: list[SearchState], options: Options
) -> list[str]:
    """Why a run with a size or a latency to reach shipped the network as it was: it was there already."""
    budget = options.budget
    if tried or not budget.sized:
        return []
    said = f"{budget.asked()}: nothing had to be removed, the network is within it as it is"
    if not budget.timed or prepared.latency is None:
        return [said]
    cost = prepared.latency.predict(final.trace, final.couplings)
    value = cost(np.zeros(final.couplings.count, bool))
    if prepared.latency.timer is not None:
        return [f"{said}: {prepared.latency.dense_ms:.3g} ms measured of the dense file"]
    return [f"{said}, by an estimate: {value:.3g} {unit_of(cost)}, not measured on the target"]
