"""Vet a `.pt2` archive before `torch.export.load` sees it.

`torch.export.load` unpickles in six places (weights and constants marked `use_pickle`,
their legacy `.pt` forms, custom and opaque objects, sample inputs that fail a safe load)
and loads native code in a seventh (AOTInductor). An archive passes only if it holds model
JSON and raw tensors; sample inputs are read with `weights_only=True`.

What is loaded is not the file but a new archive in memory, written from the vetted parts
alone: what a second zip reader might see differently, or a change of the file between
vetting and loading, has no way in.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from dataclasses import dataclass, field
from typing import Any

import torch

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.frontend.program import TIP, clean_program
from edgeprune.frontend.sniff import UNREADABLE_ZIP, require_stored

CONTROL = {"archive_format", "archive_version", "byteorder", "version"}
WEIGHT = re.compile(r"data/weights/(weight_[0-9]+)")
CONSTANT = re.compile(r"data/constants/(tensor_[0-9]+)")
REFUSED_MEMBERS = (
    (re.compile(r"data/aotinductor/.*"), "native code compiled by AOTInductor"),
    (re.compile(r".*\.(so|dll|dylib|pyd|cubin)"), "a native library"),
    (re.compile(r"data/weights/.*\.pt"), "pickled weights"),
    (re.compile(r"data/constants/.*\.pt"), "pickled constants"),
    (re.compile(r"data/constants/custom_obj_.*"), "a pickled custom object"),
    (re.compile(r"data/constants/opaque_obj_.*"), "a pickled opaque object"),
    (re.compile(r"data/(executorch|mtia).*"), "code for another runtime"),
)
SIZES_PER_ELEMENT = {  # torch.export's ScalarType → bytes
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2},
    **{28: 2, 29: 1, 30: 1, 31: 1, 32: 1, 33: 1, 34: 4, 35: 8},
}

EXPANDED = 1 << 28  # bytes by which tensors of stride 0 may be larger than what is stored


@dataclass(frozen=True)
class Vetted:
    """An archive that is safe to hand to `torch.export.load`, and what was noted on the way."""

    archive: bytes
    extra: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def vet(content: bytes, source: str) -> Vetted:
    """Check every member of an archive and rebuild it from what passed.

    Args:
        content: the whole file.
        source: its name, for messages.

    Raises:
        UnsafeModelError: loading it would unpickle, evaluate, import or run something.
        ModelError: damaged, or not one exported program.
    """
    try:
        require_stored(content, source)
        members = _members(content, source)
        models = [name for name in members if re.fullmatch(r"models/[^/]+\.json", name)]
        if len(models) != 1:
            raise ModelError(
                f"{source}: holds {len(models)} exported programs, not one",
                tip="save one program: torch.export.save(program, path)",
            )
        model = models[0].removeprefix("models/").removesuffix(".json")
        program, moved = clean_program(members[models[0]], source)
        version = members.get("archive_version", b"0")
        if members.get("archive_format") != b"pt2" or not version.strip().isdigit():
            raise ModelError(f"{source}: is not marked as a PT2 archive", tip="export it again")
        parts = {
            "archive_version": version,
            "models/model.json": json.dumps(program).encode(),
            "data/sample_inputs/model.pt": _sample_inputs(members, model, source),
            **_tensors(members, model, "weights", WEIGHT, source),
            **_tensors(members, model, "constants", CONSTANT, source),
        }
        extra = {
            name.removeprefix("extra/"): body.decode()
            for name, body in members.items()
            if name.startswith("extra/")
        }
    except RecursionError as exc:
        raise ModelError(f"{source}: its model JSON is nested too deeply") from exc
    except (*UNREADABLE_ZIP, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise ModelError(f"{source}: damaged exported program: {exc}", tip="export it again") from exc
    notes = ("tensors and devices were moved to the CPU",) if moved else ()
    return Vetted(_write(parts), extra, notes)


def _members(content: bytes, source: str) -> dict[str, bytes]:
    """Every member by its name below the archive's root folder; names and kinds are checked."""
    out: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if info.is_dir():
                continue
            for pattern, what in REFUSED_MEMBERS:
                if pattern.fullmatch(name):
                    raise UnsafeModelError(f"{source}: holds {what} ({name}); it was not loaded", tip=TIP)
            if name in out:
                raise UnsafeModelError(f"{source}: holds {name!r} twice; it was not loaded", tip=TIP)
            if not _expected(name):
                raise UnsafeModelError(f"{source}: holds {name!r}, which is no part of a program", tip=TIP)
            out[name] = archive.read(info)
    for name, body in out.items():
        if body[:4] == b"\x7fELF" and not WEIGHT.fullmatch(name) and not CONSTANT.fullmatch(name):
            raise UnsafeModelError(f"{source}: {name} is a native library; it was not loaded", tip=TIP)
    if out.get("byteorder", b"little") != b"little":
        raise ModelError(f"{source}: was saved on a big-endian machine")
    return out


def _expected(name: str) -> bool:
    return bool(
        name in CONTROL
        or name.startswith((".data/", "extra/"))
        or WEIGHT.fullmatch(name)
        or CONSTANT.fullmatch(name)
        or re.fullmatch(r"models/[^/]+\.json", name)
        or re.fullmatch(r"data/sample_inputs/[^/]+\.pt", name)
        or re.fullmatch(r"data/(weights|constants)/[^/]+_config\.json", name)
    )


def _tensors(
    members: dict[str, bytes], model: str, kind: str, pattern: re.Pattern[str], source: str
) -> dict[str, bytes]:
    """The config of weights or constants, rewritten, with the raw members that it names."""
    config = json.loads(members[f"data/{kind}/{model}_{kind}_config.json"])["config"]
    clean: dict[str, Any] = {}
    parts: dict[str, bytes] = {}
    excess = 0  # bytes that tensors with stride 0 would take, beyond those stored
    for name, payload in config.items():
        path = f"data/{kind}/{payload['path_name']}"
        if payload["use_pickle"] is not False:
            raise UnsafeModelError(f"{source}: {name} is stored as a pickle; it was not loaded", tip=TIP)
        if not pattern.fullmatch(path) or path not in members:
            raise ValueError(f"{name} points at {path!r}, which is not a raw tensor of this archive")
        if not re.fullmatch(r"[A-Za-z0-9_.\-+/:@ ]+", name):
            raise UnsafeModelError(f"{source}: has a tensor named {name[:60]!r}; it was not loaded", tip=TIP)
        clean[name] = {
            "path_name": payload["path_name"],
            "is_param": payload["is_param"] is True,
            "use_pickle": False,
            "tensor_meta": _tensor_meta(name, payload["tensor_meta"], len(members[path])),
        }
        excess += max(0, _claimed(clean[name]["tensor_meta"]) - len(members[path]))
        if excess > EXPANDED:
            raise ModelError(
                f"{source}: {name} repeats {len(members[path])} stored bytes to"
                f" {_claimed(clean[name]['tensor_meta'])}; at most {EXPANDED} are repeated",
                tip="export it with the tensor unexpanded",
            )
        parts[path] = members[path]
    parts[f"data/{kind}/model_{kind}_config.json"] = json.dumps({"config": clean}).encode()
    return parts


def _tensor_meta(name: str, meta: dict[str, Any], stored: int) -> dict[str, Any]:
    """Sizes, strides and offset as plain numbers that lie within the stored bytes."""
    element = SIZES_PER_ELEMENT.get(meta["dtype"])
    sizes = [int(s["as_int"]) for s in meta["sizes"]]
    strides = [int(s["as_int"]) for s in meta["strides"]]
    offset = int(meta["storage_offset"]["as_int"])
    if element is None or len(sizes) != len(strides) or min([*sizes, *strides, offset, 0]) < 0:
        raise ValueError(f"{name} has a malformed type or shape")
    empty = 0 in sizes
    last = 0 if empty else offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
    if last * element > stored:
        left_out = " (it was saved without its weights)" if stored == 0 else ""
        raise ValueError(f"{name} needs {last * element} bytes, {stored} are stored{left_out}")
    return {
        "dtype": meta["dtype"],
        "sizes": [{"as_int": n} for n in sizes],
        "requires_grad": meta["requires_grad"] is True,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": n} for n in strides],
        "storage_offset": {"as_int": offset},
        "layout": int(meta["layout"]),
    }


def _claimed(meta: dict[str, Any]) -> int:
    """The bytes that a tensor takes once it is copied."""
    elements = math.prod(int(n["as_int"]) for n in meta["sizes"])
    return elements * SIZES_PER_ELEMENT[meta["dtype"]]


def _sample_inputs(members: dict[str, bytes], model: str, source: str) -> bytes:
    """Sample inputs read with `weights_only=True` and written again; empty if there are none."""
    body = members.get(f"data/sample_inputs/{model}.pt", b"")
    if not body:
        return b""
    require_stored(body, source)
    try:
        samples = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    except Exception as exc:
        raise UnsafeModelError(
            f"{source}: its sample inputs do not load as plain tensors; it was not loaded", tip=TIP
        ) from exc
    if not (isinstance(samples, tuple) and len(samples) == 2):
        raise ValueError("its sample inputs are not (args, kwargs)")
    buffer = io.BytesIO()
    torch.save((_plain(samples[0]), _plain(samples[1])), buffer)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        size = value.numel() * value.element_size()
        if size > value.untyped_storage().nbytes() + EXPANDED:
            raise ValueError(f"a sample input of shape {tuple(value.shape)} would take {size} bytes")
        return value.detach().clone()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return type(value)(_plain(v) for v in value) if type(value) in (tuple, list) else _odd(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return _odd(value)


def _odd(value: Any) -> Any:
    raise ValueError(f"its sample inputs hold a {type(value).__name__}")


def _write(parts: dict[str, bytes]) -> bytes:
    """A fresh archive in the layout of torch.export.save, stored uncompressed."""
    buffer = io.BytesIO()
    fixed = {"archive_format": b"pt2", "byteorder": b"little", ".data/version": b"6\n"}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, body in {**parts, **fixed}.items():
            archive.writestr(zipfile.ZipInfo(f"package/{name}"), body)
    return buffer.getvalue()
