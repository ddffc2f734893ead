"""Time files until there are inferences enough for a 99th percentile, within a limit that is said.

Elsewhere: how many that takes (timings), what becomes of a percentile that is not there (pipeline).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeprune.measure.timings import P99_SAMPLES
from edgeprune.records import BenchResult

LIMIT = 300.0  # seconds for a file that is timed alone; each further file may add half of it
SPARE = 1.1


def time_tail(
    time: Callable[[Sequence[Path], float], BenchResult],
    paths: Sequence[Path],
    seconds: float,
    note: Callable[[str], None],
) -> BenchResult:
    """Time the files for `seconds`, and where that is too short for p99, anew for as long as it takes.

    Args:
        time: lets files take turns for a number of seconds.
        note: is told how long it takes, and when the limit cuts it short: p99 is then None.
    """
    result, limit = time(paths, seconds), LIMIT * (len(paths) + 1) / 2
    while not enough(result) and seconds < limit:
        needed = max(_needed(result), seconds * P99_SAMPLES / min(m.samples for m in result.models) * SPARE)
        what = f"{P99_SAMPLES} inferences, which a 99th percentile needs, take {needed:.3g} s"
        note(what if needed <= limit else f"{what}; stopped after {limit:.0f} s")
        seconds = min(needed, limit)
        result = time(paths, seconds)
    return result


def enough(result: BenchResult) -> bool:
    """Whether every file that was timed has its 99th percentile."""
    return all(row.p99_ms is not None for row in result.models if row.p50_ms is not None)


def _needed(result: BenchResult) -> float:
    """Seconds for the percentile by the medians: turns begin with an uncounted run, the first has a twin."""
    medians = [row.p50_ms.value for row in result.models if row.p50_ms is not None]
    return P99_SAMPLES * SPARE * 2 * (sum(medians) + medians[0]) / 1e3
