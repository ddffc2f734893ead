"""The wheel builder: what a wheel carries, what is refused before anything is built, what CI runs."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of tools/, which is no package and imports its neighbours."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(monkeypatch):
    return load("wheels", monkeypatch)


def test_the_wheel_carries_every_data_file_of_the_package(monkeypatch):
    """The list that use_wheel.py checks inside a wheel is complete: every tracked file that is no module."""
    use_wheel = load("use_wheel", monkeypatch)
    package = ROOT / "edgeprune"
    data = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so")
    }
    assert data == set(use_wheel.DATA)


def test_the_metadata_name_the_package_and_its_command():
    """The console script points at a function that exists, and the runtime packages are dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["edgeprune"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    names = {re.split(r"[<>=!~ \[]", requirement)[0] for requirement in project["dependencies"]}
    source = (ROOT / "tools" / "wheels.py").read_text()
    (runtime,) = re.findall(r"^RUNTIME = \((.*?)\)", source, re.MULTILINE)
    assert set(re.findall(r'"([a-z]+)"', runtime)) <= names


def test_the_build_backend_of_the_wheels_is_the_projects(wheels):
    """Without build isolation the environment of the build must hold what pyproject.toml requires."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=!~ \[]", r)[0] for r in requires} <= set(wheels.BACKEND)
    pinned = {
        line.split("==")[0].replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert set(wheels.BACKEND) <= pinned, "the build runs at versions that constraints.txt pins"


def test_missing_programs_are_named_with_their_packages_before_anything_is_built(wheels, monkeypatch):
    """One line names every program that is missing and the Debian packages to install."""
    monkeypatch.setattr(wheels.shutil, "which", lambda tool: None)
    with pytest.raises(wheels.SetupError) as caught:
        wheels.require(wheels.TOOLS | wheels.CROSS_TOOLS)
    assert "crossbuild-essential-arm64" in str(caught.value) and "qemu-aarch64" in str(caught.value)


def test_an_unknown_wheel_is_refused(wheels, monkeypatch, capsys):
    """A mistyped name ends with the parser's exit code; nothing is built."""
    monkeypatch.setattr(sys, "argv", ["wheels.py", "arm"])
    monkeypatch.setattr(wheels, "require", lambda tools: pytest.fail("started to build"))
    with pytest.raises(SystemExit) as caught:
        wheels.main()
    assert caught.value.code == 2 and "native or aarch64" in capsys.readouterr().err


def test_a_wheel_without_a_manylinux_tag_never_reaches_dist(wheels, monkeypatch, tmp_path):
    """auditwheel's refusal is the error; a repaired wheel of another architecture does not count."""
    raw = tmp_path / "raw" / "edgeprune-0-cp311-cp311-linux_aarch64.whl"
    folder = tmp_path / "raw" / "manylinux"
    folder.mkdir(parents=True)
    (folder / "edgeprune-0-cp311-cp311-manylinux_2_34_x86_64.whl").touch()

    class Done:
        returncode, stdout, stderr = 0, "", "cannot repair"

    monkeypatch.setattr(wheels.subprocess, "run", lambda *args, **kwargs: Done)
    with pytest.raises(wheels.SetupError, match="manylinux tag for aarch64: cannot repair"):
        wheels.repaired(raw, "aarch64")
    right = folder / "edgeprune-0-cp311-cp311-manylinux_2_34_aarch64.whl"
    right.touch()
    assert wheels.repaired(raw, "aarch64") == right


def test_hosted_ci_runs_commands_that_exist():
    """Every `run:` of one command in the workflow is a script of the checkout or a target of make."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    commands = re.findall(r"^ +run: (?!\|)(.+)$", workflow, re.MULTILINE)
    rules = "".join(p.read_text() for p in (ROOT / "Makefile", *(ROOT / "tools").glob("*.mk")))
    targets = set(re.findall(r"^([a-z-]+):", rules, re.MULTILINE))
    assert {".ci/run", "make wheels"} <= set(commands)
    for command in commands:
        known = command.removeprefix("make ") in targets if command.startswith("make ") else None
        assert known or os.access(ROOT / command, os.X_OK), command
