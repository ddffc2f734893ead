"""The loop over rounds, with rounds that cost nothing: what is tried, accepted and returned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgeprune.errors import BudgetError
from edgeprune.records import Interval
from edgeprune.search import search as module
from edgeprune.search.goals import Goal
from edgeprune.search.state import RoundRecord
from edgeprune.session.budget import Budget
from edgeprune.session.context import RunContext
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock


def network(share, removed=False):
    """A network of that share of 1000 MACs, which lost ten points for each half that is gone."""
    couplings = SimpleNamespace(macs=lambda: 1000.0 * share)
    lost = 20 * (1 - share)
    record = RoundRecord(round=1, macs=1000 * share, drop=Interval(lost, lost, lost))
    return SimpleNamespace(
        trace=None, couplings=couplings, removed=np.array([removed]), record=record, latency=None
    )


@pytest.fixture
def asked(monkeypatch):
    """Shares that the rounds were asked for; every round reaches its share exactly."""
    shares = []

    def round_to(dense, state, goals, number, run, *, last=False, level=0.8):
        (goal,) = goals
        if goal.share * 1000 >= state.couplings.macs():
            return state
        shares.append(goal.share)
        return network(goal.share, removed=True)

    monkeypatch.setattr(module, "run_round", round_to)
    return shares


def go(monkeypatch, limit, first, **budget):
    """First, accepted and tried networks of a search."""
    monkeypatch.setattr(module, "start", lambda *_, **__: first)
    monkeypatch.setattr(module, "shares", lambda p, t, couplings, goals: {"macs": couplings.macs() / 1000})
    run = RunContext(Options(budget=Budget(limit, **budget)), None, Clock(), None)
    goals = tuple(Goal(kind, share) for kind, share in budget.items())
    result = module.search(network(1.0), goals, run)
    return result.first, result.accepted, result.tried


def test_the_walk_stops_at_the_accuracy_allowed(monkeypatch, asked):
    """The result keeps to the bound, and one try between the last good and the first bad share was made."""
    _, final, tried = go(monkeypatch, 14.0, network(1.0))
    assert final.record.drop.high <= 14.0
    assert asked[:2] == [0.5, 0.36] and any(s.record.drop.high > 14.0 for s in tried)
    assert final.record.macs == min(s.record.macs for s in tried if s.record.drop.high <= 14.0)


def test_no_network_within_the_drop_is_an_error_with_the_mildest(monkeypatch, asked):
    """The mildest retreat is tried before giving up, a stronger one after its refusal is not."""
    with pytest.raises(BudgetError, match=r"--max-drop 0\.1: no smaller network .*up to 3\.00 points"):
        go(monkeypatch, 0.1, network(1.0))
    assert asked == [0.5, 0.85]


def test_what_went_without_loss_counts_as_a_result(monkeypatch, asked):
    """Where every round is refused, the network after the lossless rounds is the answer, not an error."""
    lossless = network(0.9, removed=True)
    assert go(monkeypatch, 0.1, lossless)[1] is lossless


def test_rungs_that_lossless_rounds_passed_are_skipped(monkeypatch, asked):
    """A network that is at 40% before any scoring goes on at the first rung below that."""
    _, final, _ = go(monkeypatch, 14.0, network(0.4, removed=True))
    assert asked[0] == 0.36 and final.record.drop.high <= 14.0


def test_a_size_budget_that_the_rounds_miss_is_an_error(monkeypatch):
    """Rounds that stop short of the share never ship as if they had reached it."""
    monkeypatch.setattr(module, "run_round", lambda *a, **k: network(0.75, removed=True))
    with pytest.raises(
        BudgetError, match=r"--macs 0\.5: the rounds came down to 0\.75 of the MACs .*0\.5 is"
    ):
        go(monkeypatch, None, network(1.0), macs=0.5)
