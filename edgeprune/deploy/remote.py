"""What edgeprune does on a board behind SSH: preflight, bench, outputs, an environment of its own.

Guarantees: nothing is installed system-wide and no file is left behind, except the environment that
`make_environment` was asked for; a board that is not fit is refused before a model travels.
Elsewhere: the connection (deploy/ssh.py), releases (edgeprune.ship).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.deploy.ssh import Remote
from edgeprune.errors import DeviceError, EdgepruneError
from edgeprune.export.model_files import model_files
from edgeprune.measure.host import RUNNER, read_answer, result_of
from edgeprune.measure.request import BenchRequest
from edgeprune.records import BenchResult

AGENT, PREFLIGHT = (Path(__file__).with_name(name) for name in ("agent.py", "preflight.py"))
ENVIRONMENT = ".local/share/edgeprune/venv"  # below the home folder of the board's user
# Runs a script that comes first on stdin and leaves it the rest; the only code on the command line.
BOOT = "import sys;exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'edgeprune','exec'))"
SCHEMA = 1


@dataclass
class Board:
    """A Remote together with the Python to use there."""

    remote: Remote
    python: str = "python3"
    facts: dict[str, Any] = field(default_factory=dict)

    def preflight(self) -> dict[str, Any]:
        """Look at the board, once; `problems` in the answer is empty when it is fit."""
        if self.facts:
            return self.facts
        script = PREFLIGHT.read_bytes()
        done = self.remote.run([self.python, "-c", BOOT, str(len(script))], send=[script], timeout=300)
        if done.code in (126, 127):
            name = self.remote.destination
            tip = "install python3 there, or name one with --board-python"
            raise DeviceError(f"{name}: there is no {self.python}", tip=tip)
        try:
            facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            why = f"{self.remote.destination}: {self.python} failed (exit {done.code}): {last}"
            raise DeviceError(why, tip="try it by hand, or name another with --board-python") from None
        self.facts = facts
        return facts

    def require_fit(self, architecture: str | None = None) -> dict[str, Any]:
        """Refuse a board that cannot run onnxruntime, or that is not of the architecture asked for."""
        facts = self.preflight()
        name = self.remote.destination
        if facts["problems"]:
            more = "".join(f"; {problem}" for problem in facts["problems"][1:])
            first, _, tip = facts["problems"][0].partition("; ")
            raise DeviceError(f"{name} is not fit: {first}{more}", tip=tip or "see edgeprune doctor --board")
        if architecture is not None and _family(facts["architecture"]) != _family(architecture):
            why = f"{name} is {facts['architecture']}, but this was made for {architecture}"
            raise DeviceError(why, tip="name the right board, or another --target")
        return facts

    def call(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path | bytes],
        *,
        timeout: float = 600,
        error: type[EdgepruneError] = DeviceError,
    ) -> dict[str, Any]:
        """Send the agent one request with files; give its answer or raise what it refused."""
        script = AGENT.read_bytes()
        listed = [{"name": name, "bytes": _size(f), "sha256": _sha256(f)} for name, f in files.items()]
        line = json.dumps({**request, "files": listed}).encode() + b"\n"
        command = [self.python, "-c", BOOT, str(len(script))]
        done = self.remote.run(command, send=_stream(script, line, files.values()), timeout=timeout)
        try:
            reply = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            why = f"{self.remote.destination}: no answer (exit {done.code}): {last}"
            raise error(why, tip="run it again; see edgeprune doctor --board") from None
        if reply.get("schema") != SCHEMA:
            raise error(f"{self.remote.destination}: an answer of schema {reply.get('schema')}")
        if "error" in reply:
            raise error(f"{self.remote.destination}: {reply['error']['message']}", tip=reply["error"]["tip"])
        answer: dict[str, Any] = reply["answer"]
        return answer

    def run_runner(
        self,
        arguments: Sequence[str],
        files: Mapping[str, Path | bytes],
        job: str,
        *,
        seconds: float = 600,
        returns: Sequence[str] = (),
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Run the runner there on the files sent along; gives its answer and the files asked back."""
        request = {
            "do": "run",
            "arguments": ["runner.py", *arguments],
            "timeout": seconds,
            "returns": list(returns),
        }
        answer = self.call(request, {"runner.py": RUNNER, **files}, timeout=seconds + 120)
        record = read_answer(answer["stdout"], answer["code"], answer["stderr"], job, error=DeviceError)
        return record, {name: base64.b64decode(text) for name, text in answer["files"].items()}


def board_bench(board: Board, request: BenchRequest, *, architecture: str | None = None) -> BenchResult:
    """As `run_bench`, on the board; an emulated one gives sizes and proof that the files run, no times.

    Raises:
        BenchError: a file or a setting is wrong. DeviceError: the board, or the files on it.
    """
    sizes = request.check()
    board.require_fit(architecture)
    names, files = packed(request.models)
    if request.inputs is not None:
        files["inputs.npz"] = request.inputs
    flags = request.runner_flags(names, None if request.inputs is None else "inputs.npz")
    answer, _ = board.run_runner(flags, files, "bench", seconds=request.most_seconds)
    return result_of(answer, request, sizes, board=board.remote.destination)


def packed(paths: Sequence[Path]) -> tuple[list[str], dict[str, Path | bytes]]:
    """Name each model and its external data for the board, apart from each other."""
    names, files = [], dict[str, Path | bytes]()
    for n, path in enumerate(paths):
        model, *others = model_files(path, error=DeviceError)
        names.append(f"m{n}/model.onnx")
        files[names[-1]] = model
        files.update({f"m{n}/{other.relative_to(model.parent).as_posix()}": other for other in others})
    return names, files


def make_environment(board: Board, wheels: Path | None = None) -> str:
    """Make a virtual environment on the board and give the path of its Python.

    Args:
        wheels: folder with the board's wheels of pip, numpy and onnxruntime, for one without network.
    """
    files: dict[str, Path | bytes] = {}
    if wheels is not None:
        files = {path.name: path for path in sorted(wheels.glob("*.whl"))}
        if not files:
            raise DeviceError(f"no wheels in {wheels}", tip="fill it with: pip download --platform ...")
    board.preflight()
    request = {"do": "environment", "folder": ENVIRONMENT}
    python = str(board.call(request, files, timeout=3600)["python"])
    board.facts = {}  # what was found holds for the Python before
    return python


def _family(architecture: str) -> str:
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(architecture.lower(), architecture.lower())


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _sha256(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _stream(script: bytes, line: bytes, files: Iterator[Path | bytes] | Any) -> Iterator[bytes]:
    yield script + line
    for file in files:
        if isinstance(file, bytes):
            yield file
            continue
        with file.open("rb") as handle:
            yield from iter(lambda: handle.read(2**20), b"")
