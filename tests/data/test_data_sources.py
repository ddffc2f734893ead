"""Opening data: every source gives the same samples, and bad data is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import EXPECTED, SHAPE, XT, YT, X, Y, idx_folder

from edgeprune.data import check_labels, iterate, open_data

ROOT = Path(__file__).parents[2]


def source(kind: str, folder: Path) -> Any:
    if kind == "npz":
        np.savez(folder / "d.npz", x=X, y=Y)
        return str(folder / "d.npz")
    if kind == "npz under another name":
        np.savez_compressed(folder / "d.npz", x_train=X, y_train=Y)
        (folder / "d.npz").rename(folder / "d.bin")
        return folder / "d.bin"
    if kind == "idx":
        return str(idx_folder(folder / "idx", test=False))
    if kind == "idx.gz":
        return str(idx_folder(folder / "idx", ".gz", test=False))
    if kind == "arrays":
        return X, Y
    if kind == "tensors":
        return torch.from_numpy(X), torch.from_numpy(Y)
    if kind == "mapping":
        return {"x": X, "y": Y}
    return kind


@pytest.mark.parametrize(
    "kind",
    [
        "npz",
        "npz under another name",
        "idx",
        "idx.gz",
        "arrays",
        "tensors",
        "mapping",
        "datafunctions:pair",
        "datafunctions:items",
        "datafunctions:Items",
        "datafunctions:targets",
    ],
)
def test_every_source_gives_the_same_samples(kind: str, functions: Path):
    """Grey uint8 images arrive as float32, channels first, divided by 255, in any order asked for."""
    dataset = open_data(source(kind, functions), input_shapes=SHAPE)
    assert len(dataset) == 12
    assert dataset.classes == 3
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == Y.tolist()
    (batch,) = dataset.batch([5, 0, 11])
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_allclose(batch, EXPECTED[[5, 0, 11]], rtol=1e-6)
    assert dataset.test_indices is None
    assert len(dataset.sha256) == 64


@pytest.mark.parametrize("kind", ["npz", "idx", "mapping"])
def test_a_test_part_of_its_own_is_marked(kind: str, tmp_path: Path):
    """x_test, y_test and the t10k files follow the training samples and are the test indices."""
    arrays = {"x": X, "y": Y, "x_test": XT, "y_test": YT}
    if kind == "npz":
        np.savez(tmp_path / "d.npz", **arrays)
    spec = {"npz": tmp_path / "d.npz", "mapping": arrays}.get(kind) or idx_folder(tmp_path / "idx")
    dataset = open_data(spec, input_shapes=SHAPE)
    assert dataset.test_indices.tolist() == [12, 13, 14, 15]
    assert dataset.labels[12:].tolist() == YT.tolist()
    np.testing.assert_allclose(dataset.batch([13])[0][0, 0], XT[1] / 255.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_part_of_its_own_is_marked(name: str):
    """x_val and y_val, by any of their names, follow the training samples; the test part follows them."""
    arrays = {
        "x_train": X,
        "y_train": Y,
        "x_test": XT,
        "y_test": YT,
        f"x_{name}": XT[:2],
        f"y_{name}": YT[:2],
    }
    dataset = open_data(arrays, input_shapes=SHAPE)
    assert dataset.validation_indices.tolist() == [12, 13]
    assert dataset.test_indices.tolist() == [14, 15, 16, 17]
    assert dataset.labels.tolist() == [*Y, *YT[:2], *YT]
    several = open_data({"x": (X, X), "y": Y, f"x_{name}": (XT, XT), f"y_{name}": YT})
    assert several.validation_indices.tolist() == [12, 13, 14, 15]
    assert len(several.batch([13])) == 2


@pytest.mark.parametrize("kind", ["datafunctions:alone", "datafunctions:images"])
def test_labels_may_be_missing(kind: str, functions: Path):
    """Without labels the samples are there and labels and classes are None."""
    dataset = open_data(kind, input_shapes=SHAPE)
    assert dataset.labels is None
    assert dataset.classes is None
    assert next(iterate(dataset, [0, 1], 2))[1] is None
    check_labels(dataset, 2)


@pytest.mark.parametrize("named", [("x_0", "x_1"), ("image", "tokens")])
def test_several_inputs_come_in_order(named: tuple[str, str], tmp_path: Path):
    """x_0, x_1 by number and other names in the file's order; tokens stay integers."""
    tokens = np.arange(24).reshape(12, 2)
    np.savez(tmp_path / "d.npz", **{named[0]: X, named[1]: tokens, "y": Y})
    dataset = open_data(tmp_path / "d.npz", input_shapes=[(1, 6, 5), (2,)])
    image, ids = dataset.batch([3])
    assert image.shape == (1, 1, 6, 5)
    assert ids.dtype == np.int64
    assert ids.tolist() == [[6, 7]]
    assert [p["layout"] for p in dataset.preprocessing["inputs"]] == ["NCHW", "tokens"]


def test_python_pairs_take_several_inputs():
    """((x_0, x_1), y) from Python is two inputs."""
    dataset = open_data(((X, X.astype(np.float32)), Y))
    assert [part.dtype for part in dataset.batch([0])] == [np.float32, np.float32]
    assert dataset.batch([0])[0].max() <= 1 < dataset.batch([0])[1].max()


def test_text_labels_become_numbers_in_sorted_order():
    """Names are kept in label order."""
    dataset = open_data((X[:3], np.array(["rose", "daisy", "rose"])))
    assert dataset.class_names == ("daisy", "rose")
    assert dataset.labels.tolist() == [1, 0, 1]


def test_the_digest_follows_the_content(tmp_path: Path):
    """The same arrays give the same digest; one changed pixel another."""
    other = X.copy()
    other[0, 0, 0] ^= 1
    assert open_data((X, Y)).sha256 == open_data((X.copy(), Y.copy())).sha256
    assert open_data((X, Y)).sha256 != open_data((other, Y)).sha256


def test_batches_are_copies():
    """Writing into a batch leaves the caller's arrays alone."""
    values = np.ones((4, 3), np.float32)
    dataset = open_data((values, None), mean=0.5, std=2.0)
    dataset.batch([0, 1])[0][:] = 9
    assert (values == 1).all()
    np.testing.assert_allclose(dataset.batch([0])[0], 0.25)


def test_iterate_covers_every_index_once_and_shuffles_by_seed():
    """In order without a seed, the same order for the same seed, the last batch short."""
    dataset = open_data((np.arange(10, dtype=np.float32)[:, None], np.arange(10) % 2))
    plain = [int(v) for (x,), _ in iterate(dataset, range(10), 4) for v in x[:, 0]]
    assert plain == list(range(10))
    sizes = [len(x) for (x,), _ in iterate(dataset, range(10), 4)]
    assert sizes == [4, 4, 2]
    one = [int(v) for (x,), _ in iterate(dataset, range(10), 4, shuffle_seed=3) for v in x[:, 0]]
    two = [int(v) for (x,), _ in iterate(dataset, range(10), 4, shuffle_seed=3) for v in x[:, 0]]
    assert one == two != plain
    assert sorted(one) == plain
    for (x,), y in iterate(dataset, range(10), 4, shuffle_seed=3):
        assert (x[:, 0].astype(int) % 2 == y).all()


def test_torch_is_not_imported_for_arrays(tmp_path: Path):
    """The data package and an npz need NumPy alone."""
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    code = (
        "import sys; from edgeprune.data import open_data, split;"
        "split(open_data(sys.argv[1]), seed=0); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "d.npz")], check=True, cwd=ROOT)
