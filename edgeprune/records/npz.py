"""Read npz archives within what their stored bytes justify.

    arrays = read_npz(stream, "data.npz", DataError, tip="copy or download it again")

A few kilobytes of zip inflate to gigabytes, and a header of 20 bytes claims 2**40 samples. So the size that
a header claims is compared with the bytes of its member before anything is allocated, and an archive may
inflate to 256 MiB or 32 times its size, whichever is more. NumPy's own reader raises whatever its parser
or the decompressor raises (`tokenize.TokenError` and `zlib.error` among them) and gives bytes for members
without a magic number.

Guarantee: an array for every member, or one error of the caller's class; no pickled object is loaded.
Elsewhere: opening regular files only (paths), idx files (data.stored), the runner's own reader (measure),
which travels alone.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgeprune.errors import EdgepruneError

Array = npt.NDArray[Any]
MOST_AXES = 32
INFLATED, RATIO = 1 << 28, 32  # an archive may become this many bytes, or this many times its size
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGED = (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
UNREADABLE = (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError)
AGAIN = "copy or download it again"


def read_npz(
    stream: BinaryIO, name: str, error: type[EdgepruneError], *, tip: str = AGAIN
) -> dict[str, Array]:
    """All arrays of an npz archive by name.

    Args:
        stream: a seekable binary stream. name: how messages call it. error: what is raised. tip: its tip.

    Raises:
        error: not an npz archive, damaged, holding pickled objects, or larger than its bytes justify.
    """
    arrays: dict[str, Array] = {}
    try:
        size = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(6)
        if head == b"\x93NUMPY":
            raise error(f"{name}: holds one bare array, not named ones", tip=tip)
        if not head.startswith(b"PK"):
            raise error(f"{name}: not an npz file", tip=tip)
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            require_bounded(sum(info.file_size for info in members), size, name, error)
            for info in members:
                with archive.open(info) as member:
                    key = info.filename.removesuffix(".npy")
                    arrays[key] = _array(member, key, info.file_size, name, error, tip)
    except error:
        raise
    except DAMAGED as exc:
        raise error(f"{name}: damaged npz file: {exc}", tip=tip) from exc
    except UNREADABLE as exc:
        raise error(f"{name}: not a readable npz file: {exc}", tip=tip) from exc
    return arrays


def require_bounded(inflated: int, stored: int, name: str, error: type[EdgepruneError]) -> None:
    """Refuse compressed bytes that claim to hold more than the limit.

    Raises:
        error: with both sizes and the limit.
    """
    limit = max(INFLATED, RATIO * stored)
    if inflated > limit:
        raise error(
            f"{name}: {stored} compressed bytes claim to hold {inflated}; at most {limit} are read",
            tip="if that is right, save it uncompressed (numpy.savez, or the idx file without gzip)",
        )


def listed_sizes(shape: tuple[int, ...]) -> str:
    """A shape as `3×224×224`; long ones are cut."""
    listed = "×".join(map(str, shape[:6]))
    return f"{listed}×…" if len(shape) > 6 else listed or "()"


def _array(member: Any, key: str, size: int, name: str, error: type[EdgepruneError], tip: str) -> Array:
    """One member, after its header was compared with its size."""
    version = np.lib.format.read_magic(member)
    if version not in HEADERS:
        raise error(f"{name}: {key} is written in npy format {version[0]}.{version[1]}, which is not read")
    shape, _, dtype = HEADERS[version](member)
    if dtype.hasobject:
        raise error(
            f"{name}: holds pickled Python objects, which are never loaded",
            tip="save plain numeric arrays: np.savez(path, x=images, y=labels)",
        )
    left = size - member.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if len(shape) > MOST_AXES or claimed > left:
        raise error(
            f"{name}: {key} claims the shape {listed_sizes(shape)} ({claimed} bytes), {left} bytes are"
            " stored",
            tip=tip,
        )
    if not claimed and shape and shape[0] > 0:
        raise error(f"{name}: {key} has {shape[0]} samples of no size (shape {listed_sizes(shape)})")
    member.seek(0)
    return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
