"""Estimates against closed forms and other people's code."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from scipy import special, stats
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information

from edgeprune import information

N = 50_000


def test_binary_symmetric_channel():
    """I = log 2 - h(p) for a fair bit flipped with probability p, within 4 standard errors."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200_000)
    for p in (0.01, 0.11, 0.4):
        t = np.where(rng.random(y.size) < p, 1 - y, y).astype(np.float32)[:, None]
        h = -p * np.log(p) - (1 - p) * np.log(1 - p)
        spread = np.log((1 - p) / p) * np.sqrt(p * (1 - p) / y.size)  # of the log-likelihood ratio's mean
        got = information.mutual_information(information.quantize(t, 2), y)[0]
        assert got == pytest.approx(np.log(2) - h, abs=4 * spread + 1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.75, 0.95])
def test_bivariate_normal(rho: float):
    """-1/2 log(1 - rho^2): the copula to 4 standard errors, mixed KSG to 0.03, counting from below to 6%."""
    rng = np.random.default_rng(1)
    g = rng.normal(size=(N, 2))
    x, y = g[:, :1], rho * g[:, :1] + np.sqrt(1 - rho**2) * g[:, 1:]
    truth = -0.5 * np.log(1 - rho**2)
    assert information.copula_information(x, y)[0, 0] == pytest.approx(
        truth, abs=0.002 + 4 * rho / np.sqrt(N)
    )
    near = information.mixed_information(x[:8000], y[:8000])[0]
    assert near == pytest.approx(truth, abs=0.03)
    counted = information.mutual_information(
        information.quantize(x, 48), information.bin_targets(y[:, 0], 48), correction="shuffle"
    )[0]
    assert truth * 0.94 - 0.003 < counted < truth + 0.01


@pytest.mark.parametrize("m", [2, 5, 10])
def test_gao_uniform_mixture(m: int):
    """log m - (m-1)/m log 2 for Y uniform on [X, X+2] and X discrete in 0..m-1 (Gao 2017)."""
    rng = np.random.default_rng(2)
    x = rng.integers(0, m, 8000)
    y = x + 2 * rng.random(x.size)
    truth = np.log(m) - (m - 1) / m * np.log(2)
    mixed = information.mixed_information(x[:, None].astype(float), y[:, None])[0]
    assert mixed == pytest.approx(truth, abs=0.03)
    assert information.ross_information(y[:, None], x)[0] == pytest.approx(truth, abs=0.03)
    big_x = rng.integers(0, m, N)
    big_y = (big_x + 2 * rng.random(N)).astype(np.float32)[:, None]
    assert information.label_information(big_y, big_x, bins=128)[0] == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize(("p", "truth"), [(0.0, 0.3012), (0.15, 0.2298), (0.3, 0.1757), (0.5, 0.1164)])
def test_zero_inflated_poisson(p: float, truth: float):
    """X ~ Exp(1), Y zero with probability p, else Poisson(X): the sum, counted and by mixed KSG."""
    grid = np.linspace(0, 60, 60_001)
    total = 0.0
    for k in range(40):
        given = (k == 0) * p + (1 - p) * stats.poisson.pmf(k, grid)
        marginal = (k == 0) * p + (1 - p) * 0.5 ** (k + 1)
        total += np.trapezoid(np.exp(-grid) * special.xlogy(given, given / marginal), grid)
    assert total == pytest.approx(truth, abs=2e-4)
    rng = np.random.default_rng(3)
    x = rng.exponential(size=N)
    y = np.where(rng.random(N) < p, 0, rng.poisson(x))
    counted = information.label_information(x.astype(np.float32)[:, None], np.minimum(y, 12), bins=64)[0]
    assert counted == pytest.approx(truth, abs=0.012)
    mixed = information.mixed_information(x[:6000, None], y[:6000, None].astype(float))[0]
    assert mixed == pytest.approx(truth, abs=0.04)


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.75])
def test_uniform_plus_uniform_noise(epsilon: float):
    """X + U(-e, e): e - log 2e up to one half, 1/(4e) beyond, by mixed KSG."""
    rng = np.random.default_rng(4)
    x = rng.random((8000, 1))
    y = x + rng.uniform(-epsilon, epsilon, x.shape)
    truth = epsilon - np.log(2 * epsilon) if epsilon <= 0.5 else 1 / (4 * epsilon)
    assert information.mixed_information(x, y)[0] == pytest.approx(truth, abs=0.03)


def test_label_information_is_unbiased_at_50k():
    """K = 10, 64 bins, N = 50,000, 24 draws: |bias| at most 0.005 nats and 3 sd, also at I = 0."""
    rng = np.random.default_rng(5)
    shifts = np.array([0.0, 0.05, 0.2, 0.5])

    def density_information(shift: float) -> float:
        grid = np.linspace(-9, 9 + 9 * shift, 20_001)
        each = np.array([stats.norm.pdf(grid, k * shift) for k in range(10)])
        mean = each.mean(0)
        return float(np.mean([np.trapezoid(e * np.log(np.maximum(e, 1e-300) / mean), grid) for e in each]))

    truth = np.array([density_information(s) for s in shifts])
    draws = []
    for _ in range(24):
        y = rng.integers(0, 10, N)
        x = (rng.normal(size=(N, 4)) + y[:, None] * shifts).astype(np.float32)
        draws.append(information.label_information(x, y))
    bias = np.mean(draws, axis=0) - truth
    spread = np.std(draws, axis=0, ddof=1)
    assert np.abs(bias).max() <= 0.005
    assert (np.abs(bias) <= 3 * spread).all()


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_grid_edges_cost_at_most_a_thousandth_nat(sigma: float):
    """On log-normal channels the edges give what exact quantiles of all samples give, to 1e-3 nats."""
    rng = np.random.default_rng(6)
    y = rng.integers(0, 10, N)
    x = np.exp(sigma * (rng.normal(size=(N, 8)) + 0.3 * y[:, None])).astype(np.float32)
    ours = information.label_information(x, y, bins=64)
    exact = np.array([information.bin_targets(x[:, c], 63) for c in range(8)]).T
    theirs = [mutual_info_score(exact[:, c], y) - 62 * 9 / (2 * N) for c in range(8)]
    full = information.mutual_information(information.quantize(x, 64), y, correction="full")
    assert np.abs(np.mean(full - theirs)) < 1e-3
    assert np.abs(ours - theirs).max() < 4e-3


def test_ross_is_mutual_info_classif_to_its_noise():
    """The same estimator as sklearn's: equal to 1e-9 on continuous channels scaled as sklearn scales them."""
    rng = np.random.default_rng(7)
    y = np.r_[rng.integers(0, 6, 1500), 6]  # the last class has one member
    x = rng.normal(size=(y.size, 8)) + np.linspace(0, 1, 8) * y[:, None]
    x /= x.std(axis=0)
    ours = information.ross_information(x, y)
    theirs = mutual_info_classif(x, y, random_state=0)
    assert np.abs(np.maximum(ours, 0) - theirs).max() < 1e-9


def test_ross_equals_brute_force_where_values_tie():
    """Atoms, duplicates and small classes: the sorted search counts what a full distance matrix counts.

    At an atom, where the k-th neighbour is at distance 0, k and m count all samples of that value."""
    rng = np.random.default_rng(8)
    y = np.r_[rng.integers(0, 4, 150), [4, 4, 5]]
    x = np.maximum(np.round(rng.normal(size=(y.size, 3)), 1), 0)
    x[:, 2] = rng.normal(size=y.size)
    kept = np.bincount(y)[y] > 1
    z, label = x[kept], y[kept]
    for c in range(3):
        distance = np.abs(z[:, c, None] - z[None, :, c])
        terms = []
        for i, k in enumerate(label):
            own = np.sort(np.delete(distance[i], i)[np.delete(label, i) == k])
            near = min(3, own.size)
            radius = np.nextafter(own[near - 1], 0)
            shared = 1 + int((own == 0).sum())
            terms.append(
                special.digamma(near if own[near - 1] > 0 else shared)
                - special.digamma(own.size + 1)
                - special.digamma((distance[i] <= radius).sum())
            )
        truth = special.digamma(len(z)) + np.mean(terms)
        assert information.ross_information(x, y)[c] == pytest.approx(truth, abs=1e-11)


def test_mixed_equals_brute_force_where_values_tie():
    """Mixed KSG equals its definition on a full distance matrix, atoms included."""
    rng = np.random.default_rng(9)
    x = np.maximum(np.round(rng.normal(size=(120, 2)), 1), 0)
    y = np.round(x + rng.normal(size=x.shape) * [0.0, 0.5], 1)
    for c in range(2):
        dx, dy = (np.abs(v[:, c, None] - v[None, :, c]) for v in (x, y))
        both = np.maximum(dx, dy)
        terms = []
        for i in range(len(x)):
            radius = np.sort(np.delete(both[i], i))[4]
            if radius == 0:
                counts = [(d[i] == 0).sum() for d in (both, dx, dy)]
            else:
                counts = [5, (dx[i] < radius).sum(), (dy[i] < radius).sum()]
            terms.append(special.digamma(counts[0]) - special.digamma(counts[1]) - special.digamma(counts[2]))
        truth = np.log(len(x)) + np.mean(terms)
        assert information.mixed_information(x, y)[c] == pytest.approx(truth, abs=1e-11)


def test_shuffle_correction_is_the_exact_expectation_under_shuffling():
    """It equals sklearn's expected mutual information, and real shuffles within 4 standard errors."""
    rng = np.random.default_rng(10)
    y = rng.integers(0, 5, 400)
    x = (rng.normal(size=(400, 3)) + 0.3 * y[:, None]).astype(np.float32)
    codes = information.quantize(x, 8)
    counts = information.joint_counts(codes, y, 5)
    plain = information.mutual_information(counts, correction="none")
    expected = plain - information.mutual_information(counts, correction="shuffle")
    for c in range(3):
        table = counts[c][counts[c].any(axis=1)].astype(np.int64)  # sklearn cannot take empty rows
        assert expected[c] == pytest.approx(expected_mutual_information(table, 400), abs=1e-11)
    shuffled = np.array(
        [information.mutual_information(codes, rng.permutation(y), correction="none") for _ in range(400)]
    )
    error = shuffled.std(axis=0) / np.sqrt(400)
    assert (np.abs(shuffled.mean(axis=0) - expected) < 4 * error).all()


def test_many_classes_need_the_shuffle():
    """K = 1000, N = 50,000, I = 0: plug-in 0.36, Miller-Madow and full too high, shuffle right."""
    rng = np.random.default_rng(11)
    y = rng.integers(0, 1000, N)
    x = rng.normal(size=(N, 2)).astype(np.float32)
    counts = information.joint_counts(information.quantize(x, 31), y, 1000)
    at = {
        c: information.mutual_information(counts, correction=c).mean()
        for c in ("none", "miller-madow", "full")
    }
    assert at["none"] == pytest.approx(0.36, abs=0.02)
    assert at["miller-madow"] == pytest.approx(0.115, abs=0.02)
    assert at["full"] == pytest.approx(0.050, abs=0.02)
    spread = np.sqrt(2 * 31 * 999) / (2 * N)  # of half a chi-square over N
    assert np.abs(information.mutual_information(counts, correction="shuffle")).max() < 4 * spread


def test_p_values_are_uniform_under_independence():
    """p-values of independent channels pass a Kolmogorov-Smirnov test; a real one is tiny."""
    rng = np.random.default_rng(12)
    y = rng.integers(0, 4, 2000)
    x = rng.normal(size=(2000, 300)).astype(np.float32)
    counts = information.joint_counts(information.quantize(x, 8), y, 4)
    assert stats.kstest(information.p_values(counts, method="chi2"), "uniform").pvalue > 1e-3
    few = information.joint_counts(information.quantize(x[:60], 8), y[:60], 4)
    assert stats.kstest(information.p_values(few, rounds=199), "uniform").pvalue > 1e-3
    x[:, 0] += y
    tiny = information.p_values(information.joint_counts(information.quantize(x, 8), y, 4))
    assert tiny[0] < 1e-20
    q = information.false_discovery(tiny)
    assert np.flatnonzero(q < 0.05)[0] == 0
    assert (q < 0.05).sum() <= 3


def test_permutation_p_values_are_those_of_a_table_and_a_seed():
    """Alone, among others, on any number of threads: the same; another seed draws another stream."""
    rng = np.random.default_rng(18)
    y = rng.integers(0, 4, 60)
    counts = information.joint_counts(
        information.quantize(rng.normal(size=(60, 40)).astype(np.float32), 8), y, 4
    )
    counts[20] = counts[3]

    def test(of: np.ndarray, seed: int, threads: int = 1) -> np.ndarray:
        return information.p_values(of, method="permutation", rounds=199, seed=seed, threads=threads)

    p = test(counts, 0)
    assert np.array_equal(p, test(counts, 0, threads=3))
    assert test(counts[7:8], 0)[0] == p[7]
    assert p[20] == p[3]
    other = test(counts, 5)
    assert (other[:-5] != p[5:]).mean() > 0.5  # seed 5 of channel i was seed 0 of channel i + 5
    assert (other != p).mean() > 0.5
    assert np.abs(other - p).max() < 6 * np.sqrt(0.5 / 199)


def test_permutations_agree_with_the_exact_test_of_a_two_by_two_table():
    """Fisher's: tables at least as informative as [[5, 1], [2, 6]], by their hypergeometric weights."""
    observed = np.array([[[5, 1], [2, 6]]], np.uint32)
    reach = information.mutual_information(observed, correction="none")[0]
    truth = 0.0
    for n in range(7):
        table = np.array([[[n, 6 - n], [7 - n, 1 + n]]], np.uint32)
        if information.mutual_information(table, correction="none")[0] >= reach - 1e-12:
            truth += stats.hypergeom.pmf(n, 14, 6, 7)
    got = information.p_values(observed, method="permutation", rounds=20_000)[0]
    assert got == pytest.approx(truth, abs=4 * np.sqrt(truth / 20_000))


def test_the_shuffle_from_activations_is_that_of_the_counts():
    """No table is made: margins are enough, and give what the table gives; many classes and few."""
    rng = np.random.default_rng(19)
    x = np.maximum(rng.normal(size=(3000, 70)), 0).astype(np.float32)
    for k in (3, 700):
        y = rng.integers(0, k, 3000)
        codes = information.quantize(x, 16, sketch=2048)
        by_counts = information.mutual_information(codes, y, correction="shuffle")
        direct = information.label_information(x, y, bins=16, correction="shuffle")
        np.testing.assert_allclose(direct, by_counts, atol=1e-12)


def test_false_discovery_equals_scipy():
    """Benjamini-Hochberg as scipy.stats.false_discovery_control has it, ties included."""
    p = np.round(np.random.default_rng(13).random(50) ** 3, 2)
    np.testing.assert_allclose(information.false_discovery(p), stats.false_discovery_control(p), atol=1e-15)


def test_bootstrap_intervals_cover_the_truth():
    """95% intervals of a known table hold its information in 90% to 99.5% of 200 draws."""
    rng = np.random.default_rng(14)
    p = rng.dirichlet(np.full(15, 1.5)).reshape(5, 3)
    truth = reference.information((p * 2**31).astype(np.uint32))
    draws = rng.multinomial(1500, p.ravel(), size=200).reshape(200, 5, 3).astype(np.uint32)
    got = information.bootstrap_intervals(draws, resamples=200)
    cover = np.mean((got.low <= truth) & (truth <= got.high))
    assert 0.90 <= cover <= 0.995
    assert (got.low < got.value).all()
    assert (got.value < got.high).all()


def test_copula_label_information_of_a_gaussian_mixture():
    """Two well-mixed Gaussian classes: close to the numerical integral, zero for a constant channel."""
    rng = np.random.default_rng(15)
    y = rng.integers(0, 2, 20_000)
    x = rng.normal(size=(y.size, 2)) + y[:, None] * [0.8, 0.0]
    x[:, 1] = 3
    got = information.copula_label_information(x, y)
    grid = np.linspace(-8, 9, 10_001)
    a, b = stats.norm.pdf(grid), stats.norm.pdf(grid, 0.8)
    mean = (a + b) / 2
    truth = np.trapezoid(0.5 * a * np.log(a / mean) + 0.5 * b * np.log(b / mean), grid)
    assert got[0] == pytest.approx(truth, abs=0.01)
    assert got[1] == 0


def test_normal_scores_equal_scipy():
    """Ranks (ties averaged), less the offset, through scipy's normal quantile, to 1e-13 relative."""
    x = np.random.default_rng(16).normal(size=(3000, 2))
    x[:, 1] = np.round(x[:, 1], 1)
    ranks = stats.rankdata(x, axis=0)
    for offset in (0.0, 3 / 8, 0.5):
        expected = stats.norm.ppf((ranks - offset) / (3001 - 2 * offset))
        got = information.normal_scores(x, offset=offset)
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


def test_the_uncorrected_copula_is_that_of_the_correlation():
    """-1/2 log(1 - rho^2) of the normal scores' correlation, and the correction is one constant below it."""
    x = np.random.default_rng(17).normal(size=(500, 3))
    x[:, 1] += x[:, 0]
    rho = np.corrcoef(information.normal_scores(x).T)
    plain = information.copula_information(x, correction="none")
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(plain[off], -0.5 * np.log1p(-(rho[off] ** 2)), atol=1e-12)
    bias = plain[off] - information.copula_information(x)[off]
    np.testing.assert_allclose(bias, bias[0], atol=1e-15)
    assert bias[0] == pytest.approx(1 / (2 * 500), rel=0.01)
