"""Delivery through a real OpenSSH server: releases, rollback, and `current` whatever breaks."""

import fcntl
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from device_samples import write_run

from edgeprune.cli.device import ship as ship_command
from edgeprune.deploy import agent
from edgeprune.deploy import remote as remote_module
from edgeprune.deploy.agent import MANIFEST
from edgeprune.deploy.bundle import open_bundle
from edgeprune.deploy.bundle_parts import Bundle
from edgeprune.deploy.remote import Board
from edgeprune.deploy.shipping import list_releases, rollback, ship
from edgeprune.deploy.ssh import Remote
from edgeprune.errors import DeviceError, ShipError

CLI = [sys.executable, "-c", "from edgeprune.cli.device import ship; ship()"]


def settled(base: Path, look: Callable[[Path], bool]) -> bool:
    """What `look` says of the release that `current` leads to, both before and after looking.

    A dead client's other half may still finish: `current` moves on and the old release is removed
    while a reader is in it, which says nothing about the release that is current then.
    """
    while True:
        here = os.readlink(base / "current")
        try:
            fine = look(base / here)
        except FileNotFoundError:
            fine = False
        if fine or os.readlink(base / "current") == here:
            return fine


def is_complete(base: Path) -> bool:
    """Whether `current` leads to a release of exactly the manifest's files, each with its hash."""
    return settled(base, whole_release)


def whole_release(folder: Path) -> bool:
    """Whether a folder holds exactly its manifest's files, each with its hash."""
    text = (folder / MANIFEST).read_bytes()
    listed = json.loads(text)["files"]
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    hashes = all(
        hashlib.sha256((folder / n).read_bytes()).hexdigest() == e["sha256"] for n, e in listed.items()
    )
    return hashlib.sha256(text).hexdigest() == folder.name and there == {MANIFEST, *listed} and hashes


def serving(base: Path) -> str:
    return (base / "current").resolve().name


@pytest.fixture
def board(native):
    """The board on this machine's own Python."""
    with Remote("native") as remote:
        yield Board(remote)


@pytest.fixture
def bundles(tmp_path):
    """Three releases of small networks."""
    return [open_bundle(write_run(tmp_path / f"run{n}", seed=n)) for n in range(3)]


@pytest.fixture
def base(native):
    """An empty place on the board."""
    return native.home("base") / "model"


def test_a_release_is_served_proven_and_complete(board, bundles, base):
    """After shipping, `current` holds exactly the manifest's files and gave the recorded outputs there."""
    done = ship(bundles[0], board, str(base))
    assert is_complete(base)
    assert serving(base) == done.identity == bundles[0].identity
    assert done.uploaded
    assert done.previous is None
    usage = subprocess.run([sys.executable, base / "current/usage.py"], capture_output=True, text=True)
    assert usage.returncode == 0


def test_releases_are_kept_listed_and_rolled_back(board, bundles, base):
    """Keep 2 of 3; the release before comes back; a second rollback has nowhere to go and says so."""
    for bundle in bundles:
        ship(bundle, board, str(base), keep=2)
    found = list_releases(board, str(base))
    assert [entry["id"] for entry in found["releases"]] == [b.identity for b in bundles[1:]]
    assert found["current"] == bundles[2].identity
    assert rollback(board, str(base)).identity == bundles[1].identity
    assert is_complete(base)
    with pytest.raises(ShipError, match="no earlier release"):
        rollback(board, str(base))
    assert serving(base) == bundles[1].identity


def test_a_release_that_was_rolled_back_is_not_come_back_to(board, bundles, base):
    """Ship A, B, roll back to A, ship C: the release before C is A, not the bad B."""
    for bundle in bundles[:2]:
        ship(bundle, board, str(base))
    rollback(board, str(base))
    ship(bundles[2], board, str(base))
    assert rollback(board, str(base)).identity == bundles[0].identity


def test_shipping_the_same_release_again_uploads_nothing(board, bundles, base):
    """A release that is there is proven and made current without an upload."""
    for bundle in bundles[:2]:
        ship(bundle, board, str(base))
    done = ship(bundles[0], board, str(base))
    assert not done.uploaded
    assert serving(base) == bundles[0].identity


def test_a_damaged_release_is_not_rolled_back_to(board, bundles, base):
    """A file that rotted on the board is found before `current` moves."""
    for bundle in bundles[:2]:
        ship(bundle, board, str(base))
    (base / "releases" / bundles[0].identity / "model.onnx").write_bytes(b"rot")
    with pytest.raises(ShipError, match=r"checksum mismatch in model\.onnx"):
        rollback(board, str(base))
    assert serving(base) == bundles[1].identity


def test_what_changes_on_the_way_is_refused(board, bundles, base, monkeypatch):
    """A file that arrives with another hash leaves the old release serving and no trace."""
    ship(bundles[0], board, str(base))
    honest = remote_module._stream

    def corrupted(script, line, files):
        first, *pieces = honest(script, line, files)
        return [first, *pieces[:-1], *(bytes([piece[0] ^ 1]) + piece[1:] for piece in pieces[-1:])]

    monkeypatch.setattr(remote_module, "_stream", corrupted)
    with pytest.raises(ShipError, match="checksum mismatch") as caught:
        ship(bundles[1], board, str(base))
    assert "run it again" in caught.value.tip
    assert serving(base) == bundles[0].identity
    assert [p.name for p in (base / "releases").iterdir()] == [bundles[0].identity]


def test_a_model_that_fails_its_smoke_test_there_is_not_served(board, bundles, base):
    """Outputs on the board that differ from the recorded ones stop the release after the upload."""
    ship(bundles[0], board, str(base))
    name = "golden/call0.npz"
    with np.load(io.BytesIO(bundles[1].files[name])) as golden:
        arrays = dict(golden)
    buffer = io.BytesIO()
    np.savez(buffer, **(arrays | {"output_0": arrays["output_0"] + 0.5}))
    files = {**bundles[1].files, name: buffer.getvalue()}
    entry = {"sha256": hashlib.sha256(files[name]).hexdigest(), "bytes": len(files[name])}
    manifest = bundles[1].manifest | {"files": bundles[1].manifest["files"] | {name: entry}}
    files[MANIFEST] = json.dumps(manifest).encode()
    identity = hashlib.sha256(files[MANIFEST]).hexdigest()
    with pytest.raises(ShipError, match=r"smoke test: output 0 differs by 0\.5"):
        ship(Bundle("wrong", identity, manifest, files), board, str(base))
    assert serving(base) == bundles[0].identity
    assert [p.name for p in (base / "releases").iterdir()] == [bundles[0].identity]


def test_a_full_disk_is_said_and_harms_nothing(board, bundles, native, tmp_path):
    """On a small file system the release before stays whole; both ways of running out are told alike."""
    place = native.home("small")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        ship(bundles[0], board, str(place / "m"))
        (place / "filler").write_bytes(b"0" * 8_500_000)
        with pytest.raises(ShipError, match="disk is full") as caught:
            ship(bundles[1], board, str(place / "m"))
        assert caught.value.tip
        assert is_complete(place / "m")
        assert serving(place / "m") == bundles[0].identity
    finally:
        subprocess.run(["umount", place], check=True)


def test_running_out_while_writing_is_the_same_error(tmp_path, monkeypatch, capsys, bundles):
    """The estimate passed and a write failed after all: still 'disk is full', and nothing left behind."""
    import errno

    def full(folder, files, stream):
        (folder / "part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on board", "x")

    monkeypatch.setattr(agent, "receive", full)
    request = {
        "do": "release",
        "path": str(tmp_path / "b"),
        "id": "0" * 64,
        "keep": 1,
        "files": [{"name": "a"}],
    }
    line = io.BytesIO(json.dumps(request).encode() + b"\n")
    monkeypatch.setattr(agent.sys, "stdin", io.TextIOWrapper(line))
    assert agent.main() == 1
    assert "disk is full" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert list((tmp_path / "b/releases").iterdir()) == []


def test_a_silent_line_counts_as_cut(tmp_path, monkeypatch):
    """A sender that stops sending does not hold the lock for ever."""
    monkeypatch.setattr(agent, "SILENCE_SECONDS", 1)
    reading, writing = os.pipe()
    entry = {"name": "a", "bytes": 10, "sha256": "0" * 64}
    with os.fdopen(reading, "rb") as stream, pytest.raises(agent.Refused, match="nothing came for 1 s"):
        agent.receive(tmp_path, [entry], stream)
    os.close(writing)


def test_two_shippers_do_not_meet(board, bundles, base):
    """While one holds the lock the other is refused at once and told to wait."""
    ship(bundles[0], board, str(base))
    with open(base / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ShipError, match=r"another ship to .* is under way") as caught:
            ship(bundles[1], board, str(base))
    assert "wait" in caught.value.tip
    assert serving(base) == bundles[0].identity


def test_two_shippers_at_once_leave_one_complete_release(native, tmp_path, base):
    """Two real clients race: each succeeds or is refused for the lock, and `current` is whole."""
    runs = [write_run(tmp_path / f"race{n}", seed=n, ballast_mb=8) for n in range(2)]
    clients = [
        subprocess.Popen([*CLI, run, f"native:{base}"], stderr=subprocess.PIPE, text=True) for run in runs
    ]
    said = [client.communicate()[1] for client in clients]
    codes = [client.returncode for client in clients]
    assert 0 in codes
    assert all(code == 0 or "another ship" in text for code, text in zip(codes, said, strict=True))
    assert is_complete(base)


def test_a_place_that_is_taken_is_refused(board, bundles, native):
    """A file where the folder should be, and a `current` that is no link, are left alone."""
    home = native.home("taken")
    (home / "file").write_text("mine")
    with pytest.raises(ShipError, match="a file is in the way"):
        ship(bundles[0], board, str(home / "file"))
    (home / "m").mkdir()
    (home / "m/current").write_text("mine")
    with pytest.raises(ShipError, match="is not a link"):
        ship(bundles[0], board, str(home / "m"))
    assert (home / "m/current").read_text() == "mine"
    with pytest.raises(ShipError, match="no releases in"):
        rollback(board, str(home / "nothing"))


def test_the_wrong_architecture_gets_nothing(board, run_folder, base):
    """A bundle for the other architecture is refused before anything is written there."""
    other = "x86_64" if os.uname().machine == "aarch64" else "aarch64"
    with pytest.raises(DeviceError, match=f"made for {other}"):
        ship(open_bundle(run_folder, architecture=other), board, str(base))
    assert not base.exists()


@pytest.mark.parametrize("name", ["sigill", "nopython", "stranger", "unknown"])
def test_a_device_that_is_not_fit_gets_nothing(native, bundles, base, name):
    """No Python, a dying onnxruntime, a refused key and an unknown host leave no file behind."""
    with Remote(name) as remote, pytest.raises(DeviceError):
        ship(bundles[0], Board(remote), str(base))
    assert not base.exists()


def descendants(parent: int) -> list[int]:
    """Process ids below one that this test started."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [parent]
    while todo:
        children = below.get(todo.pop(), [])
        found += children
        todo += children
    return found


def until(condition, seconds=30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def test_a_connection_cut_in_the_middle_of_the_upload(native, tmp_path, bundles, board, base):
    """The server's end dies during an upload: the old release serves, the message says what to do."""
    ship(bundles[0], board, str(base))
    board.remote.close()
    heavy = write_run(tmp_path / "heavy", seed=9, ballast_mb=60)
    client = subprocess.Popen([*CLI, heavy, f"native:{base}"], stderr=subprocess.PIPE, text=True)
    arriving = f".incoming-{open_bundle(heavy).identity}"
    assert until(lambda: any((base / "releases" / arriving).glob("*")))
    for child in descendants(native.process.pid):
        os.kill(child, signal.SIGKILL)
    said = client.communicate()[1]
    assert client.returncode != 0
    assert "was cut" in said
    assert "run the command again" in said
    assert is_complete(base)
    assert serving(base) == bundles[0].identity


def test_kill_minus_nine_at_twenty_random_moments(native, tmp_path, base):
    """Whenever the client dies, `current` leads to a complete release, watched all the time."""
    runs = [write_run(tmp_path / f"kill{n}", seed=n, ballast_mb=24) for n in range(2)]
    started = time.monotonic()
    subprocess.run([*CLI, runs[0], f"native:{base}"], check=True, capture_output=True)
    whole = time.monotonic() - started
    broken, looks, stop = [], [0], threading.Event()

    def watch():
        while not stop.is_set():
            looks[0] += 1
            folder = base / "current"
            here = os.readlink(folder)
            if not (base / here / MANIFEST).is_file() or not (base / here / "model.onnx").is_file():
                broken.append(here)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rng, killed = random.Random(0), 0
    try:
        for turn in range(20):
            command = [*CLI, runs[(turn + 1) % 2], f"native:{base}", "--keep=1"]
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                client.wait(rng.uniform(0.3, 1.0) * whole)
            except subprocess.TimeoutExpired:
                client.kill()
                killed += 1
            client.wait()
            assert is_complete(base)
    finally:
        stop.set()
        watcher.join()
    assert killed >= 10
    assert looks[0] > 100
    assert broken == []
    done = None
    for _ in range(20):  # the last killed client's other half may still hold the lock for a moment
        done = subprocess.run([*CLI, runs[0], f"native:{base}"], capture_output=True, text=True)
        if done.returncode == 0:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    assert is_complete(base)
    assert not [p.name for p in (base / "releases").iterdir() if p.name.startswith(".")]


def test_ship_through_the_server_into_aarch64(arm, tmp_path):
    """The command line end to end: ship twice, list, roll back, on the emulated board."""
    base = arm.home("arm") / "model"
    runs = [write_run(tmp_path / f"arm{n}", seed=n, external=bool(n)) for n in range(2)]

    def command(*arguments):
        done = CliRunner().invoke(ship_command, [*map(str, arguments), "--json"], catch_exceptions=False)
        return json.loads(done.output)

    first = command(runs[0], f"arm:{base}", "--architecture", "aarch64")
    assert first["uploaded"]
    assert 0 < first["smoke_max_abs"] < 1e-5
    second = command(runs[1], f"arm:{base}")
    assert second["previous"] == first["identity"]
    assert [e["id"] for e in command("--list", f"arm:{base}")["releases"]] == [
        first["identity"],
        second["identity"],
    ]
    assert command("--rollback", f"arm:{base}")["identity"] == first["identity"]
    assert is_complete(base)


def test_an_environment_is_made_from_wheels_without_network(arm, sandbox, tmp_path, monkeypatch):
    """A board without onnxruntime gets its own environment from a folder of wheels, and is then fit."""
    monkeypatch.setattr(remote_module, "ENVIRONMENT", str(tmp_path / "venv"))
    with Remote("arm") as remote:
        board = Board(remote)
        python = remote_module.make_environment(board, sandbox.folder / "wheels")
        board.python = python
        facts = board.require_fit("aarch64")
    assert facts["executable"].startswith(str(tmp_path / "venv"))
    assert facts["versions"]["onnxruntime"]


def test_an_environment_that_cannot_be_made_says_what_to_give(native, tmp_path, monkeypatch):
    """Wheels that do not fit leave no half-made environment; an empty folder is refused before."""
    monkeypatch.setattr(remote_module, "ENVIRONMENT", str(tmp_path / "venv"))
    (tmp_path / "wheels").mkdir()
    with Remote("native") as remote:
        board = Board(remote)
        with pytest.raises(DeviceError, match="no wheels in"):
            remote_module.make_environment(board, tmp_path / "wheels")
        (tmp_path / "wheels/pip-1-py3-none-any.whl").write_bytes(b"no zip")
        with pytest.raises(DeviceError, match="could not be made") as caught:
            remote_module.make_environment(board, tmp_path / "wheels")
    assert "--wheels" in caught.value.tip
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("text", ["pi@host", "pi@host:", ":/path", "pi@host:/", "", "ssh://pi@host"])
def test_a_destination_names_a_host_and_a_folder(text, run_folder):
    """Anything else is refused with the form that is expected."""
    with pytest.raises(ShipError, match="not a folder on a board") as caught:
        CliRunner().invoke(ship_command, [str(run_folder), text], catch_exceptions=False)
    assert "user@host:/path" in caught.value.tip
