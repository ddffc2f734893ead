"""Use an installed edgeprune wheel: data files, compiled core, command line.

    python tools/use_wheel.py MACHINE PROGRAM        run by tools/wheels.py with the Python that has the wheel

Ends with exit code 0 and one line, or with the assertion that failed. Needs NumPy, SciPy and click; no torch.
"""

import importlib.metadata
import math
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgeprune
from edgeprune import _core, information

VECTOR_LOOPS = {"x86_64": "avx2", "aarch64": "neon"}
DATA = ("py.typed", "_core.pyi", "report/page.css", "deploy/usage_python.txt", "deploy/usage_cpp.txt")


def main(machine: str, program: str) -> None:
    """Check the parts of the wheel that need no torch."""
    assert platform.machine() == machine, f"this Python runs on {platform.machine()}"
    package = Path(edgeprune.__file__).parent
    assert not (package.parent / "pyproject.toml").exists(), f"{package} is a checkout, not the wheel"
    assert Path(_core.__file__).parent == package
    assert [name for name in DATA if not (package / name).is_file()] == []
    assert len(list((package / "_targets").glob("*.toml"))) > 1
    assert "torch" not in sys.modules

    # Channel 0 is the label, channel 1 is independent of it: ln 2 and 0 nats, exactly, without a correction.
    labels = np.arange(4096) % 2
    x = np.stack([labels, np.arange(4096) // 2 % 2], axis=1).astype(np.float32)
    loops = _core.simd_available()
    assert loops[0] == "scalar", loops
    for name in loops:
        _core.simd_select(name)
        counts = information.joint_counts(information.quantize(x, bins=8), labels, classes=2)
        nats = information.mutual_information(counts, correction="none")
        assert np.allclose(nats, [math.log(2), 0], rtol=0, atol=1e-12), (name, nats)
    assert len(loops) == 1 or loops[1:] == [VECTOR_LOOPS[machine]]
    assert machine != "aarch64" or len(loops) == 2  # every aarch64 has NEON

    version = importlib.metadata.version("edgeprune")
    for arguments, wanted in (("--help", "compress"), ("targets", "rpi4"), ("--version", version)):
        # Through the interpreter: an emulated pip heads the script with its own program, not with the wrapper
        # that runs it under QEMU, and the kernel here cannot start that.
        command = [sys.executable, program, arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and wanted in done.stdout, done.stdout + done.stderr
    print(f"edgeprune {version} on {machine}: {', '.join(loops)} loops, --help, targets, information")


if __name__ == "__main__":
    main(*sys.argv[1:])
