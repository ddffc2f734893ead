"""Benchmarks are packages: no edits of sys.path, short modules, and the commands that texts quote exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "benchmarks").rglob("*.py"))
MAKEFILES = [ROOT / "Makefile", *ROOT.glob("*/*.mk"), *(ROOT / "benchmarks").rglob("*.mk")]
PAGES = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "examples" / "README.md"]
TEXTS = sorted({*PAGES, *MAKEFILES, *MODULES, *(ROOT / "examples").glob("*.py")})


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_is_in_a_package_short_and_imports_by_full_name(path):
    """A folder on sys.path makes `coverage` or `latency` another module from process to process."""
    text = path.read_text(encoding="utf-8")
    assert (path.parent / "__init__.py").is_file()
    assert len(text.splitlines()) <= 400
    siblings = {p.stem for p in path.parent.glob("*.py")} - {"__init__"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("sys", "path"), f"line {node.lineno}: sys.path"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and (node.module or "") not in siblings, f"line {node.lineno}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_and_files_that_a_text_names_exist(path):
    """`python -m` commands of benchmarks and examples, paths below benchmarks, and make targets."""
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"-m\s+((?:benchmarks|examples)(?:\.\w+)+)", text):
        assert importlib.util.find_spec(name) is not None, name
    for name in re.findall(r"\bbenchmarks/[\w./-]*\w", text):
        assert (ROOT / name).exists() or "*" in name, name
    targets = set()
    for file in MAKEFILES:
        targets |= set(re.findall(r"^([\w-]+):", file.read_text(), re.M))
    for name in re.findall(r"`make ([\w-]+)", text):
        assert name in targets, name
