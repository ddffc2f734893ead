"""Prepare the arm64 sandbox: a real aarch64 Python with onnxruntime that runs under QEMU on this machine.

    python tools/arm64.py [--root .arm64]        what `make arm64` calls

Gives a folder with
    root/        Debian's arm64 Python, shell and core utilities, unpacked; every command in
                 root/usr/bin is a wrapper that runs the real program under qemu-aarch64
    wheels/      the aarch64 wheels of onnxruntime, numpy and pip, as a device without network needs them
    libcount.so  the instruction counter (tools/count.c)
    include/     onnxruntime's C and C++ headers, for the C++ usage example
    stamp.json   what was put there; written last, so a folder with a stamp is complete
Guarantees: nothing outside the folder changes, except that QEMU and a C compiler are installed
by apt-get when they are missing and this runs as root. Needs Debian's or Ubuntu's apt, pip and network.
Why wrappers: a chroot needs root and an emulated program needs binfmt_misc to start another one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("python3", "libstdc++6", "dash", "coreutils")
WHEELS = ("onnxruntime", "numpy", "pip")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
HOST_TOOLS = {"qemu-aarch64": "qemu-user", "cc": "gcc"}
# onnxruntime looks for ARM fields here while it is imported, and aborts on an x86 file.
CPUINFO = "\n".join(
    f"processor\t: {n}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n"
    for n in range(4)
)
WRAPPER = """#!/bin/sh
# Runs the arm64 program of this name under QEMU; EDGEPRUNE_CPU chooses the core.
export EDGEPRUNE_EMULATED="${{EDGEPRUNE_CPU:-cortex-a72}}"
exec '{qemu}' -L '{root}' -cpu "$EDGEPRUNE_EMULATED" -0 "$0" '{program}' "$@"
"""


class SetupError(Exception):
    """What is missing, in one line."""


def main() -> int:
    """Prepare the folder unless its stamp says that this very recipe already did."""
    parser = argparse.ArgumentParser(description="prepare the arm64 sandbox")
    parser.add_argument("--root", type=Path, default=Path(".arm64"))
    parser.add_argument("--force", action="store_true", help="prepare again even when it is complete")
    args = parser.parse_args()
    here, folder = Path(__file__).parent, args.root.absolute()
    recipe = hashlib.sha256(Path(__file__).read_bytes() + (here / "count.c").read_bytes()).hexdigest()
    stamp = folder / "stamp.json"
    if not args.force and stamp.is_file() and json.loads(stamp.read_text())["recipe"] == recipe:
        print(f"arm64 sandbox: {folder} is complete")
        return 0
    try:
        host_tools()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        packages = unpack_packages(folder)
        wheels = unpack_wheels(folder)
        headers = unpack_headers(folder)
        wrap_programs(folder / "root")
        build_counter(here / "count.c", folder / "libcount.so", folder / "root")
        version = try_out(folder)
    except SetupError as error:
        print(f"arm64 sandbox: {error}", file=sys.stderr)
        return 1
    content = {
        "recipe": recipe,
        "onnxruntime": version,
        "packages": packages,
        "wheels": wheels,
        "headers": headers,
    }
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, stamp)
    print(f"arm64 sandbox: {folder} is ready, onnxruntime {version} under qemu-aarch64")
    return 0


def host_tools() -> None:
    """Install QEMU's user mode and a compiler where they are missing."""
    missing = [package for tool, package in HOST_TOOLS.items() if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"missing {', '.join(missing)}; install: sudo apt-get install {' '.join(missing)}")
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])


def unpack_packages(folder: Path) -> list[str]:
    """Let apt resolve the arm64 packages in private folders, then unpack them into root/."""
    with tempfile.TemporaryDirectory() as scratch:
        apt = private_apt(Path(scratch), "arm64", system_sources())
        run([*apt, "install", "-y", "-qq", "--download-only", *PACKAGES])
        found = sorted((Path(scratch) / "cache/archives").glob("*.deb"))
        for package in found:
            run(["dpkg", "-x", str(package), str(folder / "root")])
    (folder / "root/proc").mkdir()
    (folder / "root/proc/cpuinfo").write_text(CPUINFO)
    return [package.stem for package in found]


def unpack_headers(folder: Path) -> str:
    """Fetch onnxruntime's C and C++ headers, which Debian has since trixie, for the C++ usage example."""
    text = system_sources().read_text()
    stanzas = [s for s in text.split("\n\n") if re.search(r"(?m)^Suites:(.*\s)?bookworm(\s|$)", s)]
    newer = "\n\n".join(re.sub(r"(?m)^Suites:.*", "Suites: trixie", stanza) for stanza in stanzas) or text
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "newer.sources"
        sources.write_text(newer)
        package = "libonnxruntime-dev"
        try:
            apt = private_apt(Path(scratch), run(["dpkg", "--print-architecture"]).strip(), sources)
            run([*apt, "download", package], folder=Path(scratch))
        except SetupError as error:
            return f"none: {error}"  # only the C++ example's test needs them, and it skips
        (found,) = Path(scratch).glob(f"{package}_*.deb")
        run(["dpkg", "-x", str(found), str(Path(scratch) / "dev")])
        shutil.copytree(Path(scratch) / "dev/usr/include/onnxruntime", folder / "include")
        return found.stem


def system_sources() -> Path:
    """Where this machine's apt knows Debian from."""
    modern = Path("/etc/apt/sources.list.d/debian.sources")
    return modern if modern.is_file() else Path("/etc/apt/sources.list")


def private_apt(scratch: Path, architecture: str, sources: Path) -> list[str]:
    """An apt-get for one architecture that takes nothing as installed and leaves the system alone."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    run([*apt, "update", "-qq"])
    return apt


def unpack_wheels(folder: Path) -> list[str]:
    """Fetch the aarch64 wheels for the Python that apt brought and unpack all but pip."""
    (python,) = (p.name[len("python") :] for p in (folder / "root/usr/bin").glob("python3.*"))
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", *platforms]
    run([*command, "-d", str(folder / "wheels"), *WHEELS])
    wheels = sorted((folder / "wheels").glob("*.whl"))
    for wheel in wheels:
        if not wheel.name.startswith("pip-"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "root/usr/lib/python3/dist-packages")
    return [wheel.name for wheel in wheels]


def wrap_programs(root: Path) -> None:
    """Move every program aside and leave a wrapper of its name in root/usr/bin."""
    hidden, shown = root / "usr/libexec/arm64", root / "usr/bin"
    qemu = shutil.which("qemu-aarch64")  # absolute: the wrappers work whatever PATH a login has
    hidden.mkdir(parents=True)
    for folder in (shown, root / "bin"):
        for program in sorted(folder.iterdir()):
            if program.is_symlink() or not program.read_bytes().startswith(b"\x7fELF"):
                continue
            os.replace(program, hidden / program.name)
            names = [program.name] + (["python3"] if program.name.startswith("python3.") else [])
            for name in [*names, *(["sh"] if program.name == "dash" else [])]:
                wrapper = shown / name
                wrapper.unlink(missing_ok=True)
                wrapper.write_text(WRAPPER.format(qemu=qemu, root=root, program=hidden / program.name))
                wrapper.chmod(0o755)


def build_counter(source: Path, library: Path, root: Path) -> None:
    """Compile the instruction counter for the lowest plugin version that this QEMU takes."""
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    program, counted = root / "usr/libexec/arm64/true", library.with_suffix(".txt")
    why = SetupError("no version tried")
    for version in range(1, 8):
        run(["cc", *flags, f"-DPLUGIN_VERSION={version}", "-o", str(library), str(source)])
        try:
            run(["qemu-aarch64", "-L", str(root), "-plugin", f"{library},out={counted}", str(program)])
        except SetupError as error:
            why = error
            continue
        if int(counted.read_text().split()[-1]) > 1000:
            counted.unlink()
            return
    raise SetupError(f"this QEMU does not take the instruction counter: {why}")


def try_out(folder: Path) -> str:
    """Import onnxruntime inside, as proof that the sandbox works; gives its version."""
    code = "import platform, onnxruntime; print(platform.machine(), onnxruntime.__version__)"
    done = run([str(folder / "root/usr/bin/python3"), "-c", code])
    machine, version = done.split()
    if machine != "aarch64":
        raise SetupError(f"the sandbox's Python says it runs on {machine}")
    return version


def run(command: list[str], folder: Path | None = None) -> str:
    """Run a program and give its output; a failure is one line with the program's last words."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        last = ((done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"])[-1]
        raise SetupError(f"{' '.join(command[:2])} failed (exit {done.returncode}): {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
