"""Write and read an accumulator's state as one npz file.

Written to a temporary name in the same folder and renamed, so a file is whole
or absent; read without pickle. The same state gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError, OutputError
from edgeprune.information.validate import describe_value
from edgeprune.paths import require_replaceable
from edgeprune.records.npz import read_npz

Arrays = dict[str, npt.NDArray[Any]]


def write(path: str | os.PathLike[str], kind: str, arrays: Arrays) -> None:
    """Write `arrays` under the name of their kind and schema.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(_name_of(path))
    require_replaceable(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, kind=np.array(f"{kind}/1"), **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def read(path: str | os.PathLike[str], kind: str) -> Arrays:
    """Read what `write` wrote for this kind.

    Raises:
        DataError: missing, damaged, or of another kind.
    """
    path = _name_of(path)
    try:
        with open(path, "rb") as stream:
            arrays = read_npz(stream, f"cannot read {path}", DataError)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    stored_kind = str(arrays.pop("kind", "nothing"))
    if stored_kind != f"{kind}/1":
        raise DataError(f"{path} holds {stored_kind}, wanted {kind}/1")
    return arrays


def expect(arrays: Arrays, shapes: Mapping[str, tuple[type, int]], path: str | os.PathLike[str]) -> Arrays:
    """Return `arrays`, which hold these names with these types and dimensions and no other.

    Raises:
        DataError: they do not.
    """
    if set(arrays) != set(shapes):
        raise DataError(f"{_name_of(path)} holds {sorted(arrays)}, wanted {sorted(shapes)}")
    for name, (dtype, ndim) in shapes.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != ndim:
            raise DataError(f"{_name_of(path)}: {name} is {arrays[name].dtype} {arrays[name].shape}")
    return arrays


def _name_of(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):  # open(5) would read whatever is open as number five
        raise DataError(f"path is {describe_value(path)}, wanted the name of a file")
    return os.fspath(path)
