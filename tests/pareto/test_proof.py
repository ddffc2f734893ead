"""How long the finished files are timed, and what can be said of a board's operators."""

from __future__ import annotations

from types import SimpleNamespace

from edgeprune.pareto import proof
from edgeprune.records import Interval
from edgeprune.session.budget import Budget
from edgeprune.session.context import RunContext
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock


def timed(budget):
    """Seconds of each timing, on a board that has a 99th percentile after half a minute."""
    asked = []

    def time(paths, seconds, *, probes):
        asked.append(seconds)
        p50 = Interval(20.0, 20.0, 20.0)
        row = SimpleNamespace(p50_ms=p50, p99_ms=p50 if seconds > 30 else None, samples=int(10 * seconds))
        return SimpleNamespace(models=[row] * len(paths), probes=probes)

    run = RunContext(Options(budget=budget), None, Clock(), SimpleNamespace(time=time))
    found = proof._timed([None, None], run)
    assert found.probes == proof.PROBES
    return asked


def test_a_deadline_is_judged_by_a_99th_percentile_that_was_waited_for():
    """The final files are timed again for as long as their tails need; other budgets take --bench-seconds."""
    first, *further = timed(Budget(deadline_ms=30.0))
    assert first == 10.0 and further and further[-1] > 30
    assert timed(Budget(speedup=2.0)) == [5.0]


def test_of_a_board_it_is_said_that_operators_cannot_be_profiled_there():
    """One line instead of silence where the interval touches 1; nothing where the board shows a gain."""
    run = RunContext(Options(), None, Clock(), SimpleNamespace(board=object()))

    def said(changed):
        bench = SimpleNamespace(
            ratios=[SimpleNamespace(changed=changed, ratio=Interval(1, 1, 1))], board="pi@pi",
            machine={"board": "Raspberry Pi 4", "processor": ""},
        )  # fmt: skip
        return proof._why(None, None, bench, run)

    (text,) = said(changed=False)
    assert (
        "unknown, operators are profiled on this machine only" in text
        and "timed on pi@pi (Raspberry Pi 4)" in text
    )
    assert said(changed=True) == ()
