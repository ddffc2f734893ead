"""Run the real aarch64 onnxruntime under QEMU on this machine, and count its instructions.

A Cortex-A53, A72 and A76 each make onnxruntime choose other kernels, so the core is named.
Guarantee: nothing here returns a time. Instructions rank files and widths; they are not latency.
Needs the sandbox that `make arm64` prepares. Elsewhere: whether the outputs agree
(deploy/verify.py), boards that are at hand (deploy/remote.py).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import DeviceError
from edgeprune.measure.host import RUNNER, read_answer
from edgeprune.records import InstructionCount

CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
FEW, MANY = 10, 110  # runs at which the count is read
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
    sandbox = find_sandbox()
    if sandbox is None:
        raise DeviceError("the arm64 sandbox is not there", tip="prepare it in a checkout with: make arm64")
    return sandbox


def count_instructions(
    model: Path, cpu: str, *, seed: int = 0, shapes: Sequence[str] = ()
) -> InstructionCount:
    """Count the instructions of one inference on one thread: (110 runs - 10 runs) / 100.

    Both counts are of one process and of the thread that infers, so start-up, which varies by
    more than a small network costs, and the runtime's other threads do not enter.
    """
    sandbox, core = need_sandbox(), core_name(cpu)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        counts = Path(scratch) / "count"
        arguments = [str(RUNNER), f"--repeat={MANY - FEW}", f"--seed={seed}"]
        arguments += [f"--shape={shape}" for shape in shapes]
        output = sandbox.run(core, [*arguments, "--", str(model.absolute())], count=counts)
        read_answer(output, 0, "", "repeat", error=DeviceError)
        lines = [line.split() for line in counts.read_text().splitlines()]
    marks = [int(number) for kind, number in lines if kind == "mark"]
    if len(marks) != 2 or marks[1] <= marks[0]:
        raise DeviceError(f"{model}: the instruction counter gave {marks}", tip="run: make arm64")
    return InstructionCount(core, (marks[1] - marks[0]) / (MANY - FEW), (FEW, MANY), (marks[0], marks[1]))


def core_name(cpu: str) -> str:
    """Accept a72, A72 and cortex-a72; refuse a core that was not tried out."""
    name = cpu.lower() if cpu.lower().startswith("cortex-") else f"cortex-{cpu.lower()}"
    if name not in CPUS:
        raise DeviceError(f"no emulation of {cpu!r}", tip=f"known cores: {', '.join(CPUS)}")
    return name
