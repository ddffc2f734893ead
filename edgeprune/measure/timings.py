"""Turn the runner's raw samples into percentiles, ratios and shares with intervals.

Intervals come from a bootstrap over blocks of consecutive rounds (Künsch 1989): neighbouring
rounds share the machine's mood, and resampling single rounds would give intervals that are too
narrow. Comparisons are paired by round, so drift that both candidates felt cancels.
Elsewhere: taking the samples (measure/runner.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.records import Interval

FloatArray = NDArray[np.float64]
P90_SAMPLES, P99_SAMPLES = 64, 662  # MLPerf Inference: fewer queries do not support the percentile
RESAMPLES = 500
BUSY = 0.05  # of the timed cores, that others may have before it is said
SHORT = 0.2  # seconds; the system counts in hundredths


def block_bootstrap(
    values: FloatArray, statistic: Callable[[FloatArray], FloatArray], seed: int, *, level: float = 0.95
) -> Interval:
    """Estimate a statistic of rounds with an interval from circular blocks of length n^(1/3).

    Args:
        values: shape (rounds,) or (rounds, repeats); whole rounds are resampled.
        statistic: reduces the last axis of an array (..., samples).
    """
    rounds = len(values)
    length = max(1, round(rounds ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, math.ceil(rounds / length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :rounds] % rounds
    chunk = max(1, 2_000_000 // values.size)  # 16 MB at a time
    drawn = [
        statistic(values[index[n : n + chunk]].reshape(-1, values.size)) for n in range(0, RESAMPLES, chunk)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values.reshape(-1))), float(low), float(high), level)


def percentile_ms(nanoseconds: FloatArray, q: float, seed: int) -> Interval | None:
    """Percentile of the single inferences in ms; None when there are too few for this percentile."""
    least = P99_SAMPLES if q > 0.9 else P90_SAMPLES if q > 0.5 else 1
    if nanoseconds.size < least:
        return None
    return block_bootstrap(nanoseconds / 1e6, lambda v: np.quantile(v, q, axis=-1), seed)


def time_ratio(candidate: FloatArray, base: FloatArray, seed: int) -> Interval:
    """Median over rounds of candidate's time by base's, on the log scale; shapes (rounds, repeats)."""
    logs = np.log(np.median(candidate, axis=1) / np.median(base, axis=1))
    interval = block_bootstrap(logs, lambda v: np.median(v, axis=-1), seed)
    return Interval(math.exp(interval.value), math.exp(interval.low), math.exp(interval.high), interval.level)


def missed_share(response_ns: FloatArray, deadline_ms: float, seed: int) -> Interval:
    """Share of answers later than the deadline.

    The interval is the wider of the block bootstrap's, which knows of queues that make one miss
    follow another, and Wilson's, which stays open where no miss was seen at all.
    """
    late = (response_ns > deadline_ms * 1e6).astype(np.float64)
    interval = block_bootstrap(late, lambda v: v.mean(axis=-1), seed)
    n, share, z = len(late), interval.value, 1.959964
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(
        share, max(0.0, min(interval.low, centre - half)), min(1.0, max(interval.high, centre + half))
    )


def trust_warnings(
    before: dict[str, Any], after: dict[str, Any], cores: Sequence[int], threads: int
) -> tuple[str, ...]:
    """Say what makes the timings less trustworthy, from the machine's state before and after.

    Args:
        cores: those that the process was bound to; empty where it could not be.
    """
    governors = sorted({*before.get("governors", ()), *after.get("governors", ())} - {"performance"})
    moving = f"governor {', '.join(governors)}: the frequency may move during the run"
    return (*disturbances(before, after, cores, threads), *([moving] if governors else []))


def disturbances(
    before: dict[str, Any], after: dict[str, Any], cores: Sequence[int], threads: int
) -> tuple[str, ...]:
    """What another run of the same would not meet: throttling, other work, more threads than cores.

    `throttled` is the Pi firmware's word: bits 0-3 hold now, bits 16-19 since boot. Other work is what
    the timed cores did beside this process; a load average would count the tool's own stages before.
    """
    said = []
    was, now = before.get("throttled"), after.get("throttled")
    if was is not None and now is not None and ((was | now) & 0xF or (now & ~was) & 0xF0000):
        said.append(f"invalid: the board throttled or lost voltage during the run (flags {now:#x})")
    others = others_share(before, after, cores)
    if others is not None and others > BUSY:
        said.append(f"the machine was busy: others had {others:.0%} of the cores that were timed on")
    if cores and threads > len(cores):
        said.append(f"{threads} threads on {len(cores)} cores: they wait for each other, times mean little")
    return tuple(said)


def others_share(before: dict[str, Any], after: dict[str, Any], cores: Sequence[int]) -> float | None:
    """Share of the timed cores that other processes, and other machines on this one, had; None if unknown."""
    names = [str(core) for core in cores]
    known = [state.get("busy", {}) for state in (before, after)]
    if not names or any(name not in busy for name in names for busy in known):
        return None
    seconds: float = after["clock"] - before["clock"]
    if seconds < SHORT:
        return None
    worked: float = sum(known[1][name] - known[0][name] for name in names)
    others: float = worked - (after["own"] - before["own"])
    return max(0.0, others) / (seconds * len(names))


def apart(same: Interval) -> float:
    """How far the A/A row lies from 1 beyond its own interval can tell, as a factor; 1 when it does not."""
    return 1.0 if same.low <= 1.0 <= same.high else max(same.value, 1 / same.value)


def widened(interval: Interval, factor: float) -> Interval:
    """An interval that also holds what the A/A row was off by."""
    return Interval(interval.value, interval.low / factor, interval.high * factor, interval.level)
