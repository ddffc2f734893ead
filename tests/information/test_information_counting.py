"""Counting straight from activations: the same bits as by way of codes and tables."""

from __future__ import annotations

import numpy as np
import pytest
import reference

import edgeprune._core as core
from edgeprune import information
from edgeprune.errors import DataError

SAMPLES = 2300  # more than two tiles, and no multiple of eight


@pytest.fixture(params=core.simd_available())
def simd(request: pytest.FixtureRequest):
    """Run a test on each instruction set that this processor has."""
    core.simd_select(request.param)
    yield request.param
    core.simd_select("auto")


def channels(count: int) -> np.ndarray:
    """ReLU, offset, heavy-tailed, tiny, enormous, constant and widely spread channels in turn."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, count))
    x[:, 0::7] = np.maximum(x[:, 0::7], 0)
    x[:, 1::7] += 30
    x[:, 2::7] = np.exp(3 * x[:, 2::7])
    x[:, 3::7] *= 1e-38
    x[:, 4::7] *= 1e37
    x[:, 5::7] = 2.5
    x[:, 6::7] = np.sign(x[:, 6::7]) * 10.0 ** (
        70 * rng.random(x[:, 6::7].shape) - 35
    )  # 116 octaves, both signs
    x[::50] = -0.0
    return x.astype(np.float32)


@pytest.mark.parametrize("bins", [2, 16, 32, 64, 128, 255])
@pytest.mark.parametrize("classes", [1, 10, 700])
def test_label_information_is_bit_equal_to_the_way_by_tables(simd: str, bins: int, classes: int):
    """Whatever the bins and classes, C order, F order and strided, one thread and three."""
    x = channels(75)
    y = np.random.default_rng(1).integers(0, classes, SAMPLES)
    y[y == 3] = 0  # a class without samples
    edges = information.find_edges(x, bins, sketch=2048)
    counts = information.joint_counts(information.encode(x, edges), y, classes)
    for correction in ("none", "miller-madow", "full"):
        expected = information.mutual_information(counts, correction=correction)
        for layout in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
            for threads in (1, 3):
                got = information.label_information(
                    layout, y, bins=bins, classes=classes, correction=correction, threads=threads
                )
                assert got.tobytes() == expected.tobytes()


def test_channels_without_room_in_a_look_up_are_searched_instead(simd: str):
    """Sixteen channels of 116 octaves each exceed the 64 KB of their table, and count the same."""
    x = channels(16 * 7)[:, 6::7]
    y = np.arange(SAMPLES) % 5
    edges = information.find_edges(x, 200)
    counts = information.JointCounts(edges, 5).update(x, y).counts
    codes = np.array(
        [np.searchsorted(t, x[:, c], side="right") for c, t in enumerate(edges.thresholds)], np.uint8
    ).T
    assert np.array_equal(codes, information.encode(x, edges).codes)
    assert np.array_equal(counts, reference.joint_counts(codes, y, edges.bins, 5))


def test_a_threshold_of_zero_is_reached_by_both_zeros(simd: str):
    """-0.0 is not below 0.0, though its bits are: codes are compared as floats."""
    x = np.array([[-0.0], [0.0], [-1e-45], [1e-45]], np.float32)
    edges = information.Edges(np.zeros((1, 1), np.float32))
    assert information.encode(x, edges).codes[:, 0].tolist() == [1, 1, 0, 1]
    assert information.JointCounts(edges, 1).update(x, np.zeros(4, int)).counts[0, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_outside_the_sketch_is_named(simd: str, order: str, value: float):
    """The edges never see it, the count does; the message has its index, and accumulators are unchanged."""
    x = np.array(channels(20), order=order)
    y = np.zeros(SAMPLES, int)
    sample = int(np.setdiff1d(np.arange(SAMPLES), information.sketch_rows(SAMPLES, 64))[-1])
    edges = information.find_edges(x, 16, sketch=64)
    x[sample, 17] = value
    total = information.JointCounts(edges, 1)
    for call in (
        lambda: information.label_information(x, y, bins=16, sketch=64),
        lambda: information.label_information(x, y, bins=16, sketch=64, correction="shuffle"),
        lambda: total.update(x, y),
    ):
        with pytest.raises(DataError, match=rf"x\[{sample}, 17\] is {value}"):
            call()
    assert total.samples == 0
    assert not total.counts.any()


def test_label_information_needs_two_samples_and_a_known_correction():
    """One sample, or an unknown correction, is refused before any count is made."""
    x = np.ones((1, 2), np.float32)
    with pytest.raises(DataError, match="channel 0 has 1 samples, wanted at least two"):
        information.label_information(x, [0])
    with pytest.raises(DataError, match="correction is 'best'"):
        information.label_information(x, [0], correction="best")  # type: ignore[arg-type]
