"""Soft labels: exact counts that merge, and estimates that know how much the labels scatter."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgeprune import information
from edgeprune.errors import DataError

RNG = np.random.default_rng(0)
N = 2000
X = RNG.normal(size=(N, 200)).astype(np.float32)
LOGITS = 3 * RNG.normal(size=(N, 3))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
EDGES = information.find_edges(X, 4)
CODES = information.encode(X, EDGES)


def soft(x: np.ndarray = X, p: np.ndarray = P, resolution: int = 256) -> information.SoftCounts:
    return information.SoftCounts(EDGES, p.shape[1], resolution).update(x, p)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_soft_counts_are_bit_equal_over_any_number_of_ranks(ranks: int, tmp_path: Path):
    """Strided shards, saved, loaded and merged in reverse order give the bytes of a single pass."""
    whole = soft()
    whole.save(tmp_path / "whole.npz")
    total = information.SoftCounts(EDGES, 3)
    for rank in reversed(range(ranks)):
        soft(X[rank::ranks], P[rank::ranks]).save(tmp_path / "part.npz")
        total.merge(information.SoftCounts.load(tmp_path / "part.npz"))
    total.save(tmp_path / "total.npz")
    assert (tmp_path / "total.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert np.array_equal(total.counts, information.soft_joint_counts(CODES, P))
    assert total.samples == N


def test_certain_labels_are_those_of_joint_counts():
    """One-hot probabilities: the full-degrees correction and the chi-square p-value of the classes."""
    y = P.argmax(axis=1)
    counts = information.joint_counts(CODES, y, 3)
    got = soft(p=np.eye(3)[y])
    full = information.mutual_information(counts, correction="full")
    np.testing.assert_allclose(got.information(), full, atol=1e-14)
    np.testing.assert_allclose(
        got.information(correction="none"), information.mutual_information(counts, correction="none")
    )
    np.testing.assert_allclose(got.p_values(), information.p_values(counts, method="chi2"), rtol=1e-9)


def test_soft_p_values_are_uniform_under_independence():
    """Independent channels pass a Kolmogorov-Smirnov test; counts taken for samples gave 0 for all."""
    p = soft().p_values()
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    counts = information.soft_joint_counts(CODES, P)
    assert (information.p_values(counts) < 0.05).mean() > 0.9  # unit forgotten
    careful = information.p_values(counts, unit=256)
    assert (careful < 0.05).mean() <= 0.05  # too large, but no false alarm
    assert (careful >= p - 1e-12).all()
    x = X.copy()
    x[:, 0] += P[:, 0]
    assert soft(x).p_values()[0] < 1e-10


def test_soft_information_is_unbiased_under_independence():
    """The mean over 200 independent channels is within 4 standard errors of 0; Miller-Madow's is not."""
    nats = soft().information()
    error = nats.std() / np.sqrt(nats.size)
    assert abs(nats.mean()) < 4 * error
    low = information.mutual_information(information.soft_joint_counts(CODES, P), unit=256)
    assert low.mean() < -4 * error


def test_entropies_of_soft_counts_are_those_of_samples():
    """H(T) does not know of labels; H(T|Y) lies between its two corrections."""
    counts = information.soft_joint_counts(CODES, P)
    hard = information.entropy(CODES)
    np.testing.assert_allclose(information.entropy(counts, unit=256), hard, atol=1e-14)
    low, high = (
        information.conditional_entropy(counts, unit=256, correction=c) for c in ("none", "miller-madow")
    )
    mid = hard - soft().information()
    assert (low < mid).all()
    assert (mid < high).all()
    one_sample = information.soft_joint_counts(information.encode(X[:1], EDGES), P[:1])
    for call in (information.entropy, information.conditional_entropy):
        with pytest.raises(DataError, match="channel 0 has 1 samples, wanted at least two"):
            call(one_sample, unit=256)


def test_a_wrong_unit_and_what_counts_cannot_tell_are_refused():
    """A total that is no multiple, a permutation, an interval: refused with the reason."""
    counts = information.soft_joint_counts(CODES, P)
    for call in (
        information.mutual_information,
        information.entropy,
        information.conditional_entropy,
        information.p_values,
    ):
        with pytest.raises(DataError, match="add up to 512000, no multiple of unit=255"):
            call(counts, unit=255)
    with pytest.raises(DataError, match="unit is 256, channel 0 wants a permutation"):
        information.p_values(counts, unit=256, method="permutation")
    with pytest.raises(DataError, match="do not tell how their samples scatter"):
        information.bootstrap_intervals(counts, unit=256)


def test_soft_counts_cannot_overflow():
    """The sample whose units would pass 2^32 - 1 is refused, in update and in merge; arrays cannot see it."""
    one = soft(X[:10], P[:10], 65536)
    one.samples = 65535
    before = one.counts.tobytes()
    for call in (lambda: one.update(X[:1], P[:1]), lambda: one.merge(soft(X[:1], P[:1], 65536))):
        with pytest.raises(DataError, match="65535 samples counted, 1 would follow; at most 65535 fit"):
            call()
    assert one.counts.tobytes() == before


def test_soft_counts_refuse_what_does_not_fit(tmp_path: Path):
    """Other classes, resolutions, edges and kinds, rows that are no distribution, and damaged files."""
    counts = soft()
    other = information.SoftCounts(information.find_edges(X, 5), 3)
    for wrong, text in (
        (soft(resolution=16), "other has 3 classes and resolution 16, this one has 3 and 256"),
        (soft(p=np.full((N, 2), 0.5)), "other has 2 classes"),
        (other, "other has edges of shape"),
        (information.JointCounts(EDGES, 3), "other is a JointCounts, wanted SoftCounts"),
    ):
        with pytest.raises(DataError, match=text):
            counts.merge(wrong)
    with pytest.raises(DataError, match="probabilities have 2 classes, the accumulator has 3"):
        counts.update(X, np.full((N, 2), 0.5))
    with pytest.raises(DataError, match=r"probabilities\[0\] is no distribution"):
        counts.update(X, P * 2)
    with pytest.raises(DataError, match="0 samples were added, wanted at least two"):
        information.SoftCounts(EDGES, 3).p_values()
    path = tmp_path / "state.npz"
    counts.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    for spoiled in (
        arrays["pairs"][:2, :2],
        arrays["pairs"] + 1,
        arrays["pairs"] * -1,
        np.triu(arrays["pairs"]),
    ):
        np.savez(path, **{**arrays, "pairs": spoiled})
        with pytest.raises(DataError, match="pairs are not those of its counts"):
            information.SoftCounts.load(path)


def test_one_label_for_all_says_nothing():
    """Every sample with the same probabilities: information 0, p-value 1, whatever the channel."""
    got = soft(p=np.tile([0.5, 0.25, 0.25], (N, 1)))
    assert np.abs(got.information()).max() < 1e-12
    assert got.p_values().tolist() == [1.0] * 200


def test_the_scatter_of_labels_is_exact_at_every_resolution():
    """Sums of products are whole numbers: the same from one sample at a time as from a batch."""
    for resolution, step in itertools.product((1, 256, 65536), (7, N)):
        parts = information.SoftCounts(EDGES, 3, resolution)
        for first in range(0, 70, step):
            parts.update(X[first : min(first + step, 70)], P[first : min(first + step, 70)])
        whole = soft(X[:70], P[:70], resolution)
        assert np.array_equal(parts._pairs, whole._pairs)
        assert int(whole._pairs.sum()) == 70 * resolution**2
