"""Targets: whatever the data hold comes back per sample in the same form, from every source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import XT, X, Y

from edgeprune.data import iterate, open_data, split
from edgeprune.errors import DataError

RNG = np.random.default_rng(3)
BOXES = [RNG.random((n, 4)).astype(np.float32) for n in (2, 0, 1, 3) * 3]
FLAT = np.concatenate(BOXES)
OFFSETS = np.concatenate([[0], np.cumsum([len(b) for b in BOXES])])
LABELS = np.arange(len(FLAT)) % 5
SHAPES: dict[str, Any] = {
    "floats": Y.astype(np.float32) + 0.5,
    "whole floats": Y.astype(np.float64),
    "one column": RNG.normal(size=(12, 1)),
    "several values": RNG.normal(size=(12, 3)),
    "label rows": np.eye(12, dtype=np.uint8),
    "masks": RNG.integers(0, 3, (12, 6, 5), dtype=np.uint8),
    "token classes": RNG.integers(-100, 3, (12, 7)),
    "below zero": -Y.astype(np.int64),
}


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "d.npz", x=X, **arrays)
    return folder / "d.npz"


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("source", ["npz", "arrays", "tensors", "items"])
def test_targets_of_any_shape_come_back_by_sample(kind: str, source: str, tmp_path: Path):
    """Targets that are no class numbers keep shape, type and values; labels and classes are None."""
    y = SHAPES[kind]
    spec = {
        "npz": lambda: saved(tmp_path, y=y),
        "arrays": lambda: (X, y),
        "tensors": lambda: (torch.from_numpy(X), torch.from_numpy(y)),
        "items": lambda: list(zip(X, y, strict=True)),
    }[source]()
    if source == "items":
        spec = Items(spec)
    dataset = open_data(spec)
    assert dataset.labels is None and dataset.classes is None and dataset.class_names is None
    assert dataset.targets.dtype == y.dtype
    got = [part for _, part in iterate(dataset, [5, 0, 11], 2)]
    np.testing.assert_array_equal(np.concatenate(got), y[[5, 0, 11]])
    assert len(split(dataset, seed=0).train)


class Items:
    """A map-style dataset of given items."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.mark.parametrize("y", [Y, Y[:, None], Y.astype(bool), np.array(["b", "a", "c"])[Y]])
def test_class_numbers_and_names_are_labels(y: Any):
    """One whole number or one name per sample is a class; batches hold int64."""
    dataset = open_data((X, y))
    assert dataset.targets is dataset.labels
    assert dataset.labels.shape == (12,) and dataset.labels.dtype == np.int64
    assert next(iterate(dataset, [1, 2], 2))[1].dtype == np.int64


def ragged(kind: str, folder: Path) -> Any:
    """The same boxes and labels in every form."""
    entries = [{"boxes": b, "labels": LABELS[OFFSETS[i] : OFFSETS[i + 1]]} for i, b in enumerate(BOXES)]
    if kind == "npz":
        return saved(folder, y_boxes=FLAT, y_labels=LABELS, y_offsets=OFFSETS)
    if kind == "list":
        return X, entries
    if kind == "mapping":
        return {"x": X, "y": entries}
    return Items(
        [(x, {k: torch.from_numpy(v) for k, v in e.items()}) for x, e in zip(X, entries, strict=True)]
    )


@pytest.mark.parametrize("kind", ["npz", "list", "mapping", "items"])
def test_ragged_targets_are_one_entry_per_sample(kind: str, tmp_path: Path):
    """Boxes of unequal number, also none, come as a list of mappings; from files without pickled objects."""
    dataset = open_data(ragged(kind, tmp_path))
    assert isinstance(dataset.targets, list) and len(dataset.targets) == 12
    (_, batch), *_ = iterate(dataset, [3, 1], 2)
    np.testing.assert_array_equal(batch[0]["boxes"], BOXES[3])
    np.testing.assert_array_equal(batch[0]["labels"], LABELS[OFFSETS[3] : OFFSETS[4]])
    assert batch[1]["boxes"].shape == (0, 4)


def test_sequences_of_a_file_are_cut_at_their_offsets(tmp_path: Path):
    """y_values and y_offsets are one sequence per sample, in all three parts."""
    values, offsets = np.arange(5), [0, 2, 2, 5, 5]
    path = saved(
        tmp_path, y_values=LABELS, y_offsets=OFFSETS, x_test=XT, y_values_test=values, y_offsets_test=offsets
    )
    dataset = open_data(path)
    assert [t.tolist() for t in dataset.targets[12:]] == [[0, 1], [], [2, 3, 4], []]
    assert open_data({"x": X[:2], "y": [[1, 2], [3]]}).targets[1].tolist() == [3]


def test_several_targets_have_names(tmp_path: Path):
    """y_NAME arrays, ragged ones among them, and a mapping from Python are the same mapping."""
    named = {"depth": RNG.random((12, 2)), "kind": Y.astype(np.int64)}
    entries = [{"boxes": b, "labels": LABELS[OFFSETS[i] : OFFSETS[i + 1]]} for i, b in enumerate(BOXES)]
    file = {"y_depth": named["depth"], "y_kind": named["kind"]}
    file |= {"y_det_boxes": FLAT, "y_det_labels": LABELS, "y_det_offsets": OFFSETS}
    for spec in (saved(tmp_path, **file), (X, {**named, "det": entries})):
        dataset = open_data(spec)
        assert set(dataset.targets) == {"depth", "kind", "det"} and dataset.labels is None
        _, batch = next(iterate(dataset, [3, 0], 2))
        np.testing.assert_array_equal(batch["depth"], named["depth"][[3, 0]])
        np.testing.assert_array_equal(batch["det"][0]["boxes"], BOXES[3])


def test_file_names_in_targets_are_not_taken_for_classes():
    """torchvision's VOC keeps the names of annotation files in `.targets`; what the items give counts."""
    items = Items([(x, RNG.integers(0, 3, (6, 5))) for x in X])
    items.targets = [f"annotations/{i}.xml" for i in range(12)]
    dataset = open_data(items)
    assert dataset.labels is None and dataset.targets.shape == (12, 6, 5)


def test_parts_are_joined_by_sample():
    """Targets of the test part follow those of the training part, ragged and named ones too."""
    y = {"a": RNG.random((12, 2)), "b": [np.arange(i) for i in range(12)]}
    yt = {"a": RNG.random((4, 2)), "b": [np.arange(3)] * 4}
    dataset = open_data({"x": X, "y": y, "x_test": XT, "y_test": yt})
    assert dataset.targets["a"].shape == (16, 2) and len(dataset.targets["b"]) == 16
    np.testing.assert_array_equal(dataset.targets["a"][12:], yt["a"])


def test_the_digest_follows_the_targets():
    """One changed box is another dataset."""
    other = [b.copy() for b in BOXES]
    other[3][0, 0] += 1
    same = open_data((X, list(BOXES))).sha256
    assert same == open_data((X, [b.copy() for b in BOXES])).sha256
    assert same != open_data((X, other)).sha256
    assert open_data(Items(list(zip(X, BOXES, strict=True)))).sha256 != same


def test_many_different_whole_numbers_cost_no_memory():
    """Time stamps are stratified by value, not by counting up to the largest."""
    stamps = np.arange(12) * 10**11
    groups = np.arange(12) // 2
    dataset = open_data({"x": X, "y": stamps, "group": groups})
    assert len(split(dataset, seed=0).test)


HOLES = np.where(np.arange(12) == 4, np.nan, 1.0)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (HOLES, r"target of sample 4 holds NaN \(1 of 12 do\)"),
        (np.stack([HOLES, HOLES], 1), "target of sample 4 holds NaN"),
        ({"a": Y, "b": HOLES}, "data: b: the target of sample 4 holds NaN"),
        ([{"boxes": np.full((1, 4), np.nan if i == 7 else 1.0)} for i in range(12)], "sample 7 holds NaN"),
        (BOXES[:-1], "lengths do not agree: 12 x, 11 targets"),
        ({"a": Y, "b": Y[:3]}, "targets of unequal lengths"),
        ({}, "the mapping of targets is empty"),
        ([None] * 12, "target of sample 0"),
        (np.float32(3), "targets are a single number"),
        ("boxes.json", "cannot take targets from a str"),
    ],
)
def test_bad_targets_are_one_line(y: Any, text: str):
    """Each is refused when the data are opened, and the first bad sample is named."""
    with pytest.raises(DataError, match=text) as caught:
        open_data({"x": X, "y": y})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y_values": LABELS, "y_offsets": OFFSETS[1:]}, "offsets run from 2 to 18 over 18 values"),
        ({"y_values": LABELS[:-1], "y_offsets": OFFSETS}, "offsets run from 0 to 18 over 17 values"),
        ({"y_values": LABELS, "y_offsets": OFFSETS[::-1]}, "offsets run from 18 to 0"),
        ({"y_values": LABELS, "y_offsets": OFFSETS * 1.0}, "whole numbers are expected"),
        ({"y_offsets": OFFSETS}, "offsets without values"),
        ({"y": Y, "y_depth": Y}, "holds y and also y_depth"),
        (
            {"y_values": LABELS, "y_offsets": OFFSETS, "y_a_values": LABELS, "y_a_offsets": OFFSETS},
            "name every",
        ),
        ({"y": Y, "x_test": XT, "y_test": XT}, "do not go together"),
        ({"y_a": Y, "x_test": XT, "y_b_test": XT}, "do not have the same targets"),
    ],
)
def test_bad_encodings_are_one_line(arrays: dict[str, Any], text: str, tmp_path: Path):
    """Offsets that do not divide their values, and names that contradict each other."""
    with pytest.raises(DataError, match=text):
        open_data(saved(tmp_path, **arrays))
