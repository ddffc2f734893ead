"""Bad input: a typed error that names the argument and the first offending index, or a documented limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune import information
from edgeprune.errors import DataError

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 4
CODES = information.quantize(X, 8)
COUNTS = information.joint_counts(CODES, Y, 4)


def spoiled(value: float, dtype: str = "float32") -> np.ndarray:
    x = X.astype(dtype)
    x[7, 2] = value
    x[20, 0] = value
    return x


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize(
    "call",
    [
        information.find_edges,
        information.quantize,
        lambda x: information.encode(x, CODES.edges),
        information.covariance,
        information.normal_scores,
        lambda x: information.ross_information(x, Y),
        lambda x: information.mixed_information(x, X),
        lambda x: information.label_information(x, Y),
        lambda x: information.edge_information(x, Y, np.ones((1, 3), np.float32), np.ones(1, np.float32)),
        lambda x: information.Covariance(3).update(x),
    ],
)
def test_values_that_are_not_finite_are_named(call, value: float, name: str, dtype: str):
    """NaN and infinity: the first, sample by sample, is named with its index."""
    with pytest.raises(DataError, match=rf"x\[7, 2\] is {name} as float32"):
        call(spoiled(value, dtype))


def test_a_double_beyond_float32_is_named():
    """1e39 is infinite as float32, and says so."""
    with pytest.raises(DataError, match=r"x\[7, 2\] is inf as float32"):
        information.quantize(spoiled(1e39, "float64"))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ([[1.0]], "x is a list, not an array"),
        (X.astype(int), "x has type int64"),
        (X.astype(">f4"), "x has type >f4"),
        (X.astype(complex), "x has type complex128"),
        (X[:, 0], r"x has shape \(40,\)"),
        (X[None], r"x has shape \(1, 40, 3\)"),
        (X[:0], r"x is empty: shape \(0, 3\)"),
        (X[:, :0], r"x is empty: shape \(40, 0\)"),
    ],
)
def test_activations_of_the_wrong_kind_are_refused(x: object, text: str):
    """Type, dimensions and emptiness are named."""
    with pytest.raises(DataError, match=text):
        information.quantize(x)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (Y[:-1], "labels has 39 entries for 40 samples"),
        (Y.astype(float), "labels has type float64"),
        (Y.astype(str), "labels has type <U"),
        (Y[:, None], r"labels has shape \(40, 1\)"),
        (np.where(np.arange(40) == 9, 4, Y), r"labels\[9\] is 4, outside 0..3"),
        (np.where(np.arange(40) == 9, -1, Y), r"labels\[9\] is -1, outside 0..3"),
        (np.where(np.arange(40) == 9, 2**40, Y), r"labels\[9\] is 1099511627776"),
    ],
)
def test_labels_of_the_wrong_kind_are_refused(labels: np.ndarray, text: str):
    """Length, type, shape and range are named, in every function that takes labels."""
    for call in (
        lambda: information.joint_counts(CODES, labels, 4),
        lambda: information.label_information(X, labels, classes=4),
        lambda: information.JointCounts(CODES.edges, 4).update(X, labels),
        lambda: information.ross_information(X, labels, classes=4),
        lambda: information.jmi_selection(information.quantize(X, 7), labels, 1, classes=4),
    ):
        with pytest.raises(DataError, match=text):
            call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: information.quantize(X, 1), "bins is 1, wanted 2..255"),
        (lambda: information.quantize(X, 256), "bins is 256"),
        (lambda: information.quantize(X, sketch=1), "sketch is 1"),
        (lambda: information.encode(X[:, :2], CODES.edges), "x has 2 channels, the edges have 3"),
        (lambda: information.Edges(np.array([[1.0, 0.0]])), r"thresholds\[0, 1\] is 0.0, below"),
        (lambda: information.Edges(np.zeros((2, 300))), "thresholds have shape"),
        (lambda: information.fixed_edges([0, 1], [1, 1]), r"the range of channel 1 is \[1.0, 1.0\]"),
        (lambda: information.fixed_edges([0], [1, 2]), "low has shape"),
        (lambda: information.Codes(CODES.codes, 3), r"codes\[\d+, \d+\] is \d+, not below bins=3"),
        (lambda: information.Codes(CODES.codes.astype(int), 9), "codes have type int64"),
        (lambda: information.joint_counts(CODES.codes, Y, 4), "codes is a ndarray, wanted Codes"),
        (lambda: information.joint_counts(CODES, Y, 0), "classes is 0"),
        (lambda: information.joint_counts(CODES, Y, True), "classes is True"),
        (lambda: information.mutual_information(COUNTS.astype(int)), "counts has type int64"),
        (lambda: information.mutual_information(COUNTS[0]), "counts has type uint32 and shape"),
        (lambda: information.mutual_information(COUNTS, Y), "labels came with counts"),
        (lambda: information.mutual_information(CODES), "labels are missing"),
        (lambda: information.mutual_information(COUNTS, correction="best"), "correction is 'best'"),
        (lambda: information.mutual_information(COUNTS * 0), "channel 0 has 0 samples"),
        (
            lambda: information.entropy(information.quantize(X[:1])),
            "channel 0 has 1 samples, wanted at least two",
        ),
        (lambda: information.entropy(COUNTS, correction="full"), "correction is 'full'"),
        (lambda: information.p_values(COUNTS, method="t"), "method is 't'"),
        (lambda: information.p_values(COUNTS, rounds=0), "rounds is 0"),
        (lambda: information.false_discovery([0.1, 1.5]), r"p\[1\] is 1.5"),
        (lambda: information.false_discovery([np.nan]), r"p\[0\] is nan"),
        (lambda: information.bootstrap_intervals(COUNTS, level=1), "level is 1"),
        (lambda: information.bootstrap_intervals(COUNTS, resamples=2), "resamples is 2"),
        (lambda: information.bin_targets([]), "targets are empty"),
        (lambda: information.bin_targets([1.0, np.nan]), r"targets\[1\] is nan"),
        (lambda: information.bin_targets(["a"]), "targets have type"),
        (
            lambda: information.soft_joint_counts(CODES, np.full((40, 2), 0.6)),
            r"probabilities\[0\] is no distribution",
        ),
        (lambda: information.soft_joint_counts(CODES, np.ones((3, 1))), r"wanted \(40, classes\)"),
        (lambda: information.multilabel_information(CODES, Y), "labels have type"),
        (
            lambda: information.jmi_selection(information.quantize(X, 32), Y, 1),
            "codes have 33 bins, at most 16",
        ),
        (lambda: information.jmi_selection(information.quantize(X, 7), Y, 4), "choose is 4, wanted 0..3"),
        (
            lambda: information.jmi_selection(information.quantize(X, 7), Y, 1, theta=1.0),
            "entropy is missing",
        ),
        (lambda: information.joint_information(information.quantize(X, 7), Y, 3), "other is 3, wanted 0..2"),
        (lambda: information.mixed_information(X, X[:, :2]), "y has"),
        (lambda: information.mixed_information(X, X, neighbours=40), "neighbours is 40"),
        (lambda: information.ross_information(X, Y, neighbours=0), "neighbours is 0"),
        (lambda: information.copula_information(X[:3], X[:3]), "wanted at least four"),
        (lambda: information.copula_label_information(X, np.r_[Y[:-1], 9]), "class 9 has one sample"),
        (lambda: information.Covariance(3).update(X[:, :2]), "x has 2 channels"),
        (lambda: information.Covariance(3).update(X, start=-1), "start is -1"),
        (lambda: information.Covariance(2, [0, np.nan]), "shift has shape"),
        (lambda: information.IntegerCovariance(3).update(X), "codes have type float32"),
        (lambda: information.EdgeCounts([1, -1], 4), r"ranges\[1\] is -1"),
    ],
)
def test_impossible_requests_are_named(call, text: str):
    """What was asked and what was found are in the message."""
    with pytest.raises(DataError, match=text):
        call()


@pytest.mark.parametrize(
    ("weights", "steps", "text"),
    [
        (np.ones((2, 2)), np.ones(2), r"weights have shape \(2, 2\), wanted \(steps, inputs\) = \(2, 3\)"),
        (np.array([[1, np.nan, 1]]), np.ones(1), r"weights\[0, 1\] is nan"),
        (np.ones((1, 3)), np.zeros(1), r"steps\[0\] is 0.0, wanted a positive step"),
        (np.ones((1, 3)), np.ones((1, 1)), r"steps has shape \(1, 1\), wanted 1 dimensions"),
    ],
)
def test_bad_weights_and_steps_are_named(weights: np.ndarray, steps: np.ndarray, text: str):
    """Per-edge scores check what they are given."""
    with pytest.raises(DataError, match=text):
        information.edge_information(X, Y, weights, steps)


@pytest.mark.parametrize(
    ("consumer", "units", "text"),
    [
        ((np.eye(3), np.eye(3), [0, 1, 2]), 2, r"consumers\[0\].unit\[2\] is 2, outside -1..1"),
        ((np.eye(2), np.eye(3), [0, 1, 2]), 3, r"consumers\[0\].covariance has shape"),
        ((np.eye(3), np.eye(2), [0, 1, 2]), 3, r"consumers\[0\].energy has shape"),
        (
            (np.diag([1, 1, -1.0]), np.eye(3), [0, 1, 2]),
            3,
            "covariance of consumer 0 is not positive definite",
        ),
        ((np.ones((3, 3)), np.eye(3), [0, 1, 2]), 3, "not positive definite"),
        ((np.triu(np.ones((3, 3))), np.eye(3), [0, 1, 2]), 3, "differs from its mirror image"),
        ((np.diag([1, np.nan, 1]), np.eye(3), [0, 1, 2]), 3, r"covariance\[1, 1\] is nan"),
        ((np.eye(3), np.eye(3), [0.0, 1.0, 2.0]), 3, "unit has type float64"),
        ((np.eye(3), np.eye(3), [0, 1, 2]), -1, "units is -1"),
    ],
)
def test_bad_consumers_are_named(consumer, units: int, text: str):
    """Elimination checks shapes, symmetry, finiteness and definiteness."""
    covariance, energy, unit = consumer
    with pytest.raises(DataError, match=text):
        information.backward_elimination([information.Consumer(covariance, energy, np.array(unit))], units)


TENSOR = torch.from_numpy(X)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (TENSOR.to_sparse(), "x is a torch tensor that makes no array: can't convert Sparse"),
        (torch.empty(40, 3, device="meta"), "x is a torch tensor that makes no array"),
        (TENSOR.to(torch.float8_e4m3fn), "x has type float8_e4m3fn, wanted"),
        (TENSOR.to(torch.int64), "x has type int64, wanted"),
        (np.ma.masked_array(X, mask=X > 1), r"x\[\d+, \d\] is masked"),
        (np.ma.masked_array(X, mask=np.arange(120).reshape(40, 3) == 7), r"x\[2, 1\] is masked"),
    ],
)
def test_tensors_and_masks_that_hold_no_numbers_are_refused(x: object, text: str):
    """Sparse, meta, 8-bit tensors were bare errors; a mask was dropped and what it hid was counted."""
    for call in (
        information.quantize,
        information.covariance,
        information.normal_scores,
        lambda x: information.label_information(x, Y),
        lambda x: information.JointCounts(CODES.edges, 4).update(x, Y),
    ):
        with pytest.raises(DataError, match=text):
            call(x)


def test_masked_and_meta_labels_are_refused():
    """The first masked label is named; a mask that hides nothing is none."""
    with pytest.raises(DataError, match=r"labels\[3\] is masked"):
        information.label_information(X, np.ma.masked_array(Y, mask=Y == 3))
    with pytest.raises(DataError, match="labels is a Tensor that makes no array"):
        information.label_information(X, torch.empty(40, dtype=torch.long, device="meta"))
    plain = np.ma.masked_array(X, mask=np.zeros_like(X, bool))
    assert np.array_equal(information.quantize(plain, 8).codes, CODES.codes)


def test_a_tensor_that_is_negated_lazily_is_read_as_negated():
    """The imaginary part of a conjugate carries a sign that is not in memory yet."""
    lazily = torch.complex(TENSOR, TENSOR).conj().imag
    assert np.array_equal(information.quantize(lazily, 8).codes, information.quantize(-X, 8).codes)


def test_documented_limits():
    """Constant and all-zero channels, and a single class, carry no information and p-value 1."""
    x = np.zeros((50, 3), np.float32)
    x[:, 1] = 7
    x[:, 2] = -1e30
    y = np.arange(50) % 5
    codes = information.quantize(x)
    counts = information.joint_counts(codes, y, 5)
    for correction in information.estimators.CORRECTIONS:
        assert np.abs(information.mutual_information(counts, correction=correction)).max() < 1e-15
    assert information.entropy(counts).tolist() == [0, 0, 0]
    assert information.p_values(counts).tolist() == [1, 1, 1]
    assert information.p_values(information.joint_counts(CODES, Y * 0, 1)).tolist() == [1, 1, 1]
    scores = information.edge_information(x, y, np.ones((2, 3), np.float32), np.ones(2, np.float32))
    assert np.abs(scores).max() < 1e-12
    assert information.quantize(x[:1]).codes.shape == (1, 3)
    assert information.ross_information(x[:5].astype(float), np.arange(5)).tolist() == [0, 0, 0]
    none = information.backward_elimination([], 3)
    assert none.order.tolist() == [0, 1, 2]
    assert none.score_nats.tolist() == [0, 0, 0]
    assert information.backward_elimination([], 0).order.size == 0


def test_a_constant_channel_has_no_information_by_any_estimator():
    """Exactly 0 of the nearest-neighbour and copula estimators too, which gave -2.99, 0.0025 and -0.0025."""
    x = np.random.default_rng(1).normal(size=(200, 3))
    x[:, 0] = 1
    y = np.arange(200) % 4
    assert information.ross_information(x, y)[0] == 0
    assert information.ross_information(x, y * 0).tolist() == [0, 0, 0]
    assert information.mixed_information(x, x[:, ::-1])[[0, 2]].tolist() == [0, 0]
    assert information.copula_label_information(x, y)[0] == 0
    for correction in ("none", "gcmi"):
        nats = information.copula_information(x, correction=correction)
        assert nats[0].tolist() == nats[:, 0].tolist() == [0, 0, 0]
        assert information.copula_information(x[:, 1:], x[:, :1], correction=correction).tolist() == [
            [0],
            [0],
        ]


def test_a_channel_that_is_dead_within_a_class_has_finite_copula_information():
    """It cannot exceed log 4 and is what breaking the ties at random gives; rounding gave 10.9 nats."""
    rng = np.random.default_rng(2)
    y = np.arange(2000) % 4
    x = rng.normal(size=(2000, 2))
    x[y == 1] = [0.0, 0.3]
    got = information.copula_label_information(x, y)
    broken = [information.copula_label_information(x + 1e-9 * rng.normal(size=x.shape), y) for _ in range(40)]
    assert (got > 0.3).all()
    assert (got < np.log(4)).all()
    np.testing.assert_allclose(got, np.mean(broken, axis=0), atol=4e-3)


def test_ross_is_right_for_atoms():
    """A channel of three values: its plug-in information to 0.01, where k at an atom gave far below 0."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 5000)
    x = np.where(rng.random(5000) < 0.6, y, rng.integers(0, 3, 5000)).astype(float)[:, None]
    counts = np.zeros((1, 3, 3), np.uint32)
    np.add.at(counts[0], (x[:, 0].astype(int), y), 1)
    truth = information.mutual_information(counts, correction="none")[0]
    assert information.ross_information(x, y)[0] == pytest.approx(truth, abs=0.01)
    relu = np.maximum(rng.normal(size=(5000, 1)) + y[:, None] - 1, 0)
    near = information.ross_information(relu, y)[0]
    assert near == pytest.approx(information.label_information(relu, y)[0], abs=0.03)
