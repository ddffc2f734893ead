"""A real OpenSSH server on loopback whose logins are boards of several kinds.

Each kind of board is a key: the server runs that key's forced command with the client's command.
`arm` runs in the arm64 sandbox, `native` on this machine's own Python, the others are broken on
purpose. Tests that need the sandbox or the server skip with the reason where it is absent.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from device_samples import write_cnn, write_run

from edgeprune.deploy.emulation import find_sandbox

SSHD = next((p for p in (shutil.which("sshd"), "/usr/sbin/sshd") if p and Path(p).is_file()), None)

# What each board's login does with the client's command, $SSH_ORIGINAL_COMMAND.
LOGINS = {
    "arm": """export PATH='{arm}/root/usr/bin'
exec '{arm}/root/usr/bin/dash' -c "$SSH_ORIGINAL_COMMAND" """,
    "native": """export PATH='{native}:/usr/bin:/bin'
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND" """,
    "nopython": """export PATH='{empty}'
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND" """,
    "sigill": """export PATH='{native}:/usr/bin:/bin' PYTHONPATH='{sigill}'
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND" """,
    "noort": """export PATH='{bare}:/usr/bin:/bin'
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND" """,
}


@dataclass
class Server:
    """The running server: its ssh_config, and one folder per board to put things in."""

    config: Path
    folder: Path
    port: int
    process: subprocess.Popen

    def home(self, name: str) -> Path:
        """A folder for one test on the `board`; it is this machine's disk, of course."""
        path = self.folder / "boards" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def write_login(folder: Path, name: str, text: str) -> Path:
    script = folder / f"login-{name}"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return script


def make_devices(folder: Path) -> dict[str, str]:
    """Folders that the logins put on their PATH."""
    places = {name: folder / name for name in ("native", "empty", "sigill", "bare")}
    for path in places.values():
        path.mkdir()
    (places["native"] / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    # An installed version that kills the process on import, as 1.21.0 does on a Pi 4.
    (places["sigill"] / "onnxruntime").mkdir()
    die = "import os, signal; os.kill(os.getpid(), signal.SIGILL)\n"
    (places["sigill"] / "onnxruntime/__init__.py").write_text(die)
    (places["bare"] / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    for name in ("native", "bare"):
        (places[name] / "python3").chmod(0o755)
    sandbox = find_sandbox()
    return {"arm": str(sandbox.folder) if sandbox else "", **{k: str(v) for k, v in places.items()}}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Start sshd with its own port, host key, client keys and known-hosts file; stop it at the end."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server here (apt-get install openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o755)
    places = make_devices(folder)
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
    for name in ("host", "other-host", *LOGINS, "stranger"):
        subprocess.run([*key, "-f", str(folder / f"key-{name}")], check=True)
    allowed = []
    for name, text in LOGINS.items():
        script = write_login(folder, name, text.format(**places))
        public = (folder / f"key-{name}.pub").read_text().strip()
        allowed.append(f'command="{script}",no-pty {public}\n')
    (folder / "authorized_keys").write_text("".join(allowed))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "key-host",
        "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "MaxStartups": "100",
        "LogLevel": "ERROR",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    known = (folder / "key-host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known[0]} {known[1]}\n")
    other = (folder / "key-other-host.pub").read_text().split()
    (folder / "changed_hosts").write_text(f"[127.0.0.1]:{port} {other[0]} {other[1]}\n")
    (folder / "no_hosts").touch()
    config = write_client_config(folder, port)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own need for privilege separation
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {process.stderr.read().decode()}")
        time.sleep(0.05)
    yield Server(config, folder, port, process)
    process.terminate()
    process.wait(10)
    process.stderr.close()


def write_client_config(folder: Path, port: int) -> Path:
    """One alias per board; three more for an unknown host key, a changed one and a refused key."""
    names = {name: (name, "known_hosts") for name in (*LOGINS, "stranger")}
    names |= {"unknown": ("native", "no_hosts"), "changed": ("native", "changed_hosts")}
    text = ""
    for alias, (identity, hosts) in names.items():
        text += f"Host {alias}\n IdentityFile {folder}/key-{identity}\n UserKnownHostsFile {folder}/{hosts}\n"
    text += f"Host *\n HostName 127.0.0.1\n Port {port}\n IdentitiesOnly yes\n IdentityAgent none\n"
    text += " GlobalKnownHostsFile /dev/null\n"
    (folder / "ssh_config").write_text(text)
    return folder / "ssh_config"


@pytest.fixture
def sandbox():
    """The arm64 sandbox, or a skip that says how to get it."""
    found = find_sandbox()
    if found is None:
        pytest.skip("no arm64 sandbox (make arm64)")
    return found


@pytest.fixture
def arm(server, sandbox, monkeypatch):
    """The server with the arm64 board, set as the ssh configuration of every command."""
    monkeypatch.setenv("EDGEPRUNE_SSH_CONFIG", str(server.config))
    return server


@pytest.fixture
def native(server, monkeypatch):
    """The server for boards that need no sandbox."""
    monkeypatch.setenv("EDGEPRUNE_SSH_CONFIG", str(server.config))
    return server


@pytest.fixture
def cnn(tmp_path):
    """A small network in a file."""
    return write_cnn(tmp_path / "cnn.onnx", 8)


@pytest.fixture
def run_folder(tmp_path):
    """A run folder of a small network."""
    return write_run(tmp_path / "run")


def pytest_collection_modifyitems(items):
    """Everything in this folder that uses the server or the sandbox is marked `device`."""
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue  # pytest hands every folder's tests to every conftest
        if {"server", "sandbox", "arm", "native"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.device)
            item.add_marker(pytest.mark.timeout(1800))  # emulation on a busy machine takes its time
