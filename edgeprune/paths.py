"""Paths that a user named: what may be read, what may be replaced, how they are shown.

    content = read_file(path, DataError)        regular files only, never a pipe or a device
    require_replaceable(path, "--output")       before any work is done for it
    write_file(path, content)                   under a temporary name, then renamed

Renaming a file over `/dev/null` as root replaces the device for the whole machine, and opening a FIFO
waits for ever. So every writer asks `require_replaceable`, and data folders are read through `open_file`.

Guarantee: nothing but a regular file is opened for reading or replaced; a write that fails leaves the old
content. Elsewhere: run folders (store).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from edgeprune.errors import EdgepruneError, OutputError

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
PARTIAL = ".partial"  # the end of temporary names


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and stored: bytes that are no UTF-8 are written as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def special_kind(path: Path) -> str:
    """What stands at a path that is no regular file, links followed; empty for a file or for nothing.

    Raises:
        OSError: the path cannot be looked at (too long, no permission).
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    return next((name for test, name in KINDS if test(mode)), "no regular file")


def require_replaceable(path: Path, label: str = "") -> None:
    """Refuse an output path that exists and is no regular file, or whose name cannot be written.

    Args:
        label: the option that named it (`--output`), for the message.

    Raises:
        OutputError: a folder, device, FIFO or socket is there; the name is too long or no UTF-8.
    """
    place = f"{label} {printable(path)}" if label else f"cannot write {printable(path)}"
    _require_utf8(path, place)
    try:
        kind = special_kind(path)
    except OSError as error:
        raise OutputError(
            f"{place}: {error.strerror or error}", tip="choose a place that can be written"
        ) from error
    if kind:
        raise OutputError(f"{place}: is {kind}, which is never replaced", tip="name a file")


def require_own_folder(path: Path, label: str = "") -> None:
    """Refuse a folder that is to be emptied or replaced and does not stand by itself.

    Raises:
        OutputError: a link, a mount point, or something that is no folder; the name is too long or no UTF-8.
    """
    place = f"{label} {printable(path)}".strip()
    _require_utf8(path, place)
    try:
        kind = special_kind(path) if os.path.lexists(path) else "a folder"
        if path.is_symlink():
            kind = f"a link to {printable(os.readlink(path))}"
        elif os.path.ismount(path):
            kind = "a mount point"
    except OSError as error:
        raise OutputError(
            f"{place}: {error.strerror or error}", tip="choose a place that can be written"
        ) from error
    if kind != "a folder":
        raise OutputError(
            f"{place}: is {kind or 'a file'}, which is never removed",
            tip="name the folder itself, or another",
        )


def open_file(path: Path, error: type[EdgepruneError]) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device is never waited for.

    Raises:
        error: it is something else, or cannot be opened.
    """
    try:
        kind = special_kind(path)  # before it is opened: opening a device may already do something
        if kind:
            raise error(f"{printable(path)}: is {kind}, not a file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as failed:
        raise error(f"{printable(path)}: cannot be read: {failed.strerror or failed}") from failed
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # replaced in between
        os.close(descriptor)
        raise error(f"{printable(path)}: is not a file")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, error: type[EdgepruneError]) -> bytes:
    """The content of a regular file.

    Raises:
        error: it is something else, or cannot be read.
    """
    with open_file(path, error) as stream:
        try:
            return stream.read()
        except OSError as failed:
            raise error(f"{printable(path)}: cannot be read: {failed.strerror or failed}") from failed


def partial_path(path: Path) -> Path:
    """The temporary name beside a file that is being written."""
    return path.with_name(f".{path.name}{PARTIAL}")


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write under a temporary name in the same folder, then rename.

    Raises:
        OutputError: something that is no regular file is in the way.
        OSError: it cannot be written; then the old content stays.
    """
    require_replaceable(path)
    partial = partial_path(path)
    partial.unlink(missing_ok=True)  # of a run that was killed
    try:
        descriptor = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _require_utf8(path: Path, place: str) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise OutputError(
            f"{place}: the name is not valid UTF-8", tip="records name their files; choose another name"
        ) from None
