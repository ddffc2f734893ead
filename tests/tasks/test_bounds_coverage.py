"""Coverage of the bounds, by enumeration where that can be, else by seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from edgeprune.tasks.bounds import paired_drop, share_interval
from edgeprune.tasks.bounds_betting import mean_upper, ratio_upper
from edgeprune.tasks.bounds_exact import paired_upper, share_bounds


@pytest.mark.parametrize("samples", [2, 5, 13, 30])
@pytest.mark.parametrize("error", [0.1, 0.025])
def test_the_exact_bound_covers_everywhere(samples, error):
    """Every outcome times its probability, over a grid of discordance and of loss; nowhere below nominal."""
    outcomes = np.array([(a, b) for a in range(samples + 1) for b in range(samples + 1 - a)])
    bounds = np.array([paired_upper(samples, a, b, error) for a, b in outcomes])
    counts = np.column_stack([outcomes, samples - outcomes.sum(axis=1)])
    worst = 1.0
    for psi in (0.0, 0.001, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.35, 0.6, 1.0):
        for share in np.linspace(0, 1, 41):
            p10, p01 = psi * share, psi * (1 - share)
            probability = multinomial.pmf(counts, samples, [p10, p01, 1 - psi])
            worst = min(worst, float(probability[bounds >= p10 - p01 - 1e-12].sum()))
    assert 1 - error - 1e-9 <= worst < 1 - error + 0.03  # it holds, and not by being far too wide


@pytest.mark.parametrize(("samples", "lost", "gained"), [(60, 4, 2), (400, 12, 9), (3000, 40, 45)])
def test_the_supremum_over_discordance_is_certified(samples, lost, gained):
    """At the bound, P(an outcome ordered no higher) <= alpha on a far finer grid than the code walks."""
    error, z = 0.1, 1.2815515655446004
    theta = paired_upper(samples, lost, gained, error)
    c = z * z
    t = lost - gained + z * math.sqrt(lost + gained + c)
    m = np.arange(samples + 1)
    most = np.floor((t + m - z * np.sqrt(m + c)) / 2 + 1e-9)
    low, high = share_bounds(samples, lost + gained, 5e-7)  # what the data leave plausible of psi
    keep = m <= 4 * (lost + gained) + 60
    tail = [
        float((binom.pmf(m[keep], samples, q) * binom.cdf(most[keep], m[keep], (q + theta) / 2 / q)).sum())
        for q in np.linspace(max(low, theta), high, 1000)
    ]
    assert max(tail) <= error
    assert max(tail) >= 0.98 * error


def test_the_exact_bound_is_close_to_normal_where_that_is_right():
    """At 10,000 samples and 5.5% discordance: at most a hundredth of the margin wider than normal."""
    n, lost, gained = 10_000, 300, 250
    margin = 1.2815515655446004 * math.sqrt(((lost + gained) / n - ((lost - gained) / n) ** 2) / n)
    high = paired_upper(n, lost, gained, 0.1)
    assert 1.0 <= (high - (lost - gained) / n) / margin < 1.01


def test_a_share_covers_everywhere():
    """Clopper-Pearson by enumeration at n = 20, both ends."""
    bounds = np.array([share_bounds(20, k, 0.05) for k in range(21)])
    for p in np.linspace(0, 1, 101):
        weight = multinomial.pmf(np.column_stack([np.arange(21), 20 - np.arange(21)]), 20, [p, 1 - p])
        assert weight[bounds[:, 0] > p + 1e-12].sum() <= 0.05 + 1e-12
        assert weight[bounds[:, 1] < p - 1e-12].sum() <= 0.05 + 1e-12
    assert share_interval(np.ones(3)).high == 1.0


def _differences(kind: str, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, float]:
    """Paired differences in -1..1 and their true mean."""
    if kind == "rare":  # one sample in 50 is lost altogether
        return (rng.random(samples) < 0.02).astype(float), 0.02
    if kind == "overlaps":  # small changes of most, large ones of some
        change = np.where(rng.random(samples) < 0.9, rng.uniform(-0.05, 0.07, samples), rng.random(samples))
        return change, 0.9 * 0.01 + 0.1 * 0.5
    return rng.choice([-1.0, 1.0], samples), 0.0


@pytest.mark.parametrize("kind", ["rare", "overlaps", "coin"])
@pytest.mark.parametrize("samples", [10, 30, 200])
def test_betting_covers(kind, samples):
    """2,000 repetitions; below nominal by more than three standard errors fails."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(2000):
        values, truth = _differences(kind, rng, samples)
        above += mean_upper(values, 1.0, 0.1) >= truth
    assert above / 2000 >= 0.9 - 3 * math.sqrt(0.09 / 2000)


def test_betting_covers_with_unequal_groups():
    """Group sizes from 1 to 30, one group in five loses half of its samples."""
    rng = np.random.default_rng(1)
    sizes = np.arange(1.0, 31.0)
    above = 0
    for _ in range(1000):
        values = 0.5 * (rng.random(30) < 0.2)
        above += mean_upper(values, 1.0, 0.1, sizes) >= 0.1
    assert above / 1000 >= 0.9 - 3 * math.sqrt(0.09 / 1000)


def test_the_betting_ratio_covers():
    """Mean errors 0.5 and 0.6 of paired values in 0..2: the bound lies above 1.2."""
    rng = np.random.default_rng(2)
    above = 0
    for _ in range(600):
        before = rng.beta(1, 3, 60) * 2
        after = np.where(rng.random(60) < 0.2, rng.beta(1, 1, 60) * 2, before)
        above += ratio_upper(after, before, 2.0, 0.1) >= (0.8 * 0.5 + 0.2 * 1.0) / 0.5
    assert above / 600 >= 0.9 - 3 * math.sqrt(0.09 / 600)


@pytest.mark.parametrize("count", [3, 8])
def test_groups_that_differ_about_normally_are_covered(count):
    """Groups differ by 3 points in what they lose: by samples the 90% bound fails far more often."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(count), 400)
    by_samples = by_groups = 0
    for _ in range(300):
        lost = np.clip(rng.normal(0.04, 0.03, count), 0, 0.08)[groups]  # cut on both sides: the mean stays
        after = (rng.random(len(groups)) >= lost).astype(float)
        before = np.ones(len(groups))
        by_samples += paired_drop(before, after, level=0.8).high >= 4.0
        by_groups += paired_drop(before, after, level=0.8, groups=groups).high >= 4.0
    assert by_samples / 300 < 0.8
    assert by_groups / 300 >= 0.9 - 3 * math.sqrt(0.09 / 300)
