"""Run programs on a board through the OpenSSH client.

Gives one multiplexed connection per Remote, so that a dozen commands cost one handshake.
Guarantees: the user's own configuration, agent, jump hosts and known hosts apply; host keys are
checked strictly; nothing ever asks for a password; every command is an argument list, quoted here
and nowhere else; a failure of the connection is a DeviceError that says what to do.
Elsewhere: what is run (deploy/remote.py).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgeprune.errors import DeviceError

CONNECT_SECONDS = 10
# What OpenSSH says, what it means, what to do. The first match counts; {host} is filled in.
TROUBLES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} is not the one known",
        "if the board was set up again, remove the old key: ssh-keygen -R {name}; otherwise do not connect",
    ),
    (
        "Host key verification failed|No .* host key is known",
        "the host key of {host} is unknown",
        "connect once by hand (ssh {host}) and compare the key, or give --accept-new-host-key",
    ),
    (
        "Permission denied|Too many authentication failures",
        "{host} refused the key",
        "copy a key to it (ssh-copy-id {host}) or load it into the agent (ssh-add)",
    ),
    ("Could not resolve hostname", "no host is called {name}", "check the name, or give its address"),
    ("Connection refused", "{host} refused the connection", "is the SSH server running there, on this port?"),
    (
        "Connection timed out|Operation timed out|No route to host|Network is unreachable",
        "{host} does not answer",
        "check that it is on and reachable",
    ),
    (
        "Bad configuration option|Can't open user config",
        "the SSH configuration is faulty",
        "see: ssh -G {name}",
    ),
    (
        "closed by|Connection reset|Broken pipe|Connection closed|not responding|lost connection",
        "the connection to {host} was cut",
        "run the command again; nothing half-done is in use",
    ),
)


@dataclass(frozen=True)
class RemoteResult:
    """What a remote program left: exit code (128 + signal if it was killed), output, messages."""

    code: int
    stdout: bytes
    stderr: str


class Remote:
    """A board behind SSH, named as for ssh itself: host, user@host, ssh://user@host:port or an alias.

    Args:
        config: another ssh_config than the user's (or $EDGEPRUNE_SSH_CONFIG).
        accept_new: add an unknown host key on first contact; a changed one is still refused.

    Use as a context manager; leaving it ends the connection.
    """

    def __init__(self, destination: str, *, config: Path | None = None, accept_new: bool = False) -> None:
        require_destination(destination)
        named = os.environ.get("EDGEPRUNE_SSH_CONFIG")
        self.destination = destination
        self._config = config or (Path(named) if named else None)
        if self._config and not self._config.is_file():
            raise DeviceError(f"no SSH configuration at {self._config}", tip="check --ssh-config")
        self._checking = "accept-new" if accept_new else "yes"
        # A socket path may not exceed some hundred bytes, so it lies in the system's own short folder.
        self._private = tempfile.TemporaryDirectory(prefix="edgeprune-ssh-")

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the shared connection; harmless when there is none."""
        if (Path(self._private.name) / "mux").exists():
            subprocess.run(
                [*self._client(), "-O", "exit", "--", self.destination], capture_output=True, timeout=30
            )
        self._private.cleanup()

    def _client(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": self._checking,
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": f"{self._private.name}/mux",
            "ControlPersist": "60",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
        }
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        return ["ssh", "-T", *(["-F", str(self._config)] if self._config else []), *flags]

    def run(
        self, arguments: Sequence[str], *, send: Iterable[bytes] = (), timeout: float = 120
    ) -> RemoteResult:
        """Run one program on the board, feed it bytes on stdin, wait for it.

        Raises:
            DeviceError: the connection cannot be made or was cut, or `timeout` seconds passed.
                A program that fails on its own account is no error here; see `code`.
        """
        command = [*self._client(), "--", self.destination, shlex.join(arguments)]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as messages:
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=messages)
            except FileNotFoundError:
                raise DeviceError("the OpenSSH client is missing", tip="install it: openssh-client") from None
            try:
                _feed(process, send)
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(
                    f"{self.destination}: {arguments[0]} did not finish in {timeout:.0f} s",
                    tip="is the board overloaded? try again, or with a smaller model",
                ) from None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            out.seek(0)
            messages.seek(0)
            done = RemoteResult(code, out.read(), messages.read().decode(errors="replace"))
        if code == 255:
            raise self._trouble(done.stderr)
        return done

    def _trouble(self, said: str) -> DeviceError:
        name = self.destination.rpartition("@")[2]
        for pattern, what, tip in TROUBLES:
            if re.search(pattern, said, re.IGNORECASE):
                names = {"host": self.destination, "name": name}
                return DeviceError(what.format(**names), tip=tip.format(**names))
        if not said.strip():  # the shared connection went away under this one
            said = "lost connection"
            return self._trouble(said)
        last = said.strip().splitlines()[-1]
        return DeviceError(f"{self.destination}: {last}", tip=f"try by hand: ssh {self.destination}")


def require_destination(destination: str) -> None:
    """Refuse a name that ssh could take for an option, or a shell for something else.

    OpenSSH reads a user or host that begins with "-" as an option (CVE-2017-1000117 and its kin), behind
    ssh:// and user@ too.

    Raises:
        DeviceError: a user or host is empty, begins with "-", or holds a space, quote or shell character.
    """
    scheme, place = ("ssh://", destination[6:]) if destination.startswith("ssh://") else ("", destination)
    user, at, host = place.rpartition("@")
    plain = re.fullmatch(r"[^\s\x00-\x1f\x7f'\"`$;&|<>\\]+", destination) is not None
    parts = [*([user] if at else []), host.lstrip("[")]
    if not plain or any(not part or part.startswith("-") or "/" in part * bool(scheme) for part in parts):
        raise DeviceError(f"not a board: {destination!r}", tip="write it as for ssh: pi@raspberrypi")


def _feed(process: subprocess.Popen[bytes], send: Iterable[bytes]) -> None:
    """Write to the program's stdin; if it hung up, its exit code and messages tell why."""
    assert process.stdin is not None
    try:
        for piece in send:
            process.stdin.write(piece)
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass
