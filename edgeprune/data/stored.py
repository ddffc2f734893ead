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
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.paths import open_file, printable
from edgeprune.records.npz import AGAIN, MOST_AXES, listed_sizes, read_npz, require_bounded

Array = npt.NDArray[Any]
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_npz_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an npz file by name.

    Raises:
        DataError: as `records.npz.read_npz`, or no regular file.
    """
    with open_file(path, DataError) as stream:
        return read_npz(stream, printable(path), DataError, tip=AGAIN)


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
                require_bounded(expected, size, name, DataError)
            elif expected > size:
                raise _other_size(name, shape, expected, size)
            body = content.read(expected + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise DataError(f"{name}: damaged gzip file: {exc}", tip=AGAIN) from exc
    if len(body) != expected:
        raise _other_size(name, shape, expected, len(body))
    flat = np.frombuffer(body, dtype=dtype)
    return flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)


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
        raise DataError(f"{name}: has {shape[0]} samples of no size (shape {listed_sizes(shape)})")
    return shape, np.dtype(IDX_TYPES[head[2]])


def _other_size(name: str, shape: tuple[int, ...], expected: int, stored: int) -> DataError:
    return DataError(
        f"{name}: truncated or damaged idx file: {expected} bytes expected for shape {listed_sizes(shape)},"
        f" {stored} found",
        tip=AGAIN,
    )
