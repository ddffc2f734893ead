"""Run the real aarch64 onnxruntime under QEMU on this machine: parity and instruction counts.

Gives proof that a file computes on a Cortex-A53, A72 or A76 what it computes here (each core
makes onnxruntime choose other kernels), and how many instructions an inference executes there.
Guarantee: nothing here returns a time. Instructions rank files and widths; they are not latency.
Needs the sandbox that `make arm64` prepares. Elsewhere: boards that are at hand (device/remote.py).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bench import runner
from edgeprune.bench.files import model_files
from edgeprune.bench.host import RUNNER, read_answer
from edgeprune.errors import DeviceError, ParityError
from edgeprune.onnxfile.parity import check_parity
from edgeprune.records import EmulationResult, InstructionCount

CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
FEW, MANY = 10, 110  # instructions per inference are (MANY runs - FEW runs) / 100: start-up cancels
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
_PROGRAM, _SHOWN = "root/usr/libexec/arm64", "root/usr/bin/python3"


@dataclass(frozen=True)
class Sandbox:
    """The folder that tools/arm64.py prepared."""

    folder: Path

    def command(self, cpu: str, arguments: Sequence[str], *, count: Path | None = None) -> list[str]:
        """The argument list that runs the sandbox's Python on an emulated core."""
        (python,) = (p for p in (self.folder / _PROGRAM).glob("python3.*") if p.name[8:].isdigit())
        plugin = ["-plugin", f"{self.folder / 'libcount.so'},out={count}"] if count else []
        emulator = ["qemu-aarch64", "-L", str(self.folder / "root"), "-cpu", cpu, *plugin]
        return [*emulator, "-0", str(self.folder / _SHOWN), str(python), *arguments]

    def run(
        self, cpu: str, arguments: Sequence[str], *, count: Path | None = None, limit: float = 900
    ) -> str:
        """Run the sandbox's Python and give its stdout.

        Raises:
            DeviceError: the emulator is missing, hangs, or the program fails without an answer.
        """
        environment = {**os.environ, "EDGEPRUNE_EMULATED": cpu, "OPENBLAS_NUM_THREADS": "1"}
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
        command = self.command(cpu, arguments, count=count)
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
        except FileNotFoundError:
            raise DeviceError("qemu-aarch64 is not installed", tip="run: make arm64") from None
        except subprocess.TimeoutExpired:
            why = f"emulating {cpu} took more than {limit:.0f} s"
            raise DeviceError(why, tip="use a smaller model or a quieter machine") from None
        if done.returncode not in (0, 2):
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            why = f"onnxruntime failed on the emulated {cpu} (exit {done.returncode}): {last}"
            raise DeviceError(why, tip="run: make arm64, and report the model if it persists")
        return done.stdout


def find_sandbox() -> Sandbox | None:
    """Find a complete sandbox: $EDGEPRUNE_ARM64, then .arm64 here, above, or beside the checkout."""
    named = os.environ.get("EDGEPRUNE_ARM64")
    here, checkout = Path.cwd(), Path(__file__).parents[2]
    folders = [Path(named)] if named else [folder / ".arm64" for folder in (here, *here.parents, checkout)]
    return next((Sandbox(f.absolute()) for f in folders if (f / "stamp.json").is_file()), None)


def need_sandbox() -> Sandbox:
    """Find the sandbox or say how to get it."""
    found = find_sandbox()
    if found is None:
        raise DeviceError("the arm64 sandbox is not there", tip="prepare it in a checkout with: make arm64")
    return found


def emulate(
    model: Path,
    cpu: str,
    *,
    inputs: Path | None = None,
    samples: int = 4,
    seed: int = 0,
    shapes: Sequence[str] = (),
    count: bool = True,
) -> EmulationResult:
    """Compare the outputs on an emulated core with this machine's, and count instructions.

    Args:
        inputs: npz with recorded inputs (input_0 ...); otherwise `samples` random ones are made.
        count: also run the model 10 and 110 times under the instruction counter.

    Raises:
        ParityError: the outputs differ by more than 1e-4 of the largest (5% for a quantised file,
            whose integer kernels round differently by design), or do not move with the input.
        DeviceError: no sandbox, unknown core, or the file does not run there.
    """
    sandbox, core = need_sandbox(), core_name(cpu)
    model_files(model)
    calls = _calls(model, inputs, samples, seed, shapes)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        arguments = [str(RUNNER), f"--save={scratch}/answer", str(model.absolute())]
        for n, call in enumerate(calls):
            arrays: dict[str, Any] = {f"input_{k}": value for k, value in enumerate(call)}
            np.savez(f"{scratch}/call{n}.npz", **arrays)
            arguments.append(f"--check={scratch}/call{n}.npz")
        read_answer(sandbox.run(core, arguments), 0, "", "check", error=DeviceError)
        found = []
        for n in range(len(calls)):
            with np.load(f"{scratch}/answer{n}.npz") as saved:
                found.append(tuple(saved[f"output_{k}"] for k in range(len(saved.files))))
    replies = iter(found)
    tolerance = INTEGER_TOLERANCE if is_quantised(model) else FLOAT_TOLERANCE
    try:
        parity = check_parity(lambda _: next(replies), model, calls, rtol=tolerance)
    except ParityError as error:
        raise ParityError(f"on the emulated {core}: {error.message}", tip=error.tip) from None
    counted = count_instructions(model, core, seed=seed, shapes=shapes) if count else None
    return EmulationResult(model, core, parity, counted)


def count_instructions(
    model: Path, cpu: str, *, seed: int = 0, shapes: Sequence[str] = ()
) -> InstructionCount:
    """Count the instructions of one inference on one thread: (110 runs - 10 runs) / 100."""
    sandbox, core = need_sandbox(), core_name(cpu)
    totals = []
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        for runs in (FEW, MANY):
            total = Path(scratch) / "count"
            arguments = [str(RUNNER), f"--repeat={runs}", f"--seed={seed}", *(f"--shape={s}" for s in shapes)]
            output = sandbox.run(core, [*arguments, str(model.absolute())], count=total)
            read_answer(output, 0, "", "repeat", error=DeviceError)
            totals.append(int(total.read_text()))
    return InstructionCount(core, (totals[1] - totals[0]) / (MANY - FEW), (FEW, MANY), tuple(totals))


def core_name(cpu: str) -> str:
    """Accept a72, A72 and cortex-a72; refuse a core that was not tried out."""
    name = cpu.lower() if cpu.lower().startswith("cortex-") else f"cortex-{cpu.lower()}"
    if name not in CPUS:
        raise DeviceError(f"no emulation of {cpu!r}", tip=f"known cores: {', '.join(CPUS)}")
    return name


def is_quantised(model: Path) -> bool:
    """Whether the file holds integer kernels, by its operators."""
    import onnx

    kinds = {node.op_type for node in onnx.load(model, load_external_data=False).graph.node}
    return any("Quantize" in kind or "Integer" in kind or kind.startswith("QLinear") for kind in kinds)


def _calls(
    model: Path, inputs: Path | None, samples: int, seed: int, shapes: Sequence[str]
) -> list[tuple[np.ndarray, ...]]:
    """Inputs of each call in the file's order; several calls, so that outputs can be seen to move."""
    try:
        session = runner.open_session(model, 1)
        names = [item.name for item in session.get_inputs()]
        first = [f"--inputs={inputs}"] if inputs else []
        calls = []
        for n in range(1 if inputs else samples):
            settings = [*first, f"--seed={seed + n}", *(f"--shape={s}" for s in shapes)]
            feeds = runner.make_feeds(session, runner.parse([str(model), *settings]))
            calls.append(tuple(feeds[name] for name in names))
    except runner.RunnerError as error:
        raise DeviceError(str(error), tip=error.tip) from None
    return calls
