"""Change bytes, JSON, TOML, archives, arrays and headers at random, from a seeded generator.

    mutate(content, name, rng)    content with one to four changes that suit the format of `name`

Every format also gets plain changes of bytes. Structured changes keep the file readable up to the field
that is changed, so that they reach the checks behind the parser. The same generator state gives the same
bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Change = Callable[[bytes, random.Random], bytes]
BOMB = 5 << 28  # bytes of zeros behind a compressed member, 1.25 GiB: more than an input may use
LARGE = 1 << 24  # bytes that the fuzzer itself inflates
BOMBED = -1  # the method of a member that is written as one
ZEROS = bytes(1 << 20)  # written again and again: the fuzzer itself must not need the memory
NUMBERS = (0, -1, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**70, -(2**70), 0.5, 1e-30, 1e308)
ODD = (
    None, True, False, "", "x", "0", "-1", "nan", "1e999", "../../../etc/passwd", "/dev/null", "a\x00b",
    "é" * 300, "\ud800", "a" * 100_000, [], {}, [[]], {"": None}, float("nan"), float("inf"),
    -float("inf"), *NUMBERS,
)  # fmt: skip
HEADERS = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x01\x00\x00\x00\x00\x00\x00",
)


def mutate(content: bytes, name: str, rng: random.Random) -> bytes:
    """One to four changes, structured ones where the format has any."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        changes = STRUCTURED.get(name.rpartition(".")[2], ())
        change = rng.choice(changes) if changes and rng.random() < 0.75 else rng.choice(PLAIN)
        content = change(content, rng)
    return content


def flip(content: bytes, rng: random.Random) -> bytes:
    """Other bits in up to eight places."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """A number at the edge of its type, or noise, over a place."""
    at = rng.randrange(len(content) + 1)
    word = rng.choice((*HEADERS, struct.pack("<q", rng.choice((-1, 2**31, 2**40, 2**62))), rng.randbytes(4)))
    return content[:at] + word + content[at + len(word) :]


def cut(content: bytes, rng: random.Random) -> bytes:
    """The file ends early, or a stretch is missing."""
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] if rng.random() < 0.5 else content[:first] + content[last:]


def insert(content: bytes, rng: random.Random) -> bytes:
    """Noise, or a stretch of the file itself, at a place."""
    at, first = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    more = rng.choice((rng.randbytes(rng.choice((1, 4, 64))), content[first : first + 64], b"\x00" * 4096))
    return content[:at] + more + content[at:]


def replace(content: bytes, rng: random.Random) -> bytes:
    """Another file altogether: nothing, one byte, noise, text, a script."""
    return rng.choice((b"", b"\x00", rng.randbytes(300), b"[" * 20_000, b"{}", b"#!/bin/sh\n", content * 2))


def json_value(content: bytes, rng: random.Random) -> bytes:
    """An entry of a JSON document is replaced, removed, doubled, nested deeply or of another type."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return flip(content, rng)
    box = [root]
    _change_value(box, rng)
    text = json.dumps(box[0])
    if rng.random() < 0.03:
        text = rng.choice(("[" * 50_000 + "]" * 50_000, text.replace(":", ":" + "[" * 900, 1), text + text))
    return text.encode("utf-8", "surrogatepass")


def _change_value(box: list[Any], rng: random.Random) -> None:
    """Walk to a random place of the value in `box` and change it."""
    holder: Any = box
    key: Any = 0
    while isinstance(inner := holder[key], dict | list) and inner and rng.random() < 0.9:
        holder, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    kind, value = rng.random(), holder[key]
    if kind < 0.15 and holder is not box:
        del holder[key]
    elif kind < 0.25 and isinstance(value, list) and value:
        holder[key] = value * rng.choice((2, 1000)) if rng.random() < 0.5 else value[:-1]
    elif kind < 0.35 and isinstance(value, dict):
        value[rng.choice(("x", "", "schema", *list(value)[:3]))] = rng.choice(ODD)
    elif kind < 0.6 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice(
            (-value, value + 1, value * 10**6, str(value), [value], float(value), *NUMBERS)
        )
    else:
        holder[key] = rng.choice(ODD)


def toml_value(content: bytes, rng: random.Random) -> bytes:
    """A line of a TOML file is removed, doubled, or its value replaced."""
    lines = content.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    values = (
        "true", "-1", "0", "1e999", "nan", "inf", "''", '"' + "a" * 9999 + '"', "[]", "{}",
        "[" * 2000 + "]" * 2000, "{a = " * 500 + "1" + "}" * 500, "2026-01-01",
        "0x7fffffffffffffffffff", '"../x"', "[1, 'a', []]",
    )  # fmt: skip
    kind = rng.random()
    if kind < 0.2:
        del lines[at]
    elif kind < 0.3:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif kind < 0.4:
        lines.insert(at, rng.choice(("[x]", "[[x]]", "base = 'target'", "detect = true", "x = 1", "\ufeff")))
    else:
        lines[at] = lines[at].split("=")[0] + "= " + rng.choice(values)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def zip_member(content: bytes, rng: random.Random) -> bytes:
    """A member of an archive is changed by its format, removed, renamed, doubled, or becomes a bomb."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(i.file_size > LARGE for i in archive.infolist()):
                return flip(content, rng)  # a bomb, or a claim: not for the fuzzer to inflate
            members = [(i.filename, archive.read(i), i.compress_type) for i in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, EOFError, OSError):
        return flip(content, rng)
    if not members:
        return flip(content, rng)
    at = rng.randrange(len(members))
    name, body, method = members[at]
    kind = rng.random()
    if kind < 0.7:
        members[at] = (name, mutate(body, name, rng), method)
    elif kind < 0.78:
        del members[at]
    elif kind < 0.86:
        members[at] = (rng.choice(("../x", "/x", "x" * 300, name + "/x", name.upper(), "")), body, method)
    elif kind < 0.92:
        members.append((name, mutate(body, name, rng), method))
    elif kind < 0.995:
        members.append((rng.choice(("x.npy", "data/9", "byteorder", "code/a.py")), rng.randbytes(40), method))
    else:
        members[at] = (name, body[:256], BOMBED)
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name are meant
        for name, body, method in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = zipfile.ZIP_DEFLATED if method == BOMBED else method
            with archive.open(info, "w") as stream:
                stream.write(body)
                for _ in range(BOMB >> 20 if method == BOMBED else 0):
                    stream.write(ZEROS)
    return packed.getvalue()


def npy_header(content: bytes, rng: random.Random) -> bytes:
    """Another shape, type or order in the header of an array, the data unchanged."""
    if not content.startswith(b"\x93NUMPY") or len(content) < 12:
        return flip(content, rng)
    length = int.from_bytes(content[8:10], "little")
    shape = rng.choice(
        ("()", "(0,)", "(1099511627776,)", "(-1,)", "(2, 2)", "(1,)" * 1, f"({'1, ' * 65})", "'x'")
    )
    kind = rng.choice(
        ("<f4", "|O", "<f8", "|b1", "<U9", "<M8[s]", "<c16", "<i8", "|V4", ">f2", "[('a', '<i4')]")
    )
    text = f"{{'descr': {kind!r}, 'fortran_order': {rng.choice((True, False, 1, None))}, 'shape': {shape}, }}"
    if rng.random() < 0.1:
        text = rng.choice(("{}", "[" * 5000, "__import__('os')", "{'descr': 1}", text[:-3]))
    return content[:8] + len(text).to_bytes(2, "little") + text.encode() + content[10 + length :]


def idx_header(content: bytes, rng: random.Random) -> bytes:
    """Another type, number of axes or size in the header of an idx file."""
    changed = bytearray(content)
    if len(changed) > 8:
        at = rng.randrange(2, 8)
        changed[at : at + 1] = rng.choice((b"\x00", b"\x01", b"\x0d", b"\x41", b"\x7f", b"\xff"))
    return bytes(changed)


def gzip_body(content: bytes, rng: random.Random) -> bytes:
    """The content of a gzip file is changed, followed by more, or becomes a bomb."""
    try:
        press = zlib.decompressobj(31)
        body = press.decompress(content, LARGE)
    except zlib.error:
        return flip(content, rng)
    if press.unconsumed_tail:
        return flip(content, rng)
    kind = rng.random()
    if kind < 0.01:
        press = zlib.compressobj(1, zlib.DEFLATED, 31)
        return b"".join(
            [press.compress(body), *(press.compress(ZEROS) for _ in range(BOMB >> 20)), press.flush()]
        )
    if kind < 0.8:
        body = idx_header(body, rng) if rng.random() < 0.6 else rng.choice(PLAIN)(body, rng)
    else:
        return content + rng.choice((content, b"\x00" * 9, rng.randbytes(9)))
    return gzip.compress(body, 1, mtime=0)


def safetensors_header(content: bytes, rng: random.Random) -> bytes:
    """An entry of the JSON header is changed; its length fits, or not."""
    length = int.from_bytes(content[:8], "little")
    header = json_value(content[8 : 8 + length], rng)
    stated = len(header) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**63))
    return stated.to_bytes(8, "little") + header + content[8 + length :]


def image_size(content: bytes, rng: random.Random) -> bytes:
    """Huge sizes in the header of a PNG or BMP, or the magic number of another format."""
    if content.startswith(b"\x89PNG") and rng.random() < 0.6:
        wide, high = rng.choice(
            ((80_000_000, 1), (1, 80_000_000), (0, 5), (100_000, 100_000), (2**31 - 1, 1))
        )
        chunk = b"IHDR" + struct.pack(">II", wide, high) + content[24:29]
        return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    if content.startswith(b"BM") and rng.random() < 0.6:
        return content[:18] + struct.pack("<ii", rng.choice((-1, 10**5, 2**31 - 1)), 10**5) + content[26:]
    magic = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a",
        b"II*\x00",
        b"RIFF",
        b"P6 9 9 255\n",
    )
    return rng.choice(magic) + content[rng.choice((0, 4, 8)) :]


def onnx_field(content: bytes, rng: random.Random) -> bytes:
    """A field in the message tree of an ONNX file: another value, removed, doubled, or a hostile path."""
    import onnx
    from google.protobuf.message import DecodeError, Message

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return flip(content, rng)
    message: Message = model
    while fields := message.ListFields():
        field, value = rng.choice(fields)
        many = hasattr(value, "append") or hasattr(value, "add")
        inner = rng.choice(value) if many and len(value) else value
        if isinstance(inner, Message) and rng.random() < 0.9:
            message = inner
        else:
            break
    else:
        return flip(content, rng)
    kind = rng.random()
    if kind < 0.2:
        message.ClearField(field.name)
    elif many and kind < 0.5 and len(value):
        at = rng.randrange(len(value))
        if kind < 0.35:
            del value[at]
        elif isinstance(value[at], Message):
            value.add().CopyFrom(value[at])
        else:
            value.append(value[at])
    elif not many and not isinstance(value, Message):
        odd = {
            int: (0, -1, 7, 2**31 - 1),
            float: (float("nan"), -1.0),
            str: ("", "x", "../x", "If", "Loop", "a" * 5000),
        }
        choices = odd.get(type(value), (b"", b"\x00", value[:-1] if isinstance(value, bytes) else value))
        with contextlib.suppress(ValueError):  # a closed enumeration takes no other number: unchanged
            setattr(message, field.name, rng.choice(choices))
    elif many and len(value) and isinstance(value[0], int):
        value[rng.randrange(len(value))] = rng.choice((0, -1, 3, 2**40, 2**62))
    return model.SerializeToString()


PLAIN: tuple[Change, ...] = (flip, flip, overwrite, cut, insert, replace)
STRUCTURED: dict[str, tuple[Change, ...]] = {
    "json": (json_value,),
    "toml": (toml_value,),
    "npz": (zip_member,),
    "pt": (zip_member,),
    "pt2": (zip_member,),
    "npy": (npy_header,),
    "idx3-ubyte": (idx_header,),
    "gz": (gzip_body,),
    "onnx": (onnx_field,),
    "safetensors": (safetensors_header,),
    **dict.fromkeys(("png", "jpg", "bmp", "gif", "tif"), (image_size,)),
}
