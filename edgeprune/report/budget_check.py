"""Whether a finished run met its budget, by what was measured of the shipped file.

Guarantee: a budget that was missed is never reported as met; one that could not be measured (the target is
not connected) is reported as unmeasured. Elsewhere: planning for it (search.plans), the search (search).
"""

from __future__ import annotations

import numpy as np

from edgeprune.pareto.proof import Proof
from edgeprune.pareto.select_artifact import ArtifactSelection
from edgeprune.records import Interval
from edgeprune.search.plan_correction import CLOSE
from edgeprune.search.state import SearchState
from edgeprune.session.context import RunContext
from edgeprune.session.dense import ExportedDense
from edgeprune.session.latency_model import latency_unit
from edgeprune.session.options import Options


def missed(dense: ExportedDense, final: SearchState, proof: Proof, run: RunContext) -> list[str]:
    """One line per budget that the shipped file does not meet; empty when all is well.

    A latency counts as missed when its whole interval lies beyond what was asked, by more than planning
    itself allows (2%).
    """
    budget, lines = run.options.budget, list[str]()
    drop = _lost(final, proof)
    if budget.max_drop is not None and drop is not None and drop.high > budget.max_drop:
        # of several outputs the one that decides has a unit of its own, which the round recorded
        lines.append(
            f"--max-drop {budget.max_drop:g}: {drop.value:.2f} {final.record.unit} were lost on validation"
            f" (up to {drop.high:.2f}, one-sided {50 + 50 * drop.level:.3g}% bound)"
        )
    if budget.size_mb is not None and proof.shipped.bytes > budget.size_mb * 1e6:
        lines.append(f"--size-mb {budget.size_mb:g}: the file has {proof.shipped.bytes / 1e6:.3g} MB")
    if not run.target.measures_target or not proof.bench.ratios:
        return lines
    ratio, shipped = proof.bench.ratios[0].ratio, proof.bench.models[1]
    if budget.speedup is not None and ratio.low > (1 + CLOSE) / budget.speedup:
        lines.append(f"--speedup {budget.speedup:g}: the file is {1 / ratio.value:.2f} times as fast")
    for name, asked, time in (
        ("target", budget.target_ms, shipped.p50_ms),
        ("deadline", budget.deadline_ms, shipped.p99_ms),
    ):
        if asked is not None and time is not None and time.low > asked * (1 + CLOSE):
            what = "median" if name == "target" else "99th percentile"
            lines.append(f"--{name}-ms {asked:g}: the {what} is {time.value:.3g} ms")
    return lines


def unmeasured(proof: Proof, run: RunContext) -> list[str]:
    """Latency budgets that no measurement supports."""
    budget = run.options.budget
    if not budget.timed:
        return []
    if not run.target.measures_target or not proof.bench.ratios:
        return [f"{budget.asked()}: planned for {run.target.descriptor.name}, not measured there"]
    if budget.deadline_ms is not None and proof.bench.models[1].p99_ms is None:
        return [f"--deadline-ms {budget.deadline_ms:g}: too few samples for a 99th percentile"]
    return []


def _lost(final: SearchState, proof: Proof) -> Interval | None:
    """Loss on validation: of the 8-bit file if that ships, else of the network."""
    eight = next((row.drop for row in proof.front if row.chosen and row.int8), None)
    return eight or final.record.drop


def nothing_removed(dense: ExportedDense, selection: ArtifactSelection, options: Options) -> list[str]:
    """Why a run with a size or a latency to reach shipped the network unchanged: it was within it already."""
    budget = options.budget
    if selection.tried or not budget.sized:
        return []
    text = f"{budget.asked()}: nothing had to be removed, the network is within it as it is"
    if not budget.timed or dense.latency is None:
        return [text]
    final = selection.final
    cost = dense.latency.predict(final.trace, final.couplings)
    value = cost(np.zeros(final.couplings.count, bool))
    if dense.latency.timer is not None:
        return [f"{text}: {dense.latency.dense_ms:.3g} ms measured of the dense file"]
    return [f"{text}, by an estimate: {value:.3g} {latency_unit(cost)}, not measured on the target"]
