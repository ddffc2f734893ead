"""Splits: disjoint, seeded, stratified, and honest about what is left over."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data import open_data, split
from edgeprune.errors import DataError

PARTS = ("train", "calibration", "validation", "test")


def dataset(size: int, classes: int = 4, test: int = 0, labels: bool = True, val: int = 0):
    y = np.random.default_rng(size).permutation(np.arange(size) % classes)
    arrays = {"x": np.zeros((size, 2), np.float32)}
    if labels:
        arrays["y"] = y
    for part, count in (("test", test), ("val", val)):
        if count:
            arrays[f"x_{part}"] = np.zeros((count, 2), np.float32)
            if labels:
                arrays[f"y_{part}"] = np.arange(count) % classes
    return open_data(arrays)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(20, 400),
    classes=st.integers(2, 7),
    test=st.sampled_from([0, 9]),
    labels=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    val=st.sampled_from([0, 8]),
)
def test_parts_are_disjoint_and_cover_everything(
    size: int, classes: int, test: int, labels: bool, seed: int, val: int
):
    """Every sample is in exactly one part, no part is empty, and the source's own are taken whole."""
    data = dataset(size, classes, test, labels, val)
    found = split(data, seed=seed)
    parts = [getattr(found, name) for name in PARTS]
    joined = np.concatenate(parts)
    assert sorted(joined.tolist()) == list(range(size + test + val))
    if val:
        assert found.validation.tolist() == list(range(size, size + val))
        assert "source" in found.validation_origin
    if test:
        assert found.test.tolist() == list(range(size + val, size + val + test))
    assert all(len(part) for part in parts)


def test_the_seed_decides():
    """The same seed gives the same parts and digests; another seed gives others."""
    data = dataset(500)
    first, again, other = (split(data, seed=s).to_json() for s in (1, 1, 2))
    assert first == again
    assert first["sha256"] != other["sha256"]
    assert first["sizes"] == other["sizes"]


def test_each_part_holds_every_class_in_proportion():
    """With 100 of one class to 300 of another, each part is one quarter to three, to within a sample."""
    y = np.array([0] * 100 + [1] * 300)
    data = open_data((np.zeros((400, 1), np.float32), y))
    parts = split(data, seed=5, calibration=40, validation=60, test=80)
    for name, size in (("calibration", 40), ("validation", 60), ("test", 80)):
        indices = getattr(parts, name)
        assert len(indices) == size
        assert abs(int((y[indices] == 0).sum()) - size / 4) <= 1


def test_a_test_part_of_the_source_is_the_test_split():
    """All of it and nothing else; sizes of the others come from the rest."""
    data = dataset(200, test=30)
    parts = split(data, seed=0, test=5)
    assert parts.test.tolist() == list(range(200, 230))
    assert "source" in parts.test_origin
    assert split(dataset(200), seed=0).test_origin == "held out"


def test_calibration_is_at_most_a_quarter():
    """On small data, scores do not take the samples that fine-tuning needs."""
    parts = split(dataset(100), seed=0)
    assert len(parts.calibration) == (100 - 15) // 4


def test_the_record_is_plain_json():
    """Sizes and digests, no index lists."""
    text = json.dumps(split(dataset(100), seed=0).to_json())
    assert len(text) < 600


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"validation": 400}, "too few"),
        ({"validation": 0.99}, "too few"),
        ({"test": 0}, "test size 0"),
        ({"validation": 1.5}, "validation size 1.5"),
        ({"validation": True}, "validation size True"),
        ({"calibration": 0}, "0 calibration samples"),
        ({"test": 500}, "too few"),
    ],
)
def test_impossible_sizes_are_named(options, text):
    """A part that cannot be filled is a DataError, not an empty part."""
    with pytest.raises(DataError, match=text):
        split(dataset(100), seed=0, **options)


def test_too_little_data():
    """Three samples cannot make four parts."""
    with pytest.raises(DataError, match="3 samples are too few"):
        split(dataset(3, classes=2), seed=0)


def grouped(sizes: list[int], seed: int, test: int = 0, labels: bool = True):
    """Samples of groups of these sizes in random order, named by text; three classes."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat([f"person {i}" for i in range(len(sizes))], sizes))
    arrays = {"x": np.zeros((len(group), 2), np.float32), "group": group}
    if labels:
        arrays["y"] = rng.integers(0, 3, len(group))
    if test:
        arrays["x_test"] = np.zeros((test, 2), np.float32)
        if labels:
            arrays["y_test"] = np.arange(test) % 3
    return open_data(arrays), group


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 30), min_size=3, max_size=12),
    test=st.sampled_from([0, 9]),
    labels=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_group_is_on_both_sides(sizes: list[int], test: int, labels: bool, seed: int):
    """Fitted, validation and test samples share no group; every sample is in exactly one part."""
    data, group = grouped(sizes, seed, test, labels)
    parts = split(data, seed=seed)
    joined = np.concatenate([getattr(parts, name) for name in PARTS])
    assert sorted(joined.tolist()) == list(range(len(data)))
    fitted = set(group[np.concatenate([parts.train, parts.calibration])])
    sides = [fitted, set(group[parts.validation])] + ([] if test else [set(group[parts.test])])
    assert sum(map(len, sides)) == len(set(group)) == len(set().union(*sides))
    assert all(sides) and len(parts.train) and len(parts.calibration)
    assert parts.to_json()["groups"] == {
        name: len(side)
        for name, side in zip(("train and calibration", "validation", "test"), sides, strict=False)
    }


def test_groups_of_the_own_parts_are_known_and_told_from_each_other():
    """Validation and test people have numbers of their own; a part of which nothing is said has none."""
    x, y = np.zeros((12, 1), np.float32), np.arange(12) % 2
    own = {f"{k}_{end}": v[:4] for end in ("val", "test") for k, v in (("x", x), ("y", y))}
    people = {"group": np.arange(12) // 3, "group_val": np.array(["7", "8", "7", "8"])}
    data = open_data({"x": x, "y": y, **own, **people})
    parts = split(data, seed=0)
    assert data.groups_of(parts.validation).tolist() == [4, 5, 4, 5]
    assert data.groups_of(parts.test) is None
    assert parts.to_json()["groups"] == {"train and calibration": 4, "validation": 2}
    only = open_data({"x": x, "y": y, **own, "group_test": np.array([1, 1, 2, 2])})
    assert only.groups_of(split(only, seed=0).test).tolist() == [0, 0, 1, 1]
    assert split(only, seed=0).groups is None


def test_whole_groups_come_near_the_sizes_asked_for():
    """Forty groups of 5 to 15: the parts are within a few samples of their shares, as are their classes."""
    data, _ = grouped(np.random.default_rng(3).integers(5, 16, 40).tolist(), 3)
    parts = split(data, seed=0)
    assert abs(len(parts.test) - 0.15 * len(data)) < 8
    for at in (parts.test, parts.validation):
        shares = np.bincount(data.labels[at], minlength=3) / len(at)
        assert np.abs(shares - np.bincount(data.labels) / len(data)).max() < 0.1
    again, other = split(data, seed=0), split(data, seed=1)
    assert again.to_json() == parts.to_json() and other.to_json()["sha256"] != parts.to_json()["sha256"]


@pytest.mark.parametrize(
    ("group", "more", "text"),
    [
        (np.arange(40) % 2, {}, "2 groups cannot be kept whole in test, validation and training"),
        (np.zeros(40, int), {"x_test": np.zeros((4, 1), np.float32)}, "1 group cannot be kept whole"),
        (np.arange(39), {}, "40 samples, 39 group"),
        (np.arange(40), {"group_val": np.arange(3)}, "group_val is there, but no x_val"),
        (
            np.arange(40),
            {"x_val": np.zeros((4, 1), np.float32), "group_val": np.arange(50, 53)},
            "4 samples, 3 group_val",
        ),
        (np.zeros((40, 2), int), {}, "one whole number or text"),
        (np.linspace(0, 1, 40), {}, "one whole number or text"),
        (
            np.arange(40) % 5,
            {"x_test": np.zeros((2, 1), np.float32), "group_test": np.array([4, 9])},
            "group 4",
        ),
        (
            np.arange(40) % 5,
            {"x_val": np.zeros((2, 1), np.float32), "group_val": np.array([7, 3])},
            "group 3 is in group and in group_val",
        ),
        (
            np.zeros(40, int),
            {"x_val": np.zeros((4, 1), np.float32)},
            "1 group cannot be kept whole in test and",
        ),
    ],
)
def test_groups_that_cannot_be_used(group, more, text):
    """Too few, of another length or shape, of measured values, on both sides of a given test part."""
    with pytest.raises(DataError, match=text):
        split(open_data({"x": np.zeros((40, 1), np.float32), "group": group, **more}), seed=0)


def test_a_part_larger_than_the_data_is_refused_with_groups_too():
    """Asking for more samples than there are is an error, not a smaller part."""
    data, _ = grouped([20] * 5, 0)
    for options in ({"test": 500}, {"validation": 400}):
        with pytest.raises(DataError, match="too few"):
            split(data, seed=0, **options)
