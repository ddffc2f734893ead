"""Every npz that is read back goes through one reader: a damaged one is one line, never NumPy's traceback."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeprune.data import open_data
from edgeprune.deploy.bundle_parts import read_arrays
from edgeprune.deploy.verify import _arrays
from edgeprune.errors import DataError, DeviceError, EdgepruneError, MaskError, RunError, ShipError
from edgeprune.information import files
from edgeprune.masks import read_mask
from edgeprune.records.npz import read_npz
from edgeprune.store import RunFolder

GOOD = np.arange(6, dtype=np.float32).reshape(3, 2)


def npy(array: np.ndarray = GOOD) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        written.writestr("x.npy", body)
    return buffer.getvalue()


def broken_deflate() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("x.npy", npy(np.random.default_rng(0).random((40, 40))))
    content = bytearray(buffer.getvalue())
    content[60:120] = b"\xff" * 60
    return bytes(content)


BAD = {
    "a header that is cut in the middle": archive(npy().replace(b"}", b"(")),
    "bytes without a magic number": archive(b"no array at all"),
    "a broken deflate stream": broken_deflate(),
    "an array of another length": archive(npy()[:-4]),
    "a shape of 2**40": archive(npy().replace(b"(3, 2), }  ", b"(2**40,), }")),
    "no zip": b"PK\x03\x04 truncated",
    "something else": b"hello",
    "a bare array": npy(),
    "pickled objects": archive(npy(np.array([{"a": 1}], dtype=object))),
}  # fmt: skip


def _data(path: Path) -> None:
    open_data(path)


def _golden(path: Path) -> None:
    read_arrays(path)


def _answer(path: Path) -> None:
    _arrays(path.read_bytes())


def _accumulator(path: Path) -> None:
    files.read(path, "moments")


def _run(path: Path) -> None:
    run = RunFolder(path.parent / "run", {})
    (run.path / "s.npz").write_bytes(path.read_bytes())
    run.arrays("s")


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize(
    ("read", "error"),
    [
        (_data, DataError),
        (read_mask, MaskError),
        (_golden, ShipError),
        (_answer, DeviceError),
        (_accumulator, DataError),
        (_run, RunError),
    ],
    ids=["data", "mask", "golden", "answer", "accumulator", "run"],
)
def test_a_damaged_archive_is_one_line_of_the_readers_class(tmp_path, what, read, error):
    """NumPy raises TokenError, zlib.error and others, and gives bytes for what has no magic number."""
    path = tmp_path / "x.npz"
    path.write_bytes(BAD[what])
    with pytest.raises(error) as caught:
        read(path)
    assert "\n" not in str(caught.value.message)
    assert json.dumps(str(caught.value))


def test_a_good_archive_is_read_as_numpy_reads_it():
    """Names, types, values, and arrays without samples."""
    arrays = {"x": GOOD, "none": np.zeros((0, 3), np.int64), "one": np.array(5.5), "text": np.array("kind/1")}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    got = read_npz(buffer, "x.npz", EdgepruneError)
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_an_answer_that_skips_an_output_is_named():
    """A board that answers output_1 alone was a KeyError."""
    buffer = io.BytesIO()
    np.savez(buffer, output_1=GOOD)
    with pytest.raises(DeviceError, match="holds output_1, not output_0"):
        _arrays(buffer.getvalue())
