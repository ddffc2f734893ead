"""The board's side of edgeprune: receives files, runs the runner, keeps releases. Standard library only.

Comes over SSH on stdin, followed by one line of JSON (the request) and the bytes of the files that
it lists; answers with one JSON object on stdout. Nothing of it stays on the board.

    BASE/releases/ID/     complete, proven releases; ID is the sha256 of the release's manifest
    BASE/current          a link to one of them, only ever replaced by a rename
    BASE/history          the releases that were current, oldest first
    BASE/.lock            held while something changes; freed by the system when the process ends

Guarantees: a release appears under its name only after every file has the hash of its manifest and
the model gave the recorded outputs on this very machine; `current` then moves in one step; whatever
breaks before leaves it untouched; every file name is checked here too, whatever the sender did.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA, CHUNK, SILENCE_SECONDS, SPARE_BYTES = 1, 2**20, 60, 8 * 2**20
MANIFEST = "manifest.json"
LARGEST_TOLERANCE = 0.25  # of an output's largest value; more would accept another model's outputs
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]*(/[A-Za-z0-9_][A-Za-z0-9_.+@ -]*)*")


class Refused(Exception):
    """Why the request was not carried out, and what to do."""

    def __init__(self, message: str, tip: str) -> None:
        super().__init__(message)
        self.tip = tip


# ---------------------------------------------------------------- files


def safe_name(name: Any) -> str:
    """Accept a relative path of plain parts; no climbing, no absolute or hidden name, no odd characters."""
    if not isinstance(name, str) or len(name) > 200 or not NAME.fullmatch(name):
        raise Refused(f"refused the file name {name!r}", "names are relative, of letters, digits and ._+@-")
    return name


def receive(folder: Path, files: list[dict[str, Any]], stream: BinaryIO) -> None:
    """Write the announced files into an empty folder, checking size and hash of each.

    Silence on the line for a minute counts as a cut: a dead peer must not hold the lock for hours.
    """
    names = [safe_name(entry["name"]) for entry in files]
    if len(set(names)) != len(names):
        raise Refused("two files of one name", "send each once")
    total, free = sum(int(entry["bytes"]) for entry in files), shutil.disk_usage(folder).free
    if total + SPARE_BYTES > free:
        needs = f"{folder}: {total / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        raise Refused(f"the board's disk is full: {needs}", "free space there, or keep fewer with --keep")
    with silence_is_a_cut():
        for entry in files:
            name = entry["name"]
            target, digest, left = folder / name, hashlib.sha256(), int(entry["bytes"])
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as handle:
                while left:
                    signal.alarm(SILENCE_SECONDS)
                    piece = stream.read(min(CHUNK, left))
                    if not piece:
                        raise Refused(f"the upload ended early, in {name}", "run it again")
                    handle.write(piece)
                    digest.update(piece)
                    left -= len(piece)
                handle.flush()
                os.fsync(handle.fileno())
            if digest.hexdigest() != entry["sha256"]:
                raise Refused(f"checksum mismatch in {name}: it changed on the way", "run it again")


@contextlib.contextmanager
def silence_is_a_cut() -> Iterator[None]:
    """Raise when the alarm that each piece resets goes off."""

    def gone(number: int, frame: Any) -> None:
        raise Refused(f"nothing came for {SILENCE_SECONDS} s", "check the connection and run it again")

    before = signal.signal(signal.SIGALRM, gone)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sha256(path: Path) -> str:
    """Hash a file piece by piece; a Pi Zero has 512 MB."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(CHUNK), b""):
            digest.update(piece)
    return digest.hexdigest()


def sync(folder: Path) -> None:
    """Make a rename in this folder survive a loss of power."""
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Receive files into a private folder, run Python on them there, remove the folder whatever happens."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        receive(Path(scratch), request["files"], stream)
        command = [sys.executable, *request["arguments"]]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, timeout=request["timeout"])
        except subprocess.TimeoutExpired:
            raise Refused(f"no result after {request['timeout']} s", "try fewer --seconds") from None
        out, said = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        wanted = {safe_name(name): Path(scratch) / name for name in request["returns"]}
        files = {n: base64.b64encode(p.read_bytes()).decode() for n, p in wanted.items() if p.is_file()}
        return {"code": done.returncode, "stdout": out, "stderr": said[-2000:], "files": files}


# ---------------------------------------------------------------- releases


@contextlib.contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold the folder's lock; refuse at once when somebody else does."""
    import fcntl

    descriptor = os.open(str(base / ".lock"), os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"another ship to {base} is under way", "wait until it has finished") from None
        yield
    finally:
        os.close(descriptor)


def base_of(request: dict[str, Any], *, create: bool = False) -> Path:
    """The folder that holds releases; a relative one is below the home folder."""
    base = Path(os.path.expanduser("~")) / os.path.expanduser(str(request["path"]))
    if create:
        try:
            (base / "releases").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Refused(
                f"{base} cannot hold releases: a file is in the way", "name another folder"
            ) from None
    if not (base / "releases").is_dir() or (base / "releases").is_symlink():
        raise Refused(f"no releases in {base}", "ship one first, or check the path")
    if os.path.lexists(base / "current") and not (base / "current").is_symlink():
        raise Refused(
            f"{base / 'current'} is not a link of edgeprune's", "move it away or name another folder"
        )
    return base


def current_of(base: Path) -> str:
    """The release that `current` points to, or nothing."""
    try:
        return Path(os.readlink(base / "current")).name
    except OSError:
        return ""


def history_of(base: Path) -> list[str]:
    """The releases that were current, oldest first, as far as they still exist."""
    try:
        lines = (base / "history").read_text().split()
    except OSError:
        lines = []
    return [line for line in lines if (base / "releases" / line / MANIFEST).is_file()]


def write_history(base: Path, lines: list[str]) -> None:
    """Replace the history in one step."""
    temporary = base / ".history.new"
    temporary.write_text("".join(line + "\n" for line in lines))
    os.replace(temporary, base / "history")


def prove(folder: Path, identity: str) -> dict[str, Any]:
    """Check every file of a release against its manifest, then the model against its recorded outputs."""
    if sha256(folder / MANIFEST) != identity:
        raise Refused("the manifest is not the one announced", "build the bundle again")
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    listed = {safe_name(name): entry["sha256"] for name, entry in manifest["files"].items()}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    if there != {MANIFEST, *listed}:
        odd = ", ".join(sorted(there ^ {MANIFEST, *listed}))
        raise Refused(f"the files are not those of the manifest: {odd}", "build the bundle again")
    for name, digest in listed.items():
        if (folder / name).is_symlink() or sha256(folder / name) != digest:
            raise Refused(f"checksum mismatch in {name}", "ship the release again")
    smoke = manifest["smoke"]
    if not 0 <= float(smoke["tolerance"]) <= LARGEST_TOLERANCE:
        raise Refused(f"the tolerance {smoke['tolerance']} accepts any output", "build the bundle again")
    names = [safe_name(name) for name in [smoke["runner"], smoke["model"], *smoke["golden"]]]
    command = [sys.executable, names[0], f"--tolerance={float(smoke['tolerance'])}"]
    command += [f"--check={name}" for name in names[2:]] + ["--", names[1]]
    done = subprocess.run(command, cwd=str(folder), capture_output=True, timeout=600)
    try:
        answer = json.loads(done.stdout)
        failed = {"ok": False, "why": answer.get("error", {}).get("message")}
        verdict: dict[str, Any] = answer.get("check", failed)
    except (ValueError, AttributeError):
        why = f"onnxruntime died on this board (exit {done.returncode})"
        raise Refused(f"smoke test: {why}", "edgeprune doctor --board says what is missing") from None
    if not verdict["ok"]:
        raise Refused(f"smoke test: {verdict['why']}", "verify the model on this processor: edgeprune verify")
    return verdict


def switch(base: Path, identity: str) -> None:
    """Point `current` to a release, in one step that no reader can see halfway."""
    temporary = base / ".current.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(os.path.join("releases", identity), temporary)
    os.replace(temporary, base / "current")
    sync(base)


def remove(folder: Path) -> None:
    """Take a release out of sight first, so that none is ever there in part."""
    trash = folder.with_name(".trash-" + folder.name)
    os.replace(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def release(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Receive a release, prove it here, make it current, remove those beyond the last `keep`."""
    base, identity, keep = base_of(request, create=True), str(request["id"]), max(1, int(request["keep"]))
    if not re.fullmatch("[0-9a-f]{64}", identity):
        raise Refused(f"not a release: {identity!r}", "build the bundle again")
    final = base / "releases" / identity
    with locked(base):
        for stale in (base / "releases").glob(".*"):
            shutil.rmtree(stale, ignore_errors=True)
        if request["files"]:
            incoming = base / "releases" / (".incoming-" + identity)
            incoming.mkdir()
            try:
                receive(incoming, request["files"], stream)
                verdict = prove(incoming, identity)
                if final.exists():
                    remove(final)
                sync(incoming)
                os.replace(incoming, final)
                sync(base / "releases")
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        else:
            verdict = prove(final, identity)
        before = current_of(base)
        if before != identity:
            write_history(base, [*history_of(base), identity])
            switch(base, identity)
        last = list(dict.fromkeys(reversed(history_of(base))))[:keep]
        for old in (base / "releases").iterdir():
            if old.name not in {identity, *last}:
                remove(old)
        return {"current": identity, "previous": before, "smoke": verdict, "path": str(base)}


def has(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Whether a release is there already."""
    base = Path(os.path.expanduser("~")) / os.path.expanduser(str(request["path"]))
    return {"there": (base / "releases" / str(request["id"]) / MANIFEST).is_file()}


def rollback(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Make the release before the current one current again, after proving it anew.

    The release that is rolled back leaves the history at every place: of A, B, A, B one rollback leaves A,
    and the next finds no earlier release instead of B.
    """
    base = base_of(request)
    with locked(base):
        now = current_of(base)
        earlier = [line for line in history_of(base) if line != now]
        if not earlier:
            raise Refused(f"no earlier release in {base}", "ship one, or list them with --list")
        target = earlier[-1]
        verdict = prove(base / "releases" / target, target)
        switch(base, target)
        write_history(base, [line for n, line in enumerate(earlier) if n == 0 or line != earlier[n - 1]])
        name = json.loads((base / "releases" / target / MANIFEST).read_text())["name"]
        return {"current": target, "previous": now, "smoke": verdict, "path": str(base), "name": name}


def listing(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """The releases there, newest last, and which one is current."""
    base, releases = base_of(request), []
    for folder in sorted((base / "releases").glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime):
        manifest = json.loads((folder / MANIFEST).read_text())
        size = sum(int(entry["bytes"]) for entry in manifest["files"].values())
        when = (folder / MANIFEST).stat().st_mtime
        releases.append({"id": folder.name, "name": manifest["name"], "bytes": size, "time": when})
    return {"releases": releases, "current": current_of(base), "history": history_of(base), "path": str(base)}


def environment(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Make a virtual environment with numpy and onnxruntime, from sent wheels or from the network."""
    folder = Path(os.path.expanduser("~")) / os.path.expanduser(request["folder"])
    python = folder / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        receive(Path(scratch), request["files"], stream)
        wheels = sorted(Path(scratch).glob("*.whl"))
        pips = [wheel for wheel in wheels if wheel.name.startswith("pip-")]
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        make = [sys.executable, "-m", "venv", *(["--without-pip"] if pips else []), str(folder)]
        # A wheel is a zip and pip can be run out of its own; so no pip has to be there.
        pip = [str(python), f"{pips[0]}/pip"] if pips else [str(python), "-m", "pip"]
        source = ["--no-index", "--no-deps", "--find-links", scratch] if wheels else []
        for command in (make, [*pip, "install", "-q", *source, "numpy", "onnxruntime"]):
            done = subprocess.run(command, capture_output=True, timeout=1800)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
                said = (lines or ["no message"])[-1]
                tip = "without network there: --wheels FOLDER with its wheels of pip, numpy, onnxruntime"
                raise Refused(f"the environment could not be made: {said}", tip)
    return {"python": str(python)}


JOBS: dict[str, Callable[[dict[str, Any], BinaryIO], dict[str, Any]]] = {
    "run": run,
    "release": release,
    "has": has,
    "rollback": rollback,
    "list": listing,
    "environment": environment,
}


def main() -> int:
    """Carry out one request."""
    stream = sys.stdin.buffer
    answer: dict[str, Any] = {"schema": SCHEMA}
    try:
        request = json.loads(stream.readline())
        answer["answer"] = JOBS[request["do"]](request, stream)
    except Refused as error:
        answer["error"] = {"message": str(error), "tip": error.tip}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the board's disk is full" if full else f"{error.strerror}: {error.filename}"
        tip = "free space there" if full else "check the path and its permissions on the board"
        answer["error"] = {"message": what, "tip": tip}
    except (ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        answer["error"] = {"message": f"{type(error).__name__}: {error}", "tip": "report this"}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
