"""Arrays as they are stored: npz members and idx files, read within what the file's bytes justify.

A few kilobytes of zip or gzip inflate to gigabytes, and a header of 20 bytes claims 2**40 samples. So the
size that a header claims is compared with the bytes that are there before anything is allocated, and
compressed data may inflate to 256 MiB or 32 times the file, whichever is more.

Guarantee: no array is larger than that; no pickled object is ever loaded.
Elsewhere: which array is input and which is target (arrays).
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.paths import open_file, printable

Array = npt.NDArray[Any]
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_AXES = 32
INFLATED, RATIO = 1 << 28, 32  # compressed data may become this many bytes, or this many times the file
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGED = (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
AGAIN = "copy or download it again"


def read_npz_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an npz file by name.

    Raises:
        DataError: not an npz file, damaged, holding pickled objects, or larger than its bytes justify.
    """
    name = printable(path)
    arrays: dict[str, Array] = {}
    try:
        with open_file(path, DataError) as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            size = path.stat().st_size
            _require_bounded(sum(info.file_size for info in members), size, name)
            for info in members:
                with archive.open(info) as member:
                    arrays[info.filename.removesuffix(".npy")] = _read_npy(member, info, name)
    except DataError:
        raise
    except DAMAGED as exc:
        raise DataError(f"{name}: damaged npz file: {exc}", tip=AGAIN) from exc
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as exc:
        raise DataError(f"{name}: not a readable npz file: {exc}") from exc
    return arrays


def read_idx_array(path: Path) -> Array:
    """The array of an idx file, gzip-compressed or not.

    Raises:
        DataError: not an idx file, damaged, or a header that claims another size than the file has.
    """
    name = printable(path)
    with open_file(path, DataError) as stream:
        size = path.stat().st_size
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        content: BinaryIO = gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[assignment]
        try:
            shape, dtype = _idx_header(content, name)
            expected = math.prod(shape) * dtype.itemsize
            if packed:
                _require_bounded(expected, size, name)
            elif expected > size:
                raise _other_size(name, shape, expected, size)
            body = content.read(expected + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise DataError(f"{name}: damaged gzip file: {exc}", tip=AGAIN) from exc
    if len(body) != expected:
        raise _other_size(name, shape, expected, len(body))
    flat = np.frombuffer(body, dtype=dtype)
    return flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_npy(member: Any, info: zipfile.ZipInfo, name: str) -> Array:
    """One member, after its header was held against its size."""
    key = info.filename.removesuffix(".npy")
    version = np.lib.format.read_magic(member)
    if version not in HEADERS:
        raise DataError(
            f"{name}: {key} is written in npy format {version[0]}.{version[1]}, which is not read"
        )
    shape, _, dtype = HEADERS[version](member)
    if dtype.hasobject:
        raise DataError(
            f"{name}: holds pickled Python objects, which are never loaded",
            tip="save plain numeric arrays: np.savez(path, x=images, y=labels)",
        )
    left = info.file_size - member.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if len(shape) > MOST_AXES or claimed > left:
        raise DataError(
            f"{name}: {key} claims the shape {_sizes(shape)} ({claimed} bytes), {left} bytes are stored",
            tip=AGAIN,
        )
    if not claimed and shape and shape[0] > 0:
        raise DataError(f"{name}: {key} has {shape[0]} samples of no size (shape {_sizes(shape)})")
    member.seek(0)
    return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _idx_header(content: BinaryIO, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    head = content.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise DataError(f"{name}: not an idx file (it begins with {head.hex() or 'nothing'})")
    axes = head[3]
    if axes > MOST_AXES:
        raise DataError(f"{name}: damaged idx file: its header claims {axes} axes", tip=AGAIN)
    sizes = content.read(4 * axes)
    if axes == 0 or len(sizes) < 4 * axes:
        raise DataError(f"{name}: truncated idx file: its header is incomplete")
    shape = struct.unpack(f">{axes}I", sizes)
    if 0 in shape[1:] and shape[0]:
        raise DataError(f"{name}: has {shape[0]} samples of no size (shape {_sizes(shape)})")
    return shape, np.dtype(IDX_TYPES[head[2]])


def _require_bounded(inflated: int, stored: int, name: str) -> None:
    limit = max(INFLATED, RATIO * stored)
    if inflated > limit:
        raise DataError(
            f"{name}: {stored} compressed bytes claim to hold {inflated}; at most {limit} are read",
            tip="if that is right, save it uncompressed (numpy.savez, or the idx file without gzip)",
        )


def _other_size(name: str, shape: tuple[int, ...], expected: int, stored: int) -> DataError:
    return DataError(
        f"{name}: truncated or damaged idx file: {expected} bytes expected for shape {_sizes(shape)},"
        f" {stored} found",
        tip=AGAIN,
    )


def _sizes(shape: tuple[int, ...]) -> str:
    listed = "×".join(map(str, shape[:6]))
    return f"{listed}×…" if len(shape) > 6 else listed or "()"
