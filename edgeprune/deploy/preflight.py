"""Is this machine fit to run onnxruntime? Standard library only; runs on the board from stdin.

Prints one JSON object: what was found, and `problems`, each with what to do; none means fit.
Written for Python 3.6, so that an old board gets told that its Python is old.
"""

# ruff: noqa: UP006, UP022, UP035 - Python 3.6

import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Any, Dict, List

ARCHITECTURES = ("aarch64", "arm64", "x86_64", "AMD64")
OLDEST_PYTHON, OLDEST_GLIBC = (3, 8), (2, 27)
NEED_DISK_MB, NEED_MEMORY_MB = 50, 100
# (onnxruntime version, CPU part in /proc/cpuinfo, what happens); microsoft/onnxruntime#23957
KNOWN_BAD = (("1.21.0", "0xd08", "dies with SIGILL on a Cortex-A72 (Raspberry Pi 4)"),)
INSTALL = "make an environment there: edgeprune doctor --board HOST --make-venv"


def read(path: str) -> str:
    """Text of a file of the system, empty where there is none."""
    try:
        with open(path, errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def free_memory_mb() -> int:
    """Memory that could be used; -1 where the system does not say."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return -1


def installed(name: str) -> str:
    """Version of an installed package, without importing it: the import may kill the process."""
    try:
        from importlib import metadata

        return metadata.version(name)
    except Exception:  # Python 3.7 has no such module; a damaged package raises what it likes
        return ""


def import_problem() -> str:
    """Import onnxruntime in a child process, since an illegal instruction cannot be caught."""
    command = [sys.executable, "-c", "import numpy, onnxruntime"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=180)
    except (OSError, subprocess.SubprocessError) as error:
        return f"onnxruntime could not be tried: {error}"
    if done.returncode < 0 or done.returncode > 128:
        number = -done.returncode if done.returncode < 0 else done.returncode - 128
        return f"onnxruntime dies with signal {number} on import; install another version of it"
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return f"onnxruntime does not import ({last}); {INSTALL}"
    return ""


def system_problems(machine: str, bits: int, python: Any, libc: str, glibc: bool) -> List[str]:
    """What no package can mend: processor, userland, Python and C library."""
    problems = []
    if machine not in ARCHITECTURES:
        problems.append(f"architecture {machine}: onnxruntime has wheels for aarch64 and x86_64 only")
    elif bits != 64:
        problems.append("32-bit system on a 64-bit processor; install the 64-bit system")
    if tuple(python[:2]) < OLDEST_PYTHON:
        problems.append(f"Python {python[0]}.{python[1]} is too old; 3.8 or later is needed")
    if glibc and tuple(int(n) for n in libc.split(".")[:2]) < OLDEST_GLIBC:
        problems.append(f"glibc {libc} is too old; 2.27 or later is needed")
    return problems


def known_bad(version: str, cpuinfo: str) -> List[str]:
    """Versions that are known to fail on the processor at hand."""
    hits = [what for bad, part, what in KNOWN_BAD if version == bad and part in cpuinfo]
    return [f"onnxruntime {version} {what}; install another version" for what in hits]


def report() -> Dict[str, Any]:
    """Look at everything that a run needs."""
    machine, (family, libc) = platform.machine(), platform.libc_ver()
    bits = 64 if sys.maxsize > 2**32 else 32
    versions = {name: installed(name) for name in ("numpy", "onnxruntime")}
    disk, memory = shutil.disk_usage(os.path.expanduser("~")).free // 2**20, free_memory_mb()
    problems = system_problems(machine, bits, sys.version_info, libc, family == "glibc")
    missing = " and ".join(name for name in versions if not versions[name])
    if missing:
        problems.append(f"{missing} not installed for {sys.executable}; {INSTALL}")
    problems += known_bad(versions["onnxruntime"], read("/proc/cpuinfo"))
    if not problems:
        problems += [text for text in [import_problem()] if text]
    if disk < NEED_DISK_MB:
        problems.append(f"only {disk} MB of disk are free; {NEED_DISK_MB} are needed")
    if 0 <= memory < NEED_MEMORY_MB:
        problems.append(f"only {memory} MB of memory are free; {NEED_MEMORY_MB} are needed")
    return {
        "schema": 1,
        "architecture": machine,
        "bits": bits,
        "board": read("/proc/device-tree/model").strip("\0\n") or None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "libc": f"{family} {libc}".strip(),
        "versions": versions,
        "cores": os.cpu_count() or 1,
        "disk_free_mb": disk,
        "memory_free_mb": memory,
        "emulated": os.environ.get("EDGEPRUNE_EMULATED"),
        "problems": problems,
    }


if __name__ == "__main__":
    print(json.dumps(report()))
