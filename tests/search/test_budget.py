"""Budgets in the user's words, and intervals that selection rests on."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import BudgetError
from edgeprune.session.budget import parse_share
from edgeprune.tasks.bounds import paired_drop, share_interval


@pytest.mark.parametrize(
    ("text", "share"), [("0.5", 0.5), ("1", 1.0), ("3x", 1 / 3), ("2.5X", 0.4), (" 4x ", 0.25)]
)
def test_shares_and_factors_mean_what_they_say(text, share):
    """A number is the share kept, a number with x the factor fewer."""
    assert parse_share(text, "--macs") == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0.5x", "0x", "half", "", "nan", "x"])
def test_what_is_not_a_share_is_refused_with_both_forms(text):
    """The message repeats the option and shows both spellings."""
    with pytest.raises(
        BudgetError, match=r"--macs .*not a share; give the share kept, as 0.5, or a factor, as 3x"
    ):
        parse_share(text, "--macs")


def test_paired_drop_has_its_coverage():
    """A one-sided 90% bound lies above the true loss in about 90% of repetitions."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(400):
        before = rng.random(2000) < 0.93
        after = np.where(rng.random(2000) < 0.97, before, rng.random(2000) < 0.5)
        truth = 100 * 0.03 * (0.93 - 0.5)
        above += paired_drop(before.astype(float), after.astype(float), level=0.8).high >= truth
    assert 0.85 <= above / 400 <= 0.95


@pytest.mark.parametrize("count", [3, 8])
def test_paired_drop_has_its_coverage_where_samples_belong_together(count):
    """Groups differ by 3 points in what they lose: by samples the 90% bound fails far more often."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(count), 400)
    by_samples = by_groups = 0
    for _ in range(400):
        lost = np.clip(rng.normal(0.04, 0.03, count), 0, 1)[groups]
        after = (rng.random(len(groups)) >= lost).astype(float)
        before, truth = np.ones(len(groups)), 4.0
        by_samples += paired_drop(before, after, level=0.8).high >= truth
        by_groups += paired_drop(before, after, level=0.8, groups=groups).high >= truth
    assert by_samples / 400 < 0.75
    assert 0.85 <= by_groups / 400 <= 0.97


def test_one_group_and_equal_groups_change_nothing_for_the_better():
    """One group gives no spread between groups; groups that lose alike are not narrower than samples."""
    rng = np.random.default_rng(0)
    before, after = (rng.random((2, 600)) < 0.9).astype(float)
    plain = paired_drop(before, after)
    assert paired_drop(before, after, groups=np.zeros(600, np.int64)) == plain
    spread = paired_drop(before, after, groups=np.arange(600) % 6)
    assert spread.value == plain.value and spread.high >= plain.high


def test_identical_predictions_still_have_an_interval():
    """No disagreement among n samples is no proof of none."""
    same = np.ones(500)
    found = paired_drop(same, same)
    assert found.value == 0.0
    assert 0 < found.high < 0.1


def test_wilson_interval_matches_a_known_value():
    """81 of 263: Newcombe (1998) gives 0.2553 to 0.3662 for Wilson's interval."""
    found = share_interval(np.repeat([1.0, 0.0], [81, 182]))
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)


def test_a_perfect_score_has_a_bounded_interval():
    """All right: the upper end is 1, the lower below."""
    found = share_interval(np.ones(50))
    assert found.high == 1.0
    assert 0.9 < found.low < 1.0
