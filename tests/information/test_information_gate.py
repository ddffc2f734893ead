"""`make test` runs the C++ tests, before pytest, and says so where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
ROOT = Path(__file__).parents[2]


def planned(path: str) -> str:
    """What `make test` would run with this PATH."""
    own = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    run = subprocess.run(
        ["make", "--dry-run", "test"],
        cwd=ROOT, env={**own, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout


@pytest.mark.skipif(shutil.which("ctest") is None, reason="needs ctest")
def test_the_gate_runs_the_cpp_tests_before_pytest():
    """They are configured, built and run in an ignored folder; pytest stays the last program."""
    out = planned(os.environ["PATH"])
    steps = [
        "cmake -S . -B build/ctest",
        "cmake --build build/ctest",
        "ctest --test-dir build/ctest",
        "-m pytest",
    ]
    at = [out.index(step) for step in steps]
    assert at == sorted(at)
    assert out.strip().splitlines()[-1].strip() == "exit $failed" and "-m pytest" in out.splitlines()[-2]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "build/" in ignored


def test_the_gate_says_that_cmake_is_missing(tmp_path: Path):
    """Without cmake the C++ tests are skipped in one line that names it, and pytest runs all the same."""
    for tool in ("make", "find", "sh"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    out = planned(str(tmp_path))
    assert "SKIPPED the C++ tests: cmake is missing" in out
    assert out.strip().splitlines()[-1].strip() == "exit $failed" and "-m pytest" in out.splitlines()[-2]
