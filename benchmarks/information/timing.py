"""Clocks and data of the information benchmarks: interleaved comparison, single timing, activations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Row = dict[str, Any]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, **facts: Any
) -> Row:
    """Time both calls in interleaved rounds after one warm-up; ratios are ours / theirs."""
    ours(), theirs()
    pairs = [(timed(theirs), timed(ours)) for _ in range(rounds)]
    row = {
        "name": name,
        "rounds": rounds,
        "ours_wall_s": float(np.median([o[0] for _, o in pairs])),
        "ours_cpu_s": float(np.median([o[1] for _, o in pairs])),
        "theirs_wall_s": float(np.median([t[0] for t, _ in pairs])),
        "theirs_cpu_s": float(np.median([t[1] for t, _ in pairs])),
        # The least time of either side: what it takes with the processors idle, where a round met that.
        "least_wall_ratio": min(o[0] for _, o in pairs) / min(t[0] for t, _ in pairs),
        **facts,
    }
    for kind, at in (("wall", 0), ("cpu", 1)):
        ratios = np.array([o[at] / t[at] for t, o in pairs])
        draws = np.random.default_rng(0).choice(ratios, (2000, rounds))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        row[f"{kind}_ratio"] = {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}
    return row


def alone(name: str, call: Callable[[], object], rounds: int, **facts: Any) -> Row:
    """Time one call after a warm-up; the median and the least of its rounds."""
    call()
    runs = [timed(call) for _ in range(rounds)]
    return {
        "name": name,
        "rounds": rounds,
        "ours_wall_s": float(np.median([w for w, _ in runs])),
        "ours_cpu_s": float(np.median([c for _, c in runs])),
        "least_wall_s": min(w for w, _ in runs),
        **facts,
    }


def activations(samples: int, channels: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 activations, half of them after a ReLU, some depending on the label."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((min(samples, 5000), channels), dtype=np.float32)
    labels = rng.integers(0, classes, samples)
    x = np.empty((samples, channels), np.float32)
    for first in range(0, samples, len(base)):
        part = x[first : first + len(base)]
        np.multiply(np.roll(base, first // 7, axis=1)[: len(part)], 1 + first / samples / 10, out=part)
        part += (labels[first : first + len(part), None] / classes * np.linspace(0, 1, channels)).astype(
            np.float32
        )
    np.maximum(x[:, ::2], 0, out=x[:, ::2])
    return x, labels
