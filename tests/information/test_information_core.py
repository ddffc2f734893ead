"""The pipeline's path through the core agrees with brute-force NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from sklearn.metrics import mutual_info_score

from edgeprune import information


def mixed(
    samples: int = 3000, channels: int = 24, classes: int = 7, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """ReLU, offset, heavy-tailed, constant and zero channels, some of which know the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    x = rng.normal(size=(samples, channels)) + labels[:, None] * np.linspace(0, 0.5, channels)
    x[:, 0::4] = np.maximum(x[:, 0::4], 0)
    x[:, 1::4] = x[:, 1::4] * 1e-3 + 100
    x[:, 2::4] = np.exp(2 * x[:, 2::4])
    x[:, 3] = 0
    x[:, 7] = -2.5
    return x.astype(np.float32), labels


@pytest.mark.parametrize("bins", [2, 3, 8, 9, 16, 31, 32, 64, 100, 128, 129, 255])
def test_codes_count_the_thresholds_not_above_a_value(bins: int):
    """Codes equal numpy.searchsorted on the same thresholds, values on a threshold included."""
    x, _ = mixed()
    edges = information.find_edges(x, bins)
    inside = np.where(np.isfinite(edges.thresholds), edges.thresholds, 0).T
    both = np.vstack([x, inside, np.nextafter(inside, -np.inf, dtype=np.float32)])
    codes = information.quantize(both, edges=edges)
    assert codes.bins == bins + 1
    assert np.array_equal(codes.codes, reference.codes(both, edges.thresholds))


def test_zero_has_a_code_of_its_own():
    """Zero of either sign shares its code with nothing but subnormals below 2^-133."""
    x = np.array([[-1.0], [-1e-40], [-1e-42], [-0.0], [0.0], [9e-41], [1e-40], [1.0]], np.float32)
    codes = information.quantize(x, 8).codes[:, 0]
    assert len(set(codes[2:6])) == 1
    assert codes[1] < codes[3] < codes[6]


@pytest.mark.parametrize("bins", [16, 64])
def test_quantile_edges_give_bins_of_nearly_equal_mass(bins: int):
    """No bin of a continuous channel, whatever its scale and offset, holds more than 1.6 times its share."""
    x, _ = mixed(samples=4096)
    codes = information.quantize(x, bins)
    for channel in (1, 2, 5, 6, 9, 11):
        share = np.bincount(codes.codes[:, channel], minlength=codes.bins) / len(x)
        assert share.max() < 1.6 / (bins - 1), channel


@pytest.mark.parametrize("offset", [0, 2])
def test_many_bins_stay_on_the_grid_and_lose_no_information(offset: int):
    """250 bins of eight sketched samples: nearly no channel is searched within a cell; 90% of them were."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 20_000)
    x = (rng.normal(size=(y.size, 60)) + 0.7 * y[:, None] + offset).astype(np.float32)
    edges = information.find_edges(x, 250, sketch=2048)
    bits = edges.thresholds.view(np.uint32)
    on_grid = (bits & 0xFFFF) == np.where(bits >> 31, 0xFFFF, 0)
    assert (on_grid | np.isinf(edges.thresholds)).all(axis=1).mean() > 0.9
    many, few = (information.label_information(x, y, bins=b).mean() for b in (250, 64))
    assert many == pytest.approx(few, abs=2e-3)


def test_few_samples_in_one_cell_are_still_told_apart():
    """Twenty samples at 1000 +- 0.01 share one cell of the grid: nine bins all the same."""
    x = (1000 + 0.01 * np.random.default_rng(1).normal(size=(20, 3))).astype(np.float32)
    assert [len(np.unique(column)) for column in information.quantize(x, 8).codes.T] == [7, 7, 7]


def test_counts_equal_counting_one_by_one():
    """Joint counts equal numpy.add.at and sum to the samples of every channel."""
    x, labels = mixed()
    codes = information.quantize(x)
    counts = information.joint_counts(codes, labels, 7)
    assert counts.dtype == np.uint32
    assert np.array_equal(counts, reference.joint_counts(codes.codes, labels, codes.bins, 7))


def test_plug_in_information_equals_sklearn_to_1e12():
    """On identical codes the plug-in estimate is sklearn's mutual_info_score."""
    x, labels = mixed()
    codes = information.quantize(x, 64)
    ours = information.mutual_information(codes, labels, correction="none")
    theirs = [mutual_info_score(codes.codes[:, c], labels) for c in range(x.shape[1])]
    assert np.abs(ours - theirs).max() < 1e-12


def test_corrections_and_entropies_equal_their_definitions():
    """Miller-Madow, full degrees, H(T) and H(T|Y) equal the formulas on brute-force tables."""
    x, labels = mixed()
    counts = information.joint_counts(information.quantize(x), labels, 7)
    plug_in = np.array([reference.information(t) for t in counts])
    entropy = np.array([reference.entropy(t) for t in counts])
    rows = np.count_nonzero(counts.sum(2), axis=1)
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(
        information.mutual_information(counts), [reference.miller_madow(t) for t in counts], **close
    )
    np.testing.assert_allclose(
        information.mutual_information(counts, correction="full"),
        plug_in - (rows - 1) * 6 / (2 * len(x)),
        **close,
    )
    np.testing.assert_allclose(information.entropy(counts, correction="none"), entropy, **close)
    np.testing.assert_allclose(information.entropy(counts), entropy + (rows - 1) / (2 * len(x)), **close)
    np.testing.assert_allclose(
        information.conditional_entropy(counts, correction="none"), entropy - plug_in, **close
    )


@pytest.mark.parametrize("theta", [-0.2, 0.0, 0.1, 1.0])
def test_edge_scores_equal_direct_requantisation(theta: float):
    """Interpolated tables lie within 0.01 nats of quantising w*x directly, and mostly within 0.002."""
    x, labels = mixed(channels=12)
    x[:, 2::4] = np.minimum(x[:, 2::4], 50)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(9, 12)).astype(np.float32)
    weights[2, 5] = 0
    steps = np.geomspace(0.003, 30, 9).astype(np.float32)
    ours = information.edge_information(x, labels, weights, steps, theta=theta)
    direct = np.array(
        [
            [
                reference.edge_score(x[:, i], labels, 7, float(weights[j, i]), float(steps[j]), theta)
                for i in range(12)
            ]
            for j in range(9)
        ]
    )
    offset = np.zeros(12, bool)
    offset[1::4] = True  # mean 100, sd 0.001: below the input's own INT8 step, where only the phase matters
    difference = np.abs(ours - direct)[:, ~offset]
    assert difference.max() < 0.02
    assert np.median(difference) < 0.002
    assert ours[2, 5] == 0


def wishart(rng: np.random.Generator, size: int) -> np.ndarray:
    a = rng.normal(size=(3 * size, size)) @ (np.eye(size) + 0.3 * rng.normal(size=(size, size)))
    return a.T @ a / len(a) + 0.01 * np.eye(size)


@pytest.mark.parametrize("seed", range(4))
def test_elimination_equals_refitting_from_scratch(seed: int):
    """Schur downdates give the order and the scores of least squares and inverses redone at every step."""
    rng = np.random.default_rng(seed)
    single = np.arange(9, dtype=np.int32)
    grouped = np.array([0, 0, 1, 1, 2, -1, 3, 3, 3, 5, 5, -1], np.int32)
    parts = [
        (wishart(rng, 9), rng.normal(size=(6, 9)), single),
        (wishart(rng, 12), rng.normal(size=(4, 12)), grouped),
    ]
    order, score, initial = reference.backward_elimination(parts, 10)
    got = information.backward_elimination([information.Consumer(s, w.T @ w, u) for s, w, u in parts], 10)
    assert got.order.tolist() == order
    np.testing.assert_allclose(got.score_nats, score, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.initial_nats, initial, rtol=1e-9, atol=1e-12)
    assert order[0] == 9  # read by nobody


def test_elimination_of_independent_inputs_follows_the_closed_form():
    """With a diagonal covariance the score is 1/2 log(1 + variance * energy) and nothing is absorbed."""
    variance = np.array([1.0, 4.0, 0.25, 9.0])
    weights = np.array([[1.0, 0.1, 3.0, 0.5], [0.0, 0.2, 1.0, 0.5]])
    energy = weights.T @ weights
    got = information.backward_elimination(
        [information.Consumer(np.diag(variance), energy, np.arange(4, dtype=np.int32))], 4
    )
    expected = 0.5 * np.log1p(variance * np.diag(energy))
    np.testing.assert_allclose(got.initial_nats, expected, rtol=1e-13)
    np.testing.assert_allclose(got.score_nats, expected, rtol=1e-13)
    assert got.order.tolist() == np.argsort(expected).tolist()
