"""JMI selection, and labels that are not one class per sample."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from edgeprune import information
from edgeprune.errors import DataError


def data(n: int = 600, channels: int = 9, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, channels)) + y[:, None] * rng.random(channels)
    x[:, 5] = x[:, 2] + 0.01 * rng.normal(size=n)  # a twin
    x[:, 1] = 0
    return np.maximum(x, 0).astype(np.float32), y


def pair_table(codes: information.Codes, y: np.ndarray, i: int, j: int, classes: int) -> np.ndarray:
    table = np.zeros((codes.bins**2, classes), np.uint32)
    joint = codes.codes[:, i].astype(int) * codes.bins + codes.codes[:, j]
    np.add.at(table, (joint, y), 1)
    return table


@pytest.mark.parametrize("correction", ["none", "miller-madow"])
@pytest.mark.parametrize("theta", [0.0, 0.3, -0.2])
def test_selection_equals_brute_force(theta: float, correction: str):
    """Order and scores equal greedy JMI on pair tables counted one by one, for an odd number of channels."""
    x, y = data()
    codes = information.quantize(x, 7)
    h = information.entropy(codes)
    estimate = reference.information if correction == "none" else reference.miller_madow
    got = information.jmi_selection(codes, y, 6, theta=theta, entropy=h, correction=correction)
    chosen: list[int] = []
    for step in range(6):
        scores = np.full(9, -np.inf)
        for i in set(range(9)) - set(chosen):
            if not chosen:
                scores[i] = estimate(pair_table(codes, y, i, i, 4))
            else:
                pairs = [estimate(pair_table(codes, y, i, j, 4)) for j in chosen]
                scores[i] = (1 - theta) * np.mean(pairs) + theta * h[i]
        chosen.append(int(np.argmax(scores)))
        assert got.score_nats[step] == pytest.approx(scores.max(), abs=1e-12)
    assert got.order.tolist() == chosen


@pytest.mark.parametrize("threads", [1, 3])
def test_selection_over_several_sources_with_a_bonus_equals_brute_force(threads: int):
    """Information is the mean over the sources, the bonus counts at every step, others are never chosen."""
    x, y = data()
    noisy = x + np.random.default_rng(4).normal(size=x.shape).astype(np.float32)
    sources = [information.quantize(x, 7), information.quantize(noisy, 7)]
    bonus = np.random.default_rng(5).normal(size=9) * 0.1
    candidates = np.arange(9) % 4 != 2
    got = information.jmi_selection(sources, y, 7, bonus=bonus, candidates=candidates, threads=threads)
    chosen: list[int] = []
    for step in range(7):
        scores = np.full(9, -np.inf)
        for i in set(np.flatnonzero(candidates).tolist()) - set(chosen):
            with_ = chosen or [i]
            pairs = [reference.miller_madow(pair_table(c, y, i, j, 4)) for c in sources for j in with_]
            scores[i] = np.mean(pairs) + bonus[i]
        chosen.append(int(np.argmax(scores)))
        assert got.score_nats[step] == pytest.approx(scores.max(), abs=1e-12)
    assert got.order.tolist() == chosen


def test_joint_information_of_a_channel_with_itself_is_its_own():
    """I(T, T; Y) = I(T; Y), and no pair says less than its better half."""
    x, y = data()
    codes = information.quantize(x, 7)
    single = information.mutual_information(codes, y, correction="none")
    pairs = np.array([information.joint_information(codes, y, j, correction="none") for j in range(9)])
    np.testing.assert_allclose(np.diag(pairs), single, atol=1e-12)
    np.testing.assert_allclose(pairs, pairs.T, atol=1e-12)
    assert (pairs >= np.maximum(single[:, None], single[None, :]) - 1e-12).all()


def test_a_twin_is_chosen_late():
    """After one of two near-copies is taken, every other informative channel comes before the second."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 4000)
    x = rng.normal(size=(4000, 4)) + 0.8 * np.eye(4)[y]
    x = np.c_[x, x[:, 0] + 1e-6 * rng.normal(size=4000)].astype(np.float32)
    order = information.jmi_selection(information.quantize(x, 7), y, 5).order.tolist()
    assert order.index(0) == 4 or order.index(4) == 4


def test_targets_are_binned_by_equal_mass_and_ties_stay_together():
    """Continuous targets: equal classes; equal targets: one class; codes rise with the target."""
    y = np.random.default_rng(2).normal(size=1000)
    got = information.bin_targets(y, 10)
    assert np.bincount(got).tolist() == [100] * 10
    assert (np.diff(got[np.argsort(y)]) >= 0).all()
    tied = information.bin_targets(np.r_[np.zeros(900), np.arange(1, 101)], 10)
    assert len(set(tied[:900])) == 1
    assert information.bin_targets(np.full(5, 3.0)).tolist() == [0] * 5


def test_hard_labels_are_a_case_of_soft_ones():
    """One-hot probabilities give the counts of the labels times the resolution, and the same information."""
    x, y = data()
    codes = information.quantize(x, 7)
    hard = information.joint_counts(codes, y, 4)
    soft = information.soft_joint_counts(codes, np.eye(4)[y], resolution=100)
    assert np.array_equal(soft, hard * 100)
    for correction in ("none", "miller-madow", "full"):
        np.testing.assert_allclose(
            information.mutual_information(soft, unit=100, correction=correction),
            information.mutual_information(hard, correction=correction),
            atol=1e-12,
        )
    with pytest.raises(DataError, match="unit is 100 with correction shuffle"):
        information.mutual_information(soft, unit=100, correction="shuffle")


def test_soft_counts_hand_out_every_unit_by_largest_remainder():
    """Each sample gives exactly `resolution` units, each class within one of its share."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    p = rng.dirichlet(np.ones(5), size=300)
    codes = information.quantize(x, 4)
    counts = information.soft_joint_counts(codes, p, resolution=64)
    assert counts.sum(axis=(1, 2)).tolist() == [300 * 64] * 2
    exact = np.zeros((codes.bins, 5))
    np.add.at(exact, codes.codes[:, 0], p * 64)
    members = np.bincount(codes.codes[:, 0], minlength=codes.bins)
    assert (np.abs(counts[0] - exact) <= members[:, None]).all()


def test_several_labels_are_scored_one_by_one():
    """Each column of a multi-label target is a binary label of its own."""
    x, y = data()
    codes = information.quantize(x, 7)
    labels = np.eye(4, dtype=bool)[y]
    got = information.multilabel_information(codes, labels)
    assert got.shape == (9, 4)
    np.testing.assert_array_equal(got[:, 2], information.mutual_information(codes, (y == 2).astype(int)))
