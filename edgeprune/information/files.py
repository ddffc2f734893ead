"""Write and read an accumulator's state as one npz file.

Written to a temporary name in the same folder and renamed, so a file is whole
or absent; read without pickle. The same state gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError, OutputError

Arrays = dict[str, npt.NDArray[Any]]


def write(path: str | os.PathLike[str], kind: str, arrays: Arrays) -> None:
    """Write `arrays` under the name of their kind and schema.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
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
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {os.fspath(path)}: {error}") from error
    found = str(arrays.pop("kind", "nothing"))
    if found != f"{kind}/1":
        raise DataError(f"{os.fspath(path)} holds {found}, wanted {kind}/1")
    return arrays
