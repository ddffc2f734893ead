"""The run folder: atomic, hashed records, so that a killed run goes on where it was.

A run belongs to one request (model, data, options, versions). Each stage writes a
JSON record, and arrays or files beside it, under a temporary name, renames them, and
then enters their sha256 in `stages.json`; a stage counts as done only when its entry
is there and every hash still fits. Nothing outside the run folder is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import OutputError, RunError
from edgeprune.records import to_json

SCHEMA = 1


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name in the same folder, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a record as JSON, atomically; floats that are not finite become null."""
    write_text(path, json.dumps(_finite(to_json(value)), indent=1) + "\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into; it becomes `folder` where nothing was raised.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already", tip="remove it or name another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, folder)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}", tip="check the disk and the path"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as npz, atomically."""
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        np.savez_compressed(partial, allow_pickle=False, **dict(arrays))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class RunFolder:
    """One run's records.

    Raises:
        OutputError: the folder cannot be made or written.
        RunError: it belongs to another request, or a record was changed.
    """

    def __init__(self, path: Path, request: Mapping[str, Any], *, force: bool = False) -> None:
        self.path = path
        plain = json.loads(json.dumps(_finite(to_json(dict(request)))))
        if path.exists() and not path.is_dir():
            raise OutputError(
                f"--output {path}: a file is in the way", tip="remove it or choose another folder"
            )
        if force and (path / "run.json").is_file():
            shutil.rmtree(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".probe"
            probe.write_bytes(b"0")
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"--output {path}: {error.strerror or error}", tip="choose a folder that can be written"
            ) from error
        found = self._read("run.json")
        self._new = found is None
        if found is None:
            if any(p.name != "stages.json" for p in path.iterdir()):
                raise OutputError(
                    f"--output {path}: holds files that are not a run's", tip="choose an empty or new folder"
                )
            write_json(path / "run.json", {"schema": SCHEMA, "request": plain})
        elif found.get("request") != plain:
            old = found.get("request", {})
            changed = sorted(k for k in plain.keys() | old.keys() if plain.get(k) != old.get(k))
            raise RunError(
                f"{path}: holds a run of another request (differs in: {', '.join(changed)})",
                tip="use --force to start over, or another --output",
            )
        self._stages: dict[str, dict[str, str]] = self._read("stages.json") or {}

    def load(self, stage: str) -> Any | None:
        """The JSON record of a finished stage, None when it has to be computed (again)."""
        hashes = self._stages.get(stage)
        if hashes is None or not all(
            (self.path / name).is_file() and sha256_file(self.path / name) == digest
            for name, digest in hashes.items()
        ):
            return None
        return self._read(f"{stage}.json")

    def arrays(self, stage: str) -> dict[str, np.ndarray]:
        """Arrays of a stage that `load` found."""
        with np.load(self.path / f"{stage}.npz", allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def save(
        self,
        stage: str,
        record: Any,
        *,
        arrays: Mapping[str, np.ndarray] | None = None,
        files: tuple[str, ...] = (),
    ) -> None:
        """Write a stage's record; `files` are names in the folder that it vouches for."""
        (self.path / stage).parent.mkdir(parents=True, exist_ok=True)
        names = [f"{stage}.json", *files]
        write_json(self.path / names[0], record)
        if arrays is not None:
            write_npz(self.path / f"{stage}.npz", arrays)
            names.append(f"{stage}.npz")
        self._stages[stage] = {name: sha256_file(self.path / name) for name in names}
        write_json(self.path / "stages.json", self._stages)

    def abandon(self, *, refused: bool = False) -> None:
        """Take back what opening wrote, if nothing else was written since; else the run can go on.

        Args:
            refused: the request can never be carried out, so what a new run wrote for it goes too.
        """
        if refused and self._new:
            for entry in self.path.iterdir():
                if entry.name != "run.json":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if {p.name for p in self.path.iterdir()} == {"run.json"}:
            (self.path / "run.json").unlink()
            with contextlib.suppress(OSError):  # a mount point, say
                self.path.rmdir()

    def finished(self) -> list[str]:
        """Names of the stages that were entered."""
        return list(self._stages)

    def _read(self, name: str) -> Any | None:
        file = self.path / name
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: is damaged ({error})", tip="use --force to start over") from error


def read_record(path: Path) -> Any:
    """Read a JSON file of a finished run.

    Raises:
        RunError: it is missing or damaged.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file", tip="give the folder that `edgeprune compress` wrote")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error})") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
