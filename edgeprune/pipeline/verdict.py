"""Whether a finished run kept to its budget, by what was measured of the shipped file.

Guarantee: a budget that was missed is never reported as met; one that nobody could measure (a target
that is not at hand) is said to be unmeasured. Elsewhere: planning for it (plans), the search (search).
"""

from __future__ import annotations

from edgeprune.pipeline.deliver import Delivery
from edgeprune.pipeline.landing import CLOSE
from edgeprune.pipeline.options import Options
from edgeprune.pipeline.search import within
from edgeprune.pipeline.state import State


def missed(final: State, made: Delivery, options: Options) -> list[str]:
    """One line per budget that the shipped file does not keep to; empty when all is well.

    Latencies count as missed when the whole interval lies beyond what was asked, by more than planning
    itself allows (2%).
    """
    budget, found = options.budget, []
    if not within(final, options):
        drop = final.record["validation_drop"]
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
