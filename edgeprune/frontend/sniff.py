"""Tell what a model file is from its content; the suffix decides nothing.

Reads the beginning of the file and, for zip archives, the list of members. Nothing is
unpickled or run.

Guarantee: the members of an archive that is passed on are as large together as the archive at most:
torch compresses nothing, so what would inflate is a bomb.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Literal

from edgeprune.errors import ModelError

Kind = Literal["exported", "exported-legacy", "torchscript", "torch-zip", "pickle", "safetensors", "onnx"]

UNREADABLE_ZIP = (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, NotImplementedError)
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: its magic number, pickled
SEVERAL = "give the PyTorch model that it came from (.pt2, or a state dict with --model), or an ONNX file"
OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model", SEVERAL),
    (0, b"\x89HDF", "an HDF5 file (Keras)", SEVERAL),
    (4, b"ET1", "an ExecuTorch program", SEVERAL),
    (0, b"GGUF", "a GGUF model", SEVERAL),
    (0, b"\x7fELF", "a native library or program", SEVERAL),
    (0, b"\x93NUMPY", "a NumPy array", "if it is data, give it with --data"),
    (0, b"\x1f\x8b", "gzip-compressed", "decompress it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (0, b"<!DOCTYPE", "a web page, probably a failed download", "download it again"),
    (0, b"<html", "a web page, probably a failed download", "download it again"),
)


def sniff(content: bytes, source: str) -> Kind:
    """The kind of a model file.

    Raises:
        ModelError: empty, truncated, or something else that is no model (named).
    """
    if not content:
        raise ModelError(f"{source}: the file is empty", tip="save or download the model again")
    if content.startswith(b"PK"):
        return _zip_kind(content, source)
    for offset, magic, what, tip in OTHERS:
        if content[offset : offset + len(magic)] == magic:
            raise ModelError(f"{source}: is {what}, not a PyTorch or ONNX model", tip=tip)
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < 100_000_000:
        return "safetensors"
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if is_onnx(content):
        return "onnx"
    raise ModelError(
        f"{source}: is no known kind of model (it begins with {content[:8].hex(' ')})",
        tip="give a .pt2 saved by torch.export.save, a state dict or safetensors with --model",
    )


def _zip_kind(content: bytes, source: str) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            full = archive.namelist()
    except UNREADABLE_ZIP as exc:
        raise ModelError(
            f"{source}: truncated or damaged: {len(content)} bytes without a readable table of contents",
            tip="copy or download it again",
        ) from exc
    names = {name.partition("/")[2] for name in full}
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        require_stored(content, source)
        return "exported"
    if "serialized_exported_program.json" in full:
        require_stored(content, source)
        return "exported-legacy"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "torchscript"
    if "data.pkl" in names:
        require_stored(content, source)
        return "torch-zip"
    if full and all(name.endswith(".npy") for name in full):
        raise ModelError(f"{source}: is an npz file of arrays, not a model", tip="give it with --data")
    listed = ", ".join(repr(name) for name in sorted(full)[:3])
    raise ModelError(f"{source}: is a zip archive without a model (it holds {listed or 'nothing'})")


def require_stored(content: bytes, source: str) -> None:
    """Refuse an archive whose members are compressed, or share bytes so that they are more than it holds.

    What is no zip archive passes.

    Raises:
        ModelError: with the sizes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except UNREADABLE_ZIP:
        return
    packed = [
        member
        for member in members
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size
    ]
    total = sum(member.file_size for member in members)
    if packed:
        first = packed[0]
        raise ModelError(
            f"{source}: {first.filename} is compressed ({first.compress_size} bytes that claim to hold"
            f" {first.file_size}); torch never does that",
            tip="save it again with torch.save or torch.export.save, not with a zip program",
        )
    if total > len(content):
        raise ModelError(f"{source}: claims to hold {total} bytes in {len(content)}", tip="save it again")


def is_onnx(content: bytes) -> bool:
    """Whether the bytes parse as the top level of an ONNX ModelProto: its fields only, IR version first."""
    seen = [number for number, _ in _fields(content[:65536], len(content))]
    return seen[:1] == [1] and set(seen) <= {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26} and len(seen) > 1


def _fields(head: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Protobuf fields (number, wire type) whose keys lie in `head`; an impossible one is given as 0."""
    at = 0
    while at < len(head):
        key, at = _varint(head, at)
        number, wire = key >> 3, key & 7
        yield (number if wire in (0, 2) else 0), wire
        value, at = _varint(head, at)
        if wire == 2:
            at += value
        if wire not in (0, 2) or at > size:
            return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return value, at
