"""Timing goes on until a 99th percentile is had, and says where a limit stops it."""

from pathlib import Path

import numpy as np
import pytest

from edgeprune.measure.tails import LIMIT, time_tail
from edgeprune.measure.timings import P99_SAMPLES, percentile_ms
from edgeprune.records import BenchResult, ModelTiming


def clock(*each_ms):
    """A machine on which files take this long; turns cost what the runner's do. Gives it, and its log."""
    log = []

    def time(paths, seconds):
        log.append(seconds)
        rounds = max(10, int(seconds * 1e3 / (2 * (sum(each_ms) + each_ms[0]))))
        rows = []
        for path, ms in zip(paths, each_ms, strict=True):
            taken = np.full((rounds, 1), ms * 1e6)
            p50, p99 = (percentile_ms(taken, q, 0) for q in (0.5, 0.99))
            rows.append(ModelTiming(str(path), 1, rounds, p50, None, p99))
        return BenchResult(
            models=tuple(rows), ratios=(), same=None, rounds=rounds, threads=1, batch=1, seed=0, machine={}
        )

    return time, log


@pytest.mark.parametrize("each_ms", [(40.0,), (60.0, 30.0)])
def test_a_slow_network_gets_its_99th_percentile(each_ms):
    """At 40 ms ten seconds hold 125 turns; it is told how long 662 take, and they are run."""
    time, log = clock(*each_ms)
    said = []
    found = time_tail(time, [Path("a"), Path("b")][: len(each_ms)], 10.0, said.append)
    assert all(m.samples >= P99_SAMPLES and m.p99_ms is not None for m in found.models)
    assert len(log) == 2 and len(said) == 1 and f"{P99_SAMPLES} inferences" in said[0]


def test_a_fast_network_is_timed_once():
    """Ten seconds are enough at a millisecond, and nothing is said."""
    time, log = clock(1.0)
    assert time_tail(time, [Path("a")], 10.0, pytest.fail).models[0].p99_ms is not None
    assert log == [10.0]


def test_the_limit_is_said():
    """A network of two seconds would take most of an hour: it stops, says so, and gives no percentile."""
    time, log = clock(2000.0)
    said = []
    assert time_tail(time, [Path("a")], 10.0, said.append).models[0].p99_ms is None
    assert log[-1] == LIMIT and f"stopped after {LIMIT:.0f} s" in said[0]
