"""Bad data is a DataError of one line that names the file or the sample."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import SHAPE, XT, YT, X, Y, idx_folder

from edgeprune.data import check_labels, open_data
from edgeprune.errors import DataError

NAN = X.astype(np.float32)
NAN[9, 2, 2] = np.nan
INF = X.astype(np.float32)
INF[4, 0, 0] = -np.inf


@pytest.mark.parametrize(
    ("spec", "options", "text"),
    [
        ((NAN, Y), {}, "sample 9 holds NaN"),
        ((INF, Y), {}, "sample 4 holds infinity"),
        ((X, Y[:-1]), {}, "lengths do not agree: 12 x, 11 targets"),
        ({"x_0": X, "x_1": X[:5], "y": Y}, {}, "lengths do not agree"),
        ((X[:0], Y[:0]), {}, "holds no samples"),
        ({"x": X, "y": Y, "x_test": XT[:0], "y_test": YT[:0]}, {}, "no test samples"),
        ({"x": X, "y": Y, "x_test": XT}, {}, "only one of y and y_test"),
        ({"x": X, "y": Y, "y_test": YT}, {}, "no x_test"),
        ({"x": X, "y": Y, "x_test": XT[:, :3], "y_test": YT}, {}, "its test part"),
        ({"x": X, "y": Y, "x_val": XT[:, :3], "y_val": YT}, {}, "its validation part"),
        ({"x": X, "y": Y, "x_valid": XT}, {}, "only one of y and y_val"),
        ({"x": X, "y": Y, "z_val": XT, "y_val": YT}, {}, "validation arrays z do not match the inputs x"),
        ({"x": X, "z": X, "y": Y}, {}, "holds x and also z"),
        ({"y": Y}, {}, "no input array"),
        ({}, {}, "holds nothing"),
        ((X, Y), {"input_shapes": [(1, 28, 28)]}, "shape 6×5, the model takes 1×28×28"),
        ((X, Y), {"input_shapes": [(1, 6, 5), (2,)]}, r"1 input\(s\) per sample, the model takes 2"),
        ((X, Y), {"mean": [0.5, 0.5], "input_shapes": SHAPE}, "2 values for mean"),
        ((X, Y), {"std": 0.0}, "std must be above zero"),
        ((X, Y.astype(complex)), {}, "targets are complex128, not numbers or names"),
        ((np.array([[1, "a"]], dtype=object), None), {}, "mixed or ragged"),
        (([[1, 2], [3]], None), {}, "cannot read a list"),
        ((X.astype("U3"), Y), {}, "not numbers"),
        ((np.float32(3), Y), {}, "single number"),
        (3, {}, "cannot take data from a int"),
        ("nowhere.npz", {}, "nowhere.npz: no such file or folder"),
        ("nowhere/at/all", {}, "no such file or folder"),
        ("datafunctions:fails", {}, "OSError: disk on fire"),
        ("datafunctions:nonsense", {}, "cannot take data"),
        ("datafunctions:absent", {}, "has no absent"),
        ("nosuchdata:f", {}, "no module named nosuchdata"),
    ],
)
def test_bad_data_is_one_clear_line(spec: Any, options: dict[str, Any], text: str, functions: Path):
    """Each defect is a DataError of one line that names what was found."""
    with pytest.raises(DataError, match=text) as caught:
        open_data(spec, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("datafunctions:poisoned", "sample 7 holds NaN"),
        ("datafunctions:ragged", r"sample 5 has shape \(6, 6\)"),
        ("datafunctions:broken", "reading sample 3 raised RuntimeError: bad sector"),
    ],
)
def test_items_are_checked_when_they_are_read(kind: str, text: str, functions: Path):
    """A dataset that is read item by item names the sample that it stumbled over."""
    with pytest.raises(DataError, match=text):
        open_data(kind).batch(range(12))


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path):
    """An object array would unpickle: nothing is loaded, and no marker appears."""
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(marker), "w"))

    np.savez(tmp_path / "d.npz", x=np.array([Bomb()], dtype=object), y=Y[:1])
    with pytest.raises(DataError, match="pickled Python objects, which are never loaded"):
        open_data(tmp_path / "d.npz")
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_truncated_npz_is_named(share: float, tmp_path: Path):
    """Cut anywhere, an npz is a DataError with its path."""
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    content = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"d\.npz"):
        open_data(tmp_path / "d.npz")


def test_flipped_bit_in_an_npz_is_named(tmp_path: Path):
    """The archive's own checksum catches it."""
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: damaged"):
        open_data(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda body: body[:-7], "truncated or damaged idx file"),
        (lambda body: body[:9], "header is incomplete"),
        (lambda body: b"hello" + body, "not an idx file"),
        (lambda body: b"", "not an idx file"),
        (lambda body: gzip.compress(body)[:-9], "damaged gzip"),
    ],
)
def test_damaged_idx_files_are_named(change: Any, text: str, tmp_path: Path):
    """A truncated or foreign file in an idx folder is named with its path."""
    folder = idx_folder(tmp_path / "idx")
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=text) as caught:
        open_data(folder)
    assert "train-images-idx3-ubyte" in str(caught.value)


def test_idx_folder_without_training_images(tmp_path: Path):
    """Only the test pair is not enough."""
    folder = idx_folder(tmp_path / "idx")
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="no train-images"):
        open_data(folder)


def test_a_file_of_another_kind_is_named(tmp_path: Path):
    """What is neither an npz nor a folder is refused by content."""
    (tmp_path / "d.npz").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="not an npz file"):
        open_data(tmp_path / "d.npz")


def test_labels_out_of_range_name_the_first():
    """A label beyond the model's outputs is found by its sample."""
    with pytest.raises(DataError, match=r"sample 2 has label 2, but the model has 2 outputs \(4 of 12"):
        check_labels(open_data((X, Y)), 2)
    check_labels(open_data((X, Y)), 3)


def test_one_class_is_not_enough_to_score():
    """Scoring needs two classes; an evaluation set may have one."""
    dataset = open_data((X, Y * 0))
    with pytest.raises(DataError, match="all 12 samples have label 0"):
        check_labels(dataset, 3)
    check_labels(dataset, 3, varied=False)


def test_fewer_samples_than_classes():
    """Five samples cannot cover a hundred classes."""
    with pytest.raises(DataError, match="5 samples for 100 classes"):
        check_labels(open_data((X[:5], np.array([0, 1, 2, 3, 99]))), 100)


def test_index_out_of_range_is_refused():
    """Negative indices do not wrap around."""
    dataset = open_data((X, Y))
    for index in (-1, 12):
        with pytest.raises(DataError, match=f"asked for sample {index} of 12"):
            dataset.batch([3, index])
