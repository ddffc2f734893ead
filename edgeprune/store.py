"""The run folder: atomic, hashed records, so that a killed run goes on where it was.

A run belongs to one request (model, data, options, versions). Each stage writes a
JSON record, and arrays or files beside it, under a temporary name, renames them, and
then enters their sha256 in `stages.json`; a stage counts as done only when its entry
is there and every hash still fits. Nothing outside the run folder is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import OutputError, RunError
from edgeprune.paths import (
    open_file,
    printable,
    read_file,
    require_own_folder,
    special_kind,
    write_file,
)
from edgeprune.records import to_json
from edgeprune.records.npz import read_npz

SCHEMA = 1
FIRST_WRITES = (".probe", ".probe.partial", ".run.json.partial")  # what a run killed at once may leave
UNFINISHED = re.compile(
    r"\..+\.partial(\.npz)?"  # files of this module
    r"|\..+\.(?P<pid>[0-9]{1,10})(\.partial)?"  # folders of `whole_folder`, masks
    r"|\..+\.(onnx|html|json|npz|pt2|safetensors)\.[a-z0-9_]{8}"  # made by tempfile
)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    Raises:
        OutputError: it cannot be written, or something that is no regular file is in the way.
    """
    _write(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a record as JSON, atomically; floats that are not finite become null.

    Raises:
        OutputError: as `write_text`.
    """
    write_text(path, json.dumps(to_json(value), indent=1) + "\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into; it becomes `folder` where nothing was raised.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    require_own_folder(folder)
    if os.path.lexists(folder):
        raise OutputError(f"{printable(folder)} exists already", tip="remove it or name another folder")
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
    """Write arrays as npz, atomically.

    Raises:
        OutputError: as `write_text`.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    _write(path, buffer.getbuffer())


class RunFolder:
    """One run's records.

    Raises:
        OutputError: the folder cannot be made or written.
        RunError: it belongs to another request, or a record was changed.
    """

    def __init__(self, path: Path, request: Mapping[str, Any], *, force: bool = False) -> None:
        self.path = path
        plain = json.loads(json.dumps(to_json(dict(request))))
        _require_folder(path, force=force)
        self._sweep()
        stored = self._read("run.json", dict)
        self._new = stored is None
        if stored is None:
            if any(entry.name != "stages.json" for entry in path.iterdir()):
                raise OutputError(
                    f"--output {printable(path)}: holds files that are not a run's",
                    tip="choose an empty or new folder",
                )
            write_json(path / "run.json", {"schema": SCHEMA, "request": plain})
        elif stored.get("request") != plain:
            old = stored.get("request")
            before = old if isinstance(old, dict) else {}
            changed = sorted(k for k in plain.keys() | before.keys() if plain.get(k) != before.get(k))
            raise RunError(
                f"{printable(path)}: holds a run of another request (differs in: {', '.join(changed)})",
                tip="use --force to start over, or another --output",
            )
        self._stages: dict[str, dict[str, str]] = self._read("stages.json", dict) or {}
        for stage, hashes in self._stages.items():
            if not isinstance(hashes, dict) or not all(isinstance(h, str) for h in hashes.values()):
                raise RunError(
                    f"{printable(path / 'stages.json')}: is damaged ({stage!r} has no table of hashes)",
                    tip="use --force to start over",
                )

    def load(self, stage: str) -> Any | None:
        """The JSON record of a finished stage, None when it has to be computed (again)."""
        hashes = self._stages.get(stage)
        if hashes is None or not all(
            (self.path / name).is_file() and sha256_file(self.path / name) == digest
            for name, digest in hashes.items()
        ):
            return None
        return self._read(f"{stage}.json", object)

    def arrays(self, stage: str) -> dict[str, np.ndarray]:
        """Arrays of a stage that `load` found."""
        path = self.path / f"{stage}.npz"
        with open_file(path, RunError) as stream:
            return read_npz(stream, printable(path), RunError, tip="use --force to start over")

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

    def _sweep(self) -> None:
        """Remove what killed runs left under temporary names.

        Where there is no run yet, only if nothing else is there: then the folder is free.
        """
        if (self.path / "run.json").is_file():
            for entry in list(self.path.rglob(".*")):
                if _is_leftover(entry.name):
                    _remove(entry)
            return
        entries = list(self.path.iterdir())
        if all(entry.name in FIRST_WRITES for entry in entries):
            for entry in entries:
                _remove(entry)

    def _read(self, name: str, kind: type) -> Any | None:
        file = self.path / name
        if not os.path.lexists(file):
            return None
        return _parsed(file, kind, "use --force to start over")


def read_record(path: Path) -> Any:
    """Read a JSON file of a finished run.

    Raises:
        RunError: it is missing or damaged.
    """
    if not path.is_file():
        raise RunError(
            f"{printable(path)}: no such file", tip="give the folder that `edgeprune compress` wrote"
        )
    return _parsed(path, object, "")


def _parsed(file: Path, kind: type, tip: str) -> Any:
    """The JSON value of a file, of a type.

    Raises:
        RunError: not JSON, nested too deeply, or another type.
    """
    try:
        value = json.loads(read_file(file, RunError).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RunError(f"{printable(file)}: is damaged ({reason})", tip=tip) from error
    if not isinstance(value, kind):
        raise RunError(
            f"{printable(file)}: is damaged (a JSON object is expected, it holds a {type(value).__name__})",
            tip=tip,
        )
    return value


def _require_folder(path: Path, *, force: bool) -> None:
    """Make a run folder and see that it can be written; `force` empties it of an earlier run.

    Raises:
        OutputError: a file is in the way; a link or a mount point would have to be removed; not writable.
    """
    try:
        if os.path.lexists(path) and not path.is_dir():
            raise OutputError(
                f"--output {printable(path)}: {special_kind(path) or 'a file'} is in the way",
                tip="remove it or choose another folder",
            )
        if force and (path / "run.json").is_file():
            require_own_folder(path, "--force")
            shutil.rmtree(path)
        elif not path.exists():
            require_own_folder(path, "--output")
        path.mkdir(parents=True, exist_ok=True)
        write_file(path / ".probe", b"0")
        (path / ".probe").unlink()
    except OSError as error:
        raise OutputError(
            f"--output {printable(path)}: {error.strerror or error}",
            tip="choose a folder that can be written",
        ) from error


def _is_leftover(name: str) -> bool:
    """Whether a name is one that a writer of this package gives to what is not finished."""
    match = UNFINISHED.fullmatch(name)
    if match is None:
        return False
    return match["pid"] is None or not _is_running(int(match["pid"]))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        write_file(path, content)
    except OSError as error:
        raise OutputError(
            f"cannot write {printable(path)}: {error.strerror or error}", tip="check the disk and the path"
        ) from error
