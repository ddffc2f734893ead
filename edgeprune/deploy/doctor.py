"""What is installed, what is missing, what to do: on this machine and on a board.

Gives findings, never raises for a missing thing; a board that cannot be reached is a finding too.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from importlib import metadata

from edgeprune.deploy.emulation import find_sandbox
from edgeprune.deploy.remote import Board
from edgeprune.errors import EdgepruneError
from edgeprune.records import Finding

NEEDED = ("numpy", "click", "torch", "onnx", "onnxruntime", "onnxscript", "scipy", "safetensors")
OPTIONAL = {
    "onnxsim": "without it files ship unsimplified: pip install edgeprune[simplify]",
    "torchvision": "only for examples with its models",
}


def diagnose_host() -> list[Finding]:
    """Python, packages, the C++ core, OpenSSH, the compiler and the arm64 sandbox of this machine."""
    findings = [Finding("python", True, f"{platform.python_version()} on {platform.machine()}", "")]
    for name in NEEDED:
        findings.append(_package(name, needed=True, why=f"pip install {name}"))
    findings += [_package(name, needed=False, why=why) for name, why in OPTIONAL.items()]
    core = importlib.util.find_spec("edgeprune._core") is not None
    findings.append(
        Finding("C++ core", core, "built" if core else "missing", "" if core else "pip install -e .")
    )
    tools = (
        ("ssh", "openssh-client: boards are reached with it"),
        ("qemu-aarch64", "qemu-user: verify --emulate runs in it (make arm64 installs it)"),
        ("g++", "g++: only to build usage.cpp of a bundle"),
    )
    for tool, why in tools:
        where = shutil.which(tool)
        findings.append(Finding(tool, bool(where), where or "missing", "" if where else why, needed=False))
    sandbox = find_sandbox()
    text, tip = (
        (str(sandbox.folder), "") if sandbox else ("missing", "make arm64, in a checkout of edgeprune")
    )
    findings.append(Finding("arm64 sandbox", sandbox is not None, text, tip, needed=False))
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = load > cores / 2
    tip = "timings made now have wide intervals" if busy else ""
    findings.append(Finding("load", not busy, f"{load:.1f} on {cores} cores", tip, needed=False))
    return findings


def diagnose_board(board: Board) -> list[Finding]:
    """Connection, Python, packages, memory and disk of a board."""
    name = board.remote.destination
    try:
        facts = board.preflight()
    except EdgepruneError as error:
        return [Finding(name, False, error.message, error.tip)]
    where = facts["board"] or facts["system"]
    findings = [
        Finding(name, True, f"{where}, {facts['architecture']}, {facts['bits']} bit, {facts['libc']}", "")
    ]
    findings.append(Finding("python", True, f"{facts['python']} ({facts['executable']})", ""))
    for package, version in facts["versions"].items():
        findings.append(Finding(package, bool(version), version or "missing", ""))
    findings.append(Finding("memory", True, f"{facts['memory_free_mb']} MB free", ""))
    findings.append(Finding("disk", True, f"{facts['disk_free_mb']} MB free", ""))
    if facts["emulated"]:
        findings.append(Finding("emulated", True, f"{facts['emulated']}: no latency will be shown", ""))
    for problem in facts["problems"]:
        what, _, tip = problem.partition("; ")
        findings.append(Finding("problem", False, what, tip))
    return findings


def _package(name: str, *, needed: bool, why: str) -> Finding:
    try:
        return Finding(name, True, metadata.version(name), "", needed=needed)
    except metadata.PackageNotFoundError:
        return Finding(name, False, f"missing for {sys.executable}", why, needed=needed)
