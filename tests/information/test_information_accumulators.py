"""Accumulators: exact merging, files, bounded memory."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgeprune import information
from edgeprune.errors import DataError, OutputError


def batch(
    n: int = 1000, channels: int = 20, classes: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = np.maximum(rng.normal(size=(n, channels)) + y[:, None] * 0.2, 0).astype(np.float32)
    return x, y


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["joint", "edge"])
def test_counts_are_bit_equal_over_any_number_of_ranks(ranks: int, kind: str, tmp_path: Path):
    """Strided shards, saved, loaded and merged in reverse order give the bytes of a single pass."""
    x, y = batch()
    if kind == "joint":
        edges = information.find_edges(x, 16)

        def fresh() -> information.JointCounts:
            return information.JointCounts(edges, 5)
    else:

        def fresh() -> information.EdgeCounts:
            return information.EdgeCounts(np.abs(x).max(0), 5)

    whole = fresh().update(x, y)
    whole.save(tmp_path / "whole.npz")
    total = fresh()
    for rank in reversed(range(ranks)):
        part = fresh()
        for i in range(rank, len(x), ranks * 100):
            part.update(x[i : i + 100 * ranks : ranks], y[i : i + 100 * ranks : ranks])
        part.save(tmp_path / f"{rank}.npz")
        total.merge(type(part).load(tmp_path / f"{rank}.npz"))
    total.save(tmp_path / "total.npz")
    assert (tmp_path / "total.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_threads_and_concurrent_updates_change_no_bit():
    """One or three threads inside, and four Python threads outside, count the same."""
    x, y = batch(3000, 150)
    edges = information.find_edges(x, 32, threads=1)
    assert edges == information.find_edges(x, 32, threads=3)
    one = information.JointCounts(edges, 5).update(x, y, threads=1)
    three = information.JointCounts(edges, 5).update(x, y, threads=3)
    shared = information.JointCounts(edges, 5)
    crew = [threading.Thread(target=shared.update, args=(x[i::4], y[i::4])) for i in range(4)]
    for member in crew:
        member.start()
    for member in crew:
        member.join()
    assert one.counts.tobytes() == three.counts.tobytes() == shared.counts.tobytes()


def test_memory_does_not_grow_with_samples():
    """Updating with forty times the samples allocates no more at its peak."""
    x, y = batch(500, 64)
    counts = information.JointCounts(information.find_edges(x, 32), 5)
    covariance = information.Covariance(64)

    def peak(rounds: int) -> int:
        tracemalloc.start()
        for _ in range(rounds):
            counts.update(x, y)
            covariance.update(x)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    first = peak(2)
    assert peak(80) < 2 * first + 6 * 64 * 64 * 8  # a few more levels of the tree


def test_edge_counts_score_as_edge_information_does():
    """With the ranges of the data, accumulated fine counts give the very scores of one call."""
    x, y = batch()
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(6, 20)).astype(np.float32)
    steps = np.full(6, 0.4, np.float32)
    counts = information.EdgeCounts(np.abs(x).max(0), 5)
    for i in range(0, 1000, 130):
        counts.update(x[i : i + 130], y[i : i + 130])
    direct = information.edge_information(x, y, weights, steps, theta=-0.2)
    assert np.array_equal(counts.scores(weights, steps, theta=-0.2), direct)


def test_a_failed_update_changes_nothing():
    """A NaN late in a batch, or a bad label, leaves every count as it was."""
    x, y = batch()
    for counts in (
        information.JointCounts(information.find_edges(x, 16), 5),
        information.EdgeCounts(np.abs(x).max(0), 5),
    ):
        counts.update(x, y)
        before = counts.counts.tobytes()
        bad = x.copy()
        bad[990, 13] = np.nan
        with pytest.raises(DataError, match=r"x\[990, 13\] is nan"):
            counts.update(bad, y)
        with pytest.raises(DataError, match=r"labels\[3\] is 5, outside 0..4"):
            counts.update(x[:4], np.array([0, 1, 2, 5]))
        assert counts.counts.tobytes() == before
        assert counts.samples == 1000
        counts.update(x[:0], y[:0])  # an empty batch is nothing
        assert counts.samples == 1000


def test_counts_cannot_overflow():
    """The sample that would pass 2^32 - 1 is refused."""
    x, y = batch(10, 2)
    counts = information.JointCounts(information.find_edges(x, 4), 5)
    counts.samples = 2**32 - 8
    with pytest.raises(DataError, match="at most 4294967295 fit"):
        counts.update(x, y)
    other = information.JointCounts(counts.edges, 5)
    other.samples = 8
    with pytest.raises(DataError, match="at most 4294967295 fit"):
        counts.merge(other)


def test_merging_needs_the_same_edges_and_classes():
    """Another quantisation, class count or kind is refused by name."""
    x, y = batch()
    edges = information.find_edges(x, 16)
    counts = information.JointCounts(edges, 5).update(x, y)
    moved = edges.thresholds.copy()
    moved[3, -2] *= 1.5
    moved[3, -1] *= 2
    with pytest.raises(DataError, match=r"thresholds\[3, 14\]"):
        counts.merge(information.JointCounts(information.Edges(moved), 5))
    with pytest.raises(DataError, match="shape"):
        counts.merge(information.JointCounts(information.find_edges(x, 8), 5))
    with pytest.raises(DataError, match="6 classes"):
        counts.merge(information.JointCounts(edges, 6))
    with pytest.raises(DataError, match="wanted JointCounts"):
        counts.merge(information.EdgeCounts(np.ones(20), 5))
    with pytest.raises(DataError, match="other ranges"):
        information.EdgeCounts(np.ones(20), 5).merge(information.EdgeCounts(np.full(20, 2.0), 5))


def test_damaged_files_are_refused(tmp_path: Path):
    """Missing, truncated, foreign and inconsistent files and unwritable places: a typed error."""
    x, y = batch(50, 3)
    counts = information.JointCounts(information.find_edges(x, 4), 5).update(x, y)
    path = tmp_path / "counts.npz"
    counts.save(path)
    data = path.read_bytes()
    for spoiled in (b"", data[: len(data) // 2], b"not a zip"):
        path.write_bytes(spoiled)
        with pytest.raises(DataError, match="cannot read"):
            information.JointCounts.load(path)
    with pytest.raises(DataError, match="cannot read"):
        information.JointCounts.load(tmp_path / "absent.npz")
    information.Covariance(3).save(path)
    with pytest.raises(DataError, match="holds covariance/1, wanted joint-counts/1"):
        information.JointCounts.load(path)
    counts.samples += 1
    counts.save(path)
    with pytest.raises(DataError, match="do not add up to 51"):
        information.JointCounts.load(path)
    with pytest.raises(OutputError, match="cannot write"):
        counts.save(tmp_path / "no" / "folder.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counts.npz"]


@pytest.mark.parametrize("seed", range(4))
def test_covariance_is_bit_equal_for_any_split_and_order(seed: int, tmp_path: Path):
    """Numbered samples in any batches, order and ranks, saved and loaded, give the bits of one pass."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(1777, 13)) @ rng.normal(size=(13, 13)) + 5).astype(np.float32)
    shift = x[:10].mean(0).astype(np.float64)
    whole = information.Covariance(13, shift).update(x).moments()
    cuts = np.unique(np.r_[0, rng.integers(0, 1777, 12), 1777])
    pieces = list(itertools.pairwise(cuts))
    rng.shuffle(pieces)
    ranks = [information.Covariance(13, shift) for _ in range(3)]
    for i, (a, b) in enumerate(pieces):
        ranks[i % 3].update(x[a:b], start=int(a), threads=1 + i % 2)
    ranks[1].save(tmp_path / "one.npz")
    total = ranks[2].merge(information.Covariance.load(tmp_path / "one.npz")).merge(ranks[0]).moments()
    assert total.samples == whole.samples == 1777
    assert total.covariance.tobytes() == whole.covariance.tobytes()
    assert total.mean.tobytes() == whole.mean.tobytes()
    np.testing.assert_allclose(
        whole.covariance, np.cov(x.T.astype(np.float64), bias=True), rtol=1e-11, atol=1e-12
    )


def test_covariance_keeps_precision_beside_a_large_offset():
    """Mean 1000 and standard deviation 1e-2: the variance is right to 1e-9 relative of what float32 holds."""
    x = (1000 + 0.01 * np.random.default_rng(0).normal(size=(5000, 3))).astype(np.float32)
    got = information.covariance(x)
    np.testing.assert_allclose(
        got.covariance, np.cov(x.T.astype(np.float64), bias=True), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("offset", [1e4, 1e8, -1e12])
def test_covariance_takes_float64_as_it_is(offset: float):
    """An offset that float32 cannot hold beside the spread: the variance was 0, and is right to rounding."""
    x = np.random.default_rng(1).normal(size=(5000, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 3]])
    x += offset  # from here on, x is what it is
    centred = x - x[0]
    truth = np.cov(centred.T, bias=True)
    np.testing.assert_allclose(information.covariance(x).covariance, truth, rtol=1e-9, atol=1e-9)
    parts = information.Covariance(3, x[0]).update(x[:1000]).update(x[1000:1003]).update(x[1003:])
    np.testing.assert_allclose(parts.moments().covariance, truth, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parts.moments().mean, x.mean(axis=0), rtol=1e-14)


def test_a_covariance_in_either_float_type_has_the_same_bits():
    """float32 values in float64, whole blocks and loose samples: nothing is rounded on the way."""
    x = np.random.default_rng(2).normal(size=(700, 5)).astype(np.float32)
    one, other = (information.Covariance(5).update(x.astype(t)).moments() for t in (np.float32, np.float64))
    assert one.covariance.tobytes() == other.covariance.tobytes()


def test_covariance_refuses_a_sample_twice():
    """A number that was there already is an error that names it, in update and in merge."""
    x = np.zeros((600, 2), np.float32)
    one = information.Covariance(2).update(x)
    with pytest.raises(DataError, match="sample 100 was added before"):
        one.update(x[:5], start=100)
    with pytest.raises(DataError, match="sample 590 was added before"):
        one.merge(information.Covariance(2).update(x[:20], start=590))
    with pytest.raises(DataError, match="another shift"):
        one.merge(information.Covariance(2, np.ones(2)).update(x, start=1000))
    with pytest.raises(DataError, match="no samples"):
        information.Covariance(2).moments()


def test_integer_covariance_is_exact():
    """Sums of INT8 codes equal Python's integers, and merging equals one pass."""
    codes = np.random.default_rng(0).integers(-128, 128, size=(9000, 5)).astype(np.int8)
    whole = information.IntegerCovariance(5).update(codes)
    wide = codes.astype(object)
    assert np.array_equal(whole.products.astype(object), wide.T @ wide)
    parts = (
        information.IntegerCovariance(5)
        .update(codes[5000:])
        .merge(information.IntegerCovariance(5).update(codes[:5000]))
    )
    assert np.array_equal(parts.products, whole.products)
    assert np.array_equal(parts.sums, whole.sums)
    np.testing.assert_allclose(
        whole.moments(0.5).covariance, np.cov(codes.T.astype(np.float64), bias=True) / 4, rtol=1e-12
    )


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_integer_covariance_is_bit_equal_over_any_number_of_ranks(ranks: int, tmp_path: Path):
    """Strided shards, saved, loaded and merged in reverse order give the bytes of a single pass."""
    codes = np.random.default_rng(1).integers(0, 256, size=(5000, 4)).astype(np.uint8)
    information.IntegerCovariance(4).update(codes).save(tmp_path / "whole.npz")
    total = information.IntegerCovariance(4)
    for rank in reversed(range(ranks)):
        information.IntegerCovariance(4).update(codes[rank::ranks]).save(tmp_path / "part.npz")
        total.merge(information.IntegerCovariance.load(tmp_path / "part.npz"))
    total.save(tmp_path / "total.npz")
    assert (tmp_path / "total.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def doubled(codes: np.ndarray, times: int) -> information.IntegerCovariance:
    """The state of codes that were seen 2^times times."""
    out = information.IntegerCovariance(codes.shape[1]).update(codes)
    for _ in range(times):
        out.merge(out)
    return out


@pytest.mark.parametrize("times", [0, 10, 21, 22, 24, 30, 46])
def test_integer_moments_are_right_for_every_number_of_samples(times: int):
    """Seen 2^times times, up to 2^47 samples: the moments of the few codes, as exact fractions give them."""
    codes = np.array([[0, 255, 3], [255, 0, 255]], np.uint8)
    got = doubled(codes, times).moments()
    wide = [[Fraction(int(c)) for c in row] for row in codes]
    mean = [(a + b) / 2 for a, b in zip(*wide, strict=True)]
    truth = [[sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in wide) / 2 for j in range(3)] for i in range(3)]
    assert got.samples == 2 << times
    assert got.mean.tolist() == [float(m) for m in mean]
    assert got.covariance.tolist() == [[float(v) for v in row] for row in truth]  # 16256.25 is the first
    assert np.array_equal(got.covariance * 4, doubled(codes, times).moments(2.0).covariance)


def test_integer_sums_cannot_overflow():
    """A merge or a batch that 64 bits cannot hold is refused by channel, and nothing is added."""
    most = doubled(np.array([[1, 255]], np.uint8), 47)  # 2^47 squares of 255; 2^63 is passed by twice that
    state = most.samples, most.sums.tobytes(), most.products.tobytes()
    with pytest.raises(DataError, match=r"the squares of channel 1 would pass 2\^63 - 1"):
        most.merge(most)
    nearly = information.IntegerCovariance(2).merge(most)
    nearly.products[1, 1] = 2**63 - 65025
    with pytest.raises(DataError, match=r"\d+ samples added, 2 would follow: the squares of channel 1"):
        nearly.update(np.full((2, 2), 255, np.uint8))
    assert (most.samples, most.sums.tobytes(), most.products.tobytes()) == state
    zeros = doubled(np.zeros((1, 1), np.int8), 62)
    assert zeros.moments().covariance.tolist() == [[0.0]]
    with pytest.raises(DataError, match="the samples would pass"):
        zeros.merge(zeros)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", np.array(-1)),
        ("samples", np.array(0)),
        ("sums", np.array([10**6, 0])),
        ("sums", np.array([-(2**63), 0])),
        ("sums", np.zeros(3, np.int64)),
        ("sums", np.zeros(2)),
        ("products", np.array([[1, 2], [3, 4]])),
        ("products", np.array([[1, 10**9], [10**9, 1]])),
        ("products", -np.eye(2, dtype=np.int64)),
    ],
)
def test_a_damaged_integer_state_is_refused(name: str, value: np.ndarray, tmp_path: Path):
    """Sums that no codes have, shapes and types that do not fit: a typed error, not a wrong covariance."""
    path = tmp_path / "state.npz"
    good = information.IntegerCovariance(2).update(np.array([[3, 4], [5, -6]], np.int8))
    good.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(DataError, match=r"state\.npz"):
        information.IntegerCovariance.load(path)


@pytest.mark.parametrize("name", ["shift", "samples", "nodes", "sums", "products", "blocks", "rows", "there"])
def test_a_damaged_covariance_is_refused(name: str, tmp_path: Path):
    """Whatever part of the file is short of an entry: a typed error."""
    path = tmp_path / "state.npz"
    information.Covariance(2).update(np.zeros((700, 2), np.float32)).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, name: arrays[name][:-1]})
    with pytest.raises(DataError):
        information.Covariance.load(path)


def spoiled_states() -> list[tuple[str, str, object]]:
    """States of the right shapes that no samples have: name, what is changed, and how."""
    return [
        ("a level below 0", "nodes", lambda a: a * 0 - 1),
        ("a level beyond 63 bits", "nodes", lambda a: a * 0 + 60),
        ("an index beyond 63 bits", "nodes", lambda a: a * 0 + [1, 2**54]),
        ("one block twice", "nodes", lambda a: a[:1].repeat(len(a), 0)),
        ("NaN", "products", lambda a: a * np.nan),
        ("no symmetry", "products", np.triu),
        ("a square below 0", "products", lambda a: a - 1e9),
        ("infinity", "sums", lambda a: a + np.inf),
        ("NaN", "rows", lambda a: a + np.nan),
        ("a block that is whole", "there", np.ones_like),
        ("a negative block", "blocks", lambda a: a * 0 - 1),
        ("a block that is in a node", "blocks", lambda a: a * 0),
        ("negative samples", "samples", lambda a: -a),
        ("another number of samples", "samples", lambda a: a + 1),
        ("an infinite shift", "shift", lambda a: a + np.inf),
    ]


@pytest.mark.parametrize(
    ("what", "name", "change"), spoiled_states(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_state_of_no_samples_is_refused(what: str, name: str, change, tmp_path: Path):
    """A negative level was a bare ValueError, NaN was taken; a file is no more trusted than a batch."""
    path = tmp_path / "state.npz"
    x = np.random.default_rng(3).normal(size=(900, 2))  # three blocks and a loose part
    information.Covariance(2).update(x).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, name: change(arrays[name])})
    with pytest.raises(DataError):
        information.Covariance.load(path)


def test_a_lone_array_is_no_state(tmp_path: Path):
    """An npy file, which NumPy reads too, is refused."""
    np.save(tmp_path / "state.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot read"):
        information.JointCounts.load(tmp_path / "state.npy")
