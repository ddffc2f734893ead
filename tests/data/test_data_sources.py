"""Opening data: every source gives the same samples, and bad data is named."""

from __future__ import annotations

import gzip
import importlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.data import check_labels, iterate, open_data
from edgeprune.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
Y = np.arange(12, dtype=np.uint8) % 3
XT = RNG.integers(0, 256, (4, 6, 5), dtype=np.uint8)
YT = np.array([2, 1, 0, 1], dtype=np.uint8)
SHAPE = [(1, 6, 5)]
EXPECTED = (X[:, None] / 255.0).astype(np.float32)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    body = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def idx_folder(folder: Path, suffix: str = "", test: bool = True) -> Path:
    folder.mkdir()
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", X)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", Y)
    if test:
        write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", XT)
        write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", YT)
    return folder


FUNCTIONS = '''
import numpy as np
import torch

X = np.load("x.npy")
Y = np.load("y.npy")

def pair():
    return X, Y

def alone():
    return X

def fails():
    raise OSError("disk on fire")

def nonsense():
    return 3

class Items:
    def __len__(self):
        return len(X)
    def __getitem__(self, i):
        return torch.from_numpy(X[i]), int(Y[i])

class Images(Items):
    """No labels."""
    def __getitem__(self, i):
        return torch.from_numpy(X[i])

class Poisoned(Items):
    def __getitem__(self, i):
        values = torch.from_numpy(X[i]).float()
        if i == 7:
            values[0, 0] = float("nan")
        return values, int(Y[i])

class Ragged(Items):
    def __getitem__(self, i):
        return torch.zeros(6, 5 + (i == 5)), int(Y[i])

class Broken(Items):
    def __getitem__(self, i):
        if i == 3:
            raise RuntimeError("bad sector")
        return super().__getitem__(i)

class Targets(Images):
    targets = Y.tolist()

items, images, targets = Items(), Images(), Targets()
poisoned, ragged, broken = Poisoned(), Ragged(), Broken()
'''


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with `datafunctions.py`."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    (tmp_path / "datafunctions.py").write_text(FUNCTIONS)
    before = list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("datafunctions", None)


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


NAN = X.astype(np.float32)
NAN[9, 2, 2] = np.nan
INF = X.astype(np.float32)
INF[4, 0, 0] = -np.inf


@pytest.mark.parametrize(
    ("spec", "options", "text"),
    [
        ((NAN, Y), {}, "sample 9 holds NaN"),
        ((INF, Y), {}, "sample 4 holds infinity"),
        ((X, Y[:-1]), {}, "lengths do not agree: 12 x, 11 labels"),
        ({"x_0": X, "x_1": X[:5], "y": Y}, {}, "lengths do not agree"),
        ((X[:0], Y[:0]), {}, "holds no samples"),
        ({"x": X, "y": Y, "x_test": XT[:0], "y_test": YT[:0]}, {}, "no test samples"),
        ({"x": X, "y": Y, "x_test": XT}, {}, "only one of y and y_test"),
        ({"x": X, "y": Y, "y_test": YT}, {}, "no x_test"),
        ({"x": X, "y": Y, "x_test": XT[:, :3], "y_test": YT}, {}, "its test part"),
        ({"x": X, "z": X, "y": Y}, {}, "holds x and also z"),
        ({"y": Y}, {}, "no input array"),
        ({}, {}, "holds nothing"),
        ((X, Y), {"input_shapes": [(1, 28, 28)]}, "shape 6×5, the model takes 1×28×28"),
        ((X, Y), {"input_shapes": [(1, 6, 5), (2,)]}, r"1 input\(s\) per sample, the model takes 2"),
        ((X, Y), {"mean": [0.5, 0.5], "input_shapes": SHAPE}, "2 values for mean"),
        ((X, Y), {"std": 0.0}, "std must be above zero"),
        ((X, Y.astype(np.float32) + 0.5), {}, "label 0.5, which is not a class number"),
        ((X, Y.astype(np.float32) * np.nan), {}, "not a class number"),
        ((X, -Y.astype(np.int64)), {}, "sample 1 has label -1"),
        ((X, np.eye(12)), {}, r"labels have shape \(12, 12\)"),
        ((X, Y.astype(complex)), {}, "not class numbers"),
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
        with pytest.raises(DataError, match="of 12"):
            dataset.batch([index])
