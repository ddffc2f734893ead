"""A bundle as a value, and the reading that building and opening one share.

Everything read here may come from a stranger: names, JSON and arrays are refused with one
ShipError rather than believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.deploy.agent import Refused, safe_name
from edgeprune.errors import ShipError

SCHEMA, KIND, SEAL = 1, "edgeprune-bundle", "manifest.sha256"


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


def read_json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one unless it is needed."""
    if path.is_symlink():
        raise ShipError(f"{path}: is a link", tip="put the file itself there")
    if not path.exists() and not needed:
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShipError(f"{path}: not readable JSON: {error}", tip="compress again") from None
    if not isinstance(found, dict):
        raise ShipError(f"{path}: not a JSON object", tip="compress again")
    return found


def read_arrays(source: Any) -> dict[str, np.ndarray]:
    """Read an npz by name from a path or a stream; pickled arrays are refused."""
    try:
        with np.load(source, allow_pickle=False) as saved:
            return {key: saved[key] for key in sorted(saved.files)}
    except Exception as error:  # zip, zlib and format errors share no base
        raise ShipError(f"{source}: not a readable npz file: {error}", tip="compress again") from None


def entry_of(content: Path | bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
