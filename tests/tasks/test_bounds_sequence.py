"""Several networks judged on one validation part: the order, the levels, and the level of the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from edgeprune.errors import OptionError
from edgeprune.tasks.bounds_sequence import LadderTest, Trial

RUNGS, RETREATS = (0.5, 0.36, 0.26, 0.19), (0.7, 0.85)


def walk(test: LadderTest, accepts) -> list[Trial]:
    """All trials, where `accepts(trial)` decides."""
    trials = []
    while trial := test.next():
        trials.append(trial)
        test.record(accepts(trial))
    return trials


def test_rungs_go_from_mild_to_strong_at_one_level():
    """Accepted to the end: every rung at 1 - 0.7 * 0.1, no retry."""
    test = LadderTest(RUNGS, retreats=RETREATS, level=0.9, reserve=0.3)
    trials = walk(test, lambda trial: True)
    assert [t.share for t in trials] == list(RUNGS)
    assert all(t.kind == "rung" and t.level == pytest.approx(0.93) for t in trials)
    assert trials[0].interval_level == pytest.approx(0.86)
    assert test.accepted == 0.19


def test_a_refusal_is_followed_by_one_half_way_at_its_part_of_the_reserve():
    """Four places where a first refusal can be: retreats and three half-way networks share 0.03."""
    test = LadderTest(RUNGS, retreats=RETREATS, level=0.9, reserve=0.3)
    trials = walk(test, lambda trial: trial.share > 0.3)
    assert [t.kind for t in trials] == ["rung", "rung", "rung", "half-way"]
    assert trials[-1].share == pytest.approx(math.sqrt(0.36 * 0.26))
    assert trials[-1].level == pytest.approx(1 - 0.03 / 4)
    assert test.accepted == pytest.approx(math.sqrt(0.36 * 0.26))


def test_retreats_go_from_mild_to_strong_and_stop_at_a_refusal():
    """The first rung refused: 0.85 is judged before 0.7, and refused ends the search."""
    test = LadderTest(RUNGS, retreats=RETREATS)
    assert [t.share for t in walk(test, lambda trial: trial.kind == "retreat")] == [0.5, 0.85, 0.7]
    assert test.accepted == 0.7
    test = LadderTest(RUNGS, retreats=RETREATS)
    assert [t.share for t in walk(test, lambda trial: False)] == [0.5, 0.85]
    assert test.accepted == 1.0


def test_without_retries_rungs_have_the_level_of_the_search():
    """Nothing is kept for what cannot happen."""
    test = LadderTest(RUNGS, half_way=False, level=0.9)
    trials = walk(test, lambda trial: trial.share > 0.3)
    assert [t.level for t in trials] == pytest.approx([0.9, 0.9, 0.9])


def test_ordered_losses_give_each_place_the_complete_reserve():
    """One more assumption, one half-way level that does not depend on the number of rungs."""
    test = LadderTest(RUNGS, retreats=RETREATS, reserve=0.3, ordered=True)
    assert walk(test, lambda trial: trial.share > 0.3)[-1].level == pytest.approx(0.97)


def test_a_share_met_by_structure_alone_is_passed_over_unjudged():
    """Lossless removal got below 0.5: half-way lies between 0.5 and the refused rung, not at a retreat."""
    test = LadderTest(RUNGS, retreats=RETREATS)
    test.next()
    test.skip()
    trials = walk(test, lambda trial: False)
    assert [t.share for t in trials] == pytest.approx([0.36, math.sqrt(0.5 * 0.36)])
    assert test.accepted == 0.5


def test_the_next_trial_waits_for_the_outcome_and_stop_ends():
    """Asking twice gives the same trial; an outcome without a trial is an error."""
    test = LadderTest(RUNGS)
    assert test.next() == test.next()
    test.record(True)
    with pytest.raises(OptionError, match="call next"):
        test.record(True)
    test.next()
    test.stop()
    assert test.next() is None and test.accepted == 0.5


@pytest.mark.parametrize(
    ("rungs", "retreats"),
    [((), ()), ((0.3, 0.4), ()), ((0.5, 0.3), (0.4,)), ((1.0, 0.5), ()), ((0.5, 0.0), ())],
)
def test_ladders_out_of_order_are_refused(rungs, retreats):
    """The proof needs the order."""
    with pytest.raises(OptionError, match="milder than the first rung"):
        LadderTest(rungs, retreats=retreats)


def test_levels_out_of_range_are_refused():
    """No error is left to spend."""
    with pytest.raises(OptionError, match="at level 1 "):
        LadderTest(RUNGS, level=1.0)


def _error(first_bad: int, spread: float, *, tested: bool) -> float:
    """Share of 20,000 searches that accept a bad network, all networks at the limit of what is allowed.

    Estimates are normal with correlation `spread` between networks; rungs before `first_bad` are good by
    four standard errors, all others (half-way ones too) bad by nothing. `tested` False: the search as it
    was, every network at one-sided 90%, one half-way after the refusal.
    """
    rng = np.random.default_rng(first_bad)
    wrong = 0
    for _ in range(20_000):
        common = rng.normal() * math.sqrt(spread)
        test = LadderTest(RUNGS, retreats=RETREATS, level=0.9)
        last = 1.0
        while trial := test.next():
            bad = trial.kind != "rung" or RUNGS.index(trial.share) >= first_bad
            z = common + rng.normal() * math.sqrt(1 - spread) - (0 if bad else 4)
            accepted = z < ndtri(1 - (trial.level if tested else 0.9))
            wrong += bad and accepted
            last = trial.share
            test.record(accepted)
            if bad and accepted:
                break
        assert last <= 1
    return wrong / 20_000


@pytest.mark.parametrize("first_bad", [0, 2])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_the_search_keeps_its_level(first_bad, spread):
    """A bad network is accepted in at most 10% of searches; with one level for all it is in far more."""
    margin = 3 * math.sqrt(0.09 / 20_000)
    assert _error(first_bad, spread, tested=True) <= 0.1 + margin
    assert _error(first_bad, spread, tested=False) > 0.1 + margin
