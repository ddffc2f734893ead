"""A bundle as a value, and the reading that building and opening one share.

Everything read here may come from a stranger: names, JSON and arrays are refused with one
ShipError rather than believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias

import numpy as np

from edgeprune.deploy.agent import LARGEST_TOLERANCE, Refused, safe_name
from edgeprune.errors import ShipError
from edgeprune.paths import open_file, printable
from edgeprune.records.npz import read_npz
from edgeprune.records.schema import Length, Range, read_json

SCHEMA, KIND, SEAL = 1, "edgeprune-bundle", "manifest.sha256"
TIP = "compress again"
Count: TypeAlias = Annotated[int, Range(0, 2**50)]
Digest: TypeAlias = Annotated[str, Length(64, 64)]


@dataclass(frozen=True)
class TensorEntry:
    """An input or an output of the model."""

    name: str
    shape: tuple[Count, ...]
    dtype: str


@dataclass(frozen=True)
class BundleFile:
    """A file of the bundle."""

    sha256: Digest
    bytes: Count


@dataclass(frozen=True)
class Smoke:
    """The check that the board makes: recorded inputs and outputs, and how far outputs may differ."""

    runner: str
    model: str
    golden: Annotated[tuple[str, ...], Length(1, 1000)]
    tolerance: Annotated[float, Range(0, LARGEST_TOLERANCE)]


@dataclass(frozen=True)
class Preprocess:
    """preprocess.json: how inputs are made, which of their features are read, names of classes."""

    preprocessing: dict[str, Any] | None = None
    kept_inputs: list[dict[str, Any]] | None = None
    class_names: tuple[str | int | float, ...] | None = None
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """manifest.json of a bundle."""

    schema: Literal[1]
    kind: Literal["edgeprune-bundle"]
    name: str
    model: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    preprocessing: dict[str, Any]
    class_names: tuple[str, ...]
    architecture: str | None
    versions: dict[str, str | int]
    smoke: Smoke
    files: dict[str, BundleFile]
    kept_inputs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Bundle:
    """Files by name, the manifest among them; `identity` is the manifest's sha256."""

    name: str
    identity: str
    manifest: dict[str, Any]
    files: Mapping[str, Path | bytes]

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.manifest["files"].values())


def safe(name: str) -> str:
    """Accept a plain relative name, by the rule that the board applies too."""
    try:
        return safe_name(name)
    except Refused as refused:
        raise ShipError(str(refused), tip=refused.tip) from None


def read_object(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one unless it is needed."""
    if path.is_symlink():
        raise ShipError(f"{path}: is a link", tip="put the file itself there")
    if not path.exists() and not needed:
        return {}
    plain: dict[str, Any] = read_json(dict[str, Any], path, error=ShipError, tip=TIP)
    return plain


def read_arrays(source: Path | BinaryIO, name: str = "") -> dict[str, np.ndarray]:
    """Read an npz by name from a path or a stream (called `name`); pickled arrays are refused.

    Raises:
        ShipError: as `records.npz.read_npz`, or no regular file.
    """
    if isinstance(source, Path):
        with open_file(source, ShipError) as stream:
            return read_arrays(stream, printable(source))
    arrays = read_npz(source, name, ShipError, tip="compress again")
    return {key: arrays[key] for key in sorted(arrays)}


def entry_of(content: Path | bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
