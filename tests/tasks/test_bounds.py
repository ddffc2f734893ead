"""Bounds on what was lost: closed forms, dispatch by what is stated, properties and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import DataError, OptionError
from edgeprune.records import Interval, to_json
from edgeprune.tasks.bounds import paired_drop, relative_rise, set_drop, share_interval


def pair(samples: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of two models: `lost` samples only the first has right, `gained` only the second."""
    before, after = np.ones((2, samples))
    after[:lost] = 0
    before[lost : lost + gained] = 0
    return before, after


@pytest.mark.parametrize("samples", [2, 30, 229, 3000])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_models_that_never_differ_are_bounded_by_the_closed_form(samples, level):
    """(1 - theta)^n = alpha: 1.0 point at n = 229 and one-sided 90%, where a normal bound says 0.04."""
    found = paired_drop(*pair(samples, 0, 0), level=level)
    assert found.value == 0
    assert found.high == pytest.approx(100 * (1 - ((1 - level) / 2) ** (1 / samples)), rel=3e-5)
    assert found.low == -found.high


def test_the_record_says_how_it_was_computed():
    """Level of both ends and of one, method, samples and units; all of it reaches the JSON form."""
    found = paired_drop(*pair(300, 9, 3), level=0.8)
    assert isinstance(found, Interval)
    assert found.value == pytest.approx(2.0)
    assert (found.level, found.one_sided_level, found.samples, found.units) == (0.8, 0.9, 300, 300)
    assert found.proven and "exact" in found.method
    assert to_json(found).keys() >= {"value", "low", "high", "level", "method", "proven", "samples", "units"}


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_more_losses_and_fewer_gains_never_lower_the_bound(level):
    """At 40 samples, where up to 5 are lost and up to 15 gained."""
    high = {(a, b): paired_drop(*pair(40, a, b), level=level).high for a in range(6) for b in range(16)}
    assert all(high[a + 1, b] > high[a, b] for a, b in high if (a + 1, b) in high)
    assert all(high[a, b + 1] <= high[a, b] + 1e-6 for a, b in high if (a, b + 1) in high)


def test_a_higher_level_and_fewer_samples_give_a_wider_interval():
    """Both ends move outward, whatever the method."""
    rng = np.random.default_rng(0)
    scores = rng.random((2, 400))
    binary = (scores < 0.9).astype(float)
    for before, after, limits in ((*binary, None), (*scores, (0, 1)), (*scores, None)):
        ends = [
            paired_drop(before[:n], after[:n], level=level, limits=limits)
            for n, level in ((400, 0.5), (400, 0.8), (400, 0.95), (100, 0.95))
        ]
        widths = [e.high - e.low for e in ends]
        assert widths == sorted(widths)
        assert all(e.low < e.value < e.high for e in ends)


@pytest.mark.parametrize("limits", [None, (0.0, 1.0)])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("over_groups", ["student", "betting"])
def test_order_and_names_of_groups_change_nothing(limits, binary, over_groups):
    """Shuffled samples and renumbered groups give the same interval."""
    if over_groups == "betting" and limits is None and not binary:
        pytest.skip("betting needs a range")
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 90))
    if binary:
        before, after = (before < 0.9) * 1.0, (after < 0.85) * 1.0
    groups = rng.integers(0, 7, 90)
    order = rng.permutation(90)
    first = paired_drop(before, after, groups=groups, limits=limits, over_groups=over_groups)
    second = paired_drop(
        before[order], after[order], groups=100 - 3 * groups[order], limits=limits, over_groups=over_groups
    )
    assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=1e-9)


def test_swapping_the_models_mirrors_the_interval():
    """The lower end is the upper end of the reverse comparison."""
    rng = np.random.default_rng(4)
    scores = rng.random((2, 50))
    for before, after, limits in ((*(scores < 0.8) * 1.0, None), (*scores, (0, 1)), (*scores, None)):
        there = paired_drop(before, after, limits=limits)
        back = paired_drop(after, before, limits=limits)
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-7)


def test_what_is_stated_chooses_the_method():
    """No range and not 0/1: the method says that it is approximate, and so do few groups."""
    rng = np.random.default_rng(5)
    scores = rng.random((2, 60))
    groups = np.arange(60) % 6
    assert "betting" in paired_drop(*scores, limits=(0, 1)).method
    assert paired_drop(*scores, limits=(0, 1)).proven
    loose = paired_drop(*scores)
    assert not loose.proven and loose.method.startswith("approximate")
    few = paired_drop(*pair(60, 3, 1), groups=groups)
    assert not few.proven and few.units == 6 and "never narrower than by samples" in few.method
    proven = paired_drop(*pair(60, 3, 1), groups=groups, over_groups="betting")
    assert proven.proven and proven.units == 6


def test_groups_are_never_narrower_than_samples():
    """One group is no group; equal groups change nothing for the better; unlike groups widen a lot."""
    rng = np.random.default_rng(0)
    before, after = (rng.random((2, 600)) < 0.9).astype(float)
    plain = paired_drop(before, after)
    assert paired_drop(before, after, groups=np.zeros(600, np.int64)) == plain
    alike = paired_drop(before, after, groups=np.arange(600) % 6)
    assert alike.value == plain.value and alike.high >= plain.high and alike.low <= plain.low
    one_bad = np.repeat([0.0, 1.0], [100, 500])
    assert paired_drop(np.ones(600), one_bad, groups=np.repeat(np.arange(6), 100)).high > 40


def test_betting_over_groups_that_never_differ_cannot_promise_more_than_their_number_allows():
    """Seven people prove at best 1 - alpha^(1/7), 28 points at one-sided 90%, whatever their windows."""
    found = paired_drop(*pair(7000, 0, 0), level=0.8, groups=np.arange(7000) % 7, over_groups="betting")
    assert found.high >= 100 * (1 - 0.1 ** (1 / 7))


def test_large_groups_weigh_by_their_size():
    """The estimate is the mean over samples, and a bound by betting lies above it."""
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    after = np.ones(len(groups))
    after[groups == 39] = 0
    found = paired_drop(np.ones(len(groups)), after, groups=groups, over_groups="betting")
    assert found.value == pytest.approx(100 * 40 / len(groups))
    assert found.low <= found.value < found.high


def test_a_share_has_the_interval_of_clopper_and_pearson():
    """10 of 10: 1 - 0.025^(1/10); 81 of 263 as R's binom.test gives it: 0.2527 to 0.3677."""
    assert share_interval(np.ones(10)).low == pytest.approx(0.025**0.1)
    assert share_interval(np.ones(10)).high == 1.0
    found = share_interval(np.repeat([1.0, 0.0], [81, 182]))
    assert (found.low, found.high) == pytest.approx((0.2527, 0.3677), abs=1e-4)


def test_scores_beyond_one_have_an_interval_too():
    """A metric of the user's own may give 3.2 per sample."""
    found = share_interval(np.array([3.2, 2.9, 4.0, 3.5]))
    assert found.low < found.value < found.high and not found.proven


@pytest.mark.parametrize("limits", [None, (0.0, 5.0)])
@pytest.mark.parametrize("root", [False, True])
def test_a_rise_of_an_error_is_in_percent_of_the_dense_value(limits, root):
    """Errors 1.21 times as large: 21 percent, and 10 of the root; doubling the unit changes nothing."""
    before = np.random.default_rng(0).uniform(0.5, 1.5, 500)
    found = relative_rise(before, 1.21 * before, limits=limits, root=root)
    assert found.value == pytest.approx(10 if root else 21)
    assert found.low < found.value < found.high
    assert found.proven == (limits is not None)
    doubled = None if limits is None else (0.0, 10.0)
    again = relative_rise(2 * before, 2.42 * before, limits=doubled, root=root)
    assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=1e-4)


def test_errors_that_never_differ_still_have_an_interval():
    """Not one sample differs, which is no proof that none would."""
    before = np.random.default_rng(0).uniform(0.5, 1.5, 200)
    for found in (relative_rise(before, before), relative_rise(before, before, limits=(0, 2))):
        assert found.value == pytest.approx(0, abs=1e-9) and found.low < 0 < found.high
    assert paired_drop(before, before).high > 0


def test_a_measure_of_a_set_has_the_spread_of_a_mean_where_it_is_one():
    """The jack-knife of a mean is the standard error of the mean: t-interval, wider over unlike groups."""
    values = np.random.default_rng(1).normal(2.0, 10.0, 39)
    found = set_drop(lambda kept: float(values[kept].mean()), 39, level=0.8, span=None)
    half = 1.30423 * values.std(ddof=1) / np.sqrt(39)  # t with 38 degrees of freedom at 0.9
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    assert not found.proven and "jack-knife" in found.method
    groups = np.repeat(np.arange(3), 13)
    shifted = values + 30.0 * groups
    by_group = set_drop(lambda kept: float(shifted[kept].mean()), 39, groups=groups, span=None)
    assert by_group.high > set_drop(lambda kept: float(shifted[kept].mean()), 39, span=None).high
    assert by_group.units == 3


def test_a_set_measure_that_never_differs_has_an_interval():
    """No loss on any subset of 50 samples: the one-sided 90% bound is that of 0/1 scores."""
    found = set_drop(lambda kept: 0.0, 50, level=0.8)
    assert found.high == pytest.approx(100 * (1 - 0.1 ** (1 / 50)))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1, 0, np.nan], [1, 0, 1], "before: 1 of 3 scores are not finite, the first at sample 2"),
        ([1, 0, 1], [1, np.inf, 1], "after: 1 of 3 scores are not finite, the first at sample 1"),
        ([1, 0], [1, 0, 1], "2 before and 3 after; score both models on the same samples"),
        ([1], [1], "needs two samples or more, there are 1"),
        ([], [], "needs two samples or more, there are 0"),
        ([[1, 0]], [[1, 0]], r"scores have shape \(1, 2\)"),
    ],
)
def test_scores_that_bound_nothing_are_refused(before, after, message):
    """One line with what was given and what to do."""
    for bound in (paired_drop, relative_rise):
        with pytest.raises(DataError, match=message):
            bound(np.array(before, float), np.array(after, float))


def test_wrong_ranges_levels_and_groups_are_refused():
    """A range that scores break would make a proven bound a wrong one."""
    ones = np.ones(4)
    with pytest.raises(DataError, match=r"sample 1 scores 1\.5, outside of the range 0 to 1"):
        paired_drop(ones, np.array([1, 1.5, 1, 1]), limits=(0, 1))
    with pytest.raises(OptionError, match="no range"):
        paired_drop(ones, ones, limits=(1, 0))
    with pytest.raises(OptionError, match="level 1"):
        paired_drop(ones, ones, level=1.0)
    with pytest.raises(DataError, match=r"groups have shape \(3,\) for 4 samples"):
        paired_drop(ones, ones, groups=np.arange(3))
    with pytest.raises(DataError, match="the dense model's error is 0"):
        relative_rise(np.zeros(4), ones)
    with pytest.raises(DataError, match="an error of -1"):
        relative_rise(ones, -ones)
    with pytest.raises(DataError, match="not finite"):
        set_drop(lambda kept: float("nan"), 10)
