"""Files made to do harm: bombs, headers that lie, formats that start programs, pipes among the images."""

from __future__ import annotations

import gzip
import io
import os
import socket
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import open_data
from edgeprune.data.pictures import FORMATS, MOST_PIXELS, cover
from edgeprune.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%Page: 1 1\nshowpage\n%%EOF\n"
MEMORY = 64 << 20


@pytest.fixture
def small_memory() -> Iterator[None]:
    """What is allocated while the file is refused stays below 64 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    root = tmp_path / "classes"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), 90).save(root / name / "a.png")
    return root


def npy_header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(f"{name}.npy", body)
    return path


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0"))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return content


def idx(folder: Path, header: bytes, body: bytes = b"", name: str = "train-images-idx3-ubyte") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(header + body)
    return folder


def test_an_npz_bomb_is_not_inflated(tmp_path: Path, small_memory: None):
    """300 MiB of zeros in 300 kB: refused by what its table of contents claims."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(npy_header((300 << 18,)))
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(DataError, match=r"compressed bytes claim to hold .* at most 268435456 are read"):
        open_data(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ((2**40, 8), "<f4", r"claims the shape 1099511627776×8 \(35184372088832 bytes\)"),
        ((2**62, 2**62), "<f4", "claims the shape"),
        ((1,) * 65, "|u1", "claims the shape 1×1×1×1×1×1×… "),
        ((2**40, 0), "<f4", "1099511627776 samples of no size"),
        ((2**40,), "|S0", "samples of no size"),
        ((2,), "|O", "pickled Python objects"),
    ],
)
def test_an_npy_header_is_held_against_the_bytes(
    shape: tuple[int, ...], dtype: str, text: str, tmp_path: Path, small_memory: None
):
    """Sizes that a header claims are never allocated on its word."""
    with pytest.raises(DataError, match=text):
        open_data(npz(tmp_path / "x.npz", {"x": npy_header(shape, dtype) + bytes(8)}))


def test_a_compressed_array_within_the_limit_is_read(tmp_path: Path):
    """100 MiB of zeros are 100 kB: a limit by ratio alone would refuse masks and padded images."""
    x = np.zeros((100, 1 << 20), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=np.arange(100) % 2)
    assert len(open_data(tmp_path / "x.npz")) == 100


def test_a_gzip_bomb_among_idx_files_is_not_inflated(tmp_path: Path, small_memory: None):
    """The header claims 300 MiB and they are there, in 300 kB."""
    header = b"\0\0\x08\x01" + struct.pack(">I", 300 << 20)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(header)
        for _ in range(300):
            stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match="at most 268435456 are read"):
        open_data(idx(tmp_path / "d", buffer.getvalue(), name="train-images-idx3-ubyte.gz"))


def test_a_gzip_bomb_behind_a_small_header_is_not_inflated(tmp_path: Path, small_memory: None):
    """The header claims 8 bytes; what follows them is not read."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(b"\0\0\x08\x01" + struct.pack(">I", 8))
        for _ in range(300):
            stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match="8 bytes expected for shape 8"):
        open_data(idx(tmp_path / "d", buffer.getvalue(), name="train-images-idx3-ubyte.gz"))


@pytest.mark.parametrize(
    ("axes", "sizes", "text"),
    [
        (3, (2**31, 2**10, 1), "truncated or damaged idx file: 2199023255552 bytes expected"),
        (4, (2**16, 2**16, 2**16, 2**16), "18446744073709551616 bytes expected"),
        (65, (1,) * 65, "claims 65 axes"),
        (2, (2**31, 0), "samples of no size"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_header_is_held_against_the_bytes(
    axes: int, sizes: tuple[int, ...], text: str, packed: bool, tmp_path: Path, small_memory: None
):
    """2**40 samples, products beyond 64 bits, more axes than NumPy has, samples without values."""
    content = b"\0\0\x08" + bytes([axes]) + struct.pack(f">{axes}I", *sizes) + bytes(1)
    if packed:
        content, text = gzip.compress(content), f"{text}|at most 268435456 are read"
    with pytest.raises(DataError, match=text):
        open_data(idx(tmp_path / "d", content))


def test_an_idx_pipe_is_not_opened(tmp_path: Path):
    """Reading it would wait for ever."""
    folder = idx(tmp_path / "d", b"\0\0\x08\x01" + struct.pack(">I", 4), bytes(4))
    os.mkfifo(folder / "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: is a FIFO"):
        open_data(folder)


@pytest.mark.parametrize("name", ["b.jpg", "b.eps", "b.png"])
def test_an_eps_never_reaches_ghostscript(
    name: str, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A program called gs stands first on the path and leaves a mark when it is started."""
    marker = tmp_path / "ran"
    tool = tmp_path / "bin" / "gs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch {marker}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    (classes / "cat" / name).write_bytes(EPS)
    with pytest.raises(DataError, match=rf"{name}: is EPS, which is not read; convert it to one of AVIF"):
        open_data(classes, input_shapes=[(3, 8, 8)]).batch(np.arange(3))
    assert not marker.exists()


def test_no_listed_format_is_known_to_start_a_program():
    """EPS runs Ghostscript; GRIB, BUFR, HDF5, FITS and WMF hand over to whatever is installed."""
    assert not {"EPS", "WMF", "GRIB", "BUFR", "HDF5", "FITS", "IPTC", "PSD"} & set(FORMATS)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, monkeypatch: Any = None) -> None:
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("make", [_pipe, _socket])
@pytest.mark.parametrize("linked", [False, True])
def test_pipes_and_sockets_among_images_are_named_and_not_opened(make: Any, linked: bool, classes: Path):
    """Left out silently, a sample would be missing; opened, it would hang."""
    make(classes / "b.png" if linked else classes / "dog" / "b.png")
    if linked:
        (classes / "dog" / "b.png").symlink_to("../b.png")
    with pytest.raises(DataError, match=r"dog/b\.png: is a (FIFO|socket).*, not an image"):
        open_data(classes, input_shapes=[(3, 8, 8)])


@pytest.mark.parametrize("size", [(80_000_000, 1), (1, 1_000_000), (9000, 9000)])
def test_a_picture_beyond_the_limit_is_not_decoded(size: tuple[int, int], classes: Path, small_memory: None):
    """Its header is enough: 67 million pixels and 65,535 along a side are read."""
    (classes / "dog" / "b.png").write_bytes(png_of_size(*size))
    with pytest.raises(DataError, match=rf"b\.png: has {size[0]}×{size[1]} pixels; at most 67108864"):
        open_data(classes, input_shapes=[(3, 8, 8)])


def test_a_strip_is_not_blown_up_to_cover_the_model():
    """1 × 60,000 pixels cover 224 × 224 as 224 × 13 million; only what the crop shows is computed."""
    rows = (np.arange(60_000) % 251).astype(np.uint8)[:, None]
    pixels = np.asarray(cover(Image.fromarray(rows), 224, 224))
    assert pixels.shape == (224, 224)
    middle = rows[29_999:30_001, 0].astype(int)
    assert middle.min() <= pixels.min() <= pixels.max() <= middle.max()


def test_the_short_way_agrees_with_the_long_one(monkeypatch: pytest.MonkeyPatch):
    """Scaling the crop alone gives what scaling all and cropping gives, up to rounding."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 200), dtype=np.uint8))
    whole = np.asarray(cover(picture, 30, 30)).astype(int)
    monkeypatch.setattr("edgeprune.data.pictures.MOST_PIXELS", 1)
    assert np.abs(np.asarray(cover(picture, 30, 30)).astype(int) - whole).max() <= 1
    assert MOST_PIXELS > 1


def test_file_names_that_are_no_utf8_are_read(classes: Path):
    """Names of files and of class folders as bytes; what is printed of them is text."""
    (classes / os.fsdecode(b"caf\xe9")).mkdir()
    Image.new("RGB", (8, 8)).save(classes / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png"))
    dataset = open_data(classes, input_shapes=[(3, 8, 8)])
    assert dataset.class_names == ("caf\\xe9", "cat", "dog")
    (classes / "cat" / os.fsdecode(b"\xfe.png")).write_bytes(b"no picture")
    with pytest.raises(DataError, match="no known format") as caught:
        open_data(classes, input_shapes=[(3, 8, 8)])
    str(caught.value).encode("utf-8")
