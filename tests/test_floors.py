"""The floors of the design: a module imports only from lower ones, and torch stays out of most."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeprune"
# Higher may import lower; a unit may import itself. Halves are an order within a floor: model/run feeds
# data into graphs, statistics and capture read what coupling found, a device is timed and compared.
FLOORS = {
    "errors": 0, "records": 0, "importing": 0.5, "onnxgraph": 0.5,
    "store": 1, "targets": 1, "information": 1,
    "data": 2, "model": 2.5,
    "coupling": 3, "statistics": 3.3, "capture": 3.5,
    "criteria": 4,
    "masks": 5, "planning": 5,
    "surgery": 6,
    "recovery": 7,
    "onnxfile": 8, "bench": 8, "device": 8.5,
    "latency": 8.7,
    "report": 9, "ship": 9,
    "pipeline": 10,
    "api": 11, "cli": 11,
}  # fmt: skip
# Units whose import must not pull in torch: the runner, planning and the command line start without it.
WITHOUT_TORCH = (
    "errors", "records", "importing", "onnxgraph", "store", "targets", "information", "data",
    "masks", "planning", "bench", "device", "report", "ship", "cli",
)  # fmt: skip
LAZY = ("onnxfile",)  # torch only inside the functions that export


def unit(name: str) -> str | None:
    """`edgeprune.frontend.load` → `model`; None for anything else and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "edgeprune" and len(parts) > 1 else None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, at any depth: line, dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "edgeprune":
            yield from ((node.lineno, f"edgeprune.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its floor"
            yield node.lineno, str(node.module)


def files() -> list[Path]:
    return sorted(
        p for p in PACKAGE.rglob("*.py") if p.name != "__main__.py" and p != PACKAGE / "__init__.py"
    )


def owner(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def test_every_unit_stands_on_a_floor():
    """A new package or module of the top level has to be entered in the table, and no entry is dead."""
    assert {owner(p) for p in files()} == set(FLOORS)


def test_modules_import_only_from_lower_floors():
    """No import at any depth goes up or sideways, lazy ones included."""
    wrong = []
    for path in files():
        mine = owner(path)
        for line, name in imports(ast.parse(path.read_text())):
            other = unit(name)
            if other is None or other in (mine, "_core", "__version__"):
                continue
            if other not in FLOORS or FLOORS[other] >= FLOORS[mine]:
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_runner_imports_only_what_a_device_has():
    """measure/runner.py and the device's agent travel alone: the standard library, NumPy and onnxruntime."""
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime"}
    for name in ("measure/runner.py", "deploy/agent.py"):
        found = {m.split(".")[0] for _, m in imports(ast.parse((PACKAGE / name).read_text()))}
        assert found <= allowed, f"{name}: {found - allowed}"


def test_planning_holds_no_torch_at_all():
    """Not even inside a function: planning computes on values that were measured elsewhere."""
    for path in (PACKAGE / "planning").glob("*.py"):
        assert not [n for _, n in imports(ast.parse(path.read_text())) if n.split(".")[0] == "torch"], path


@pytest.mark.parametrize("names", [WITHOUT_TORCH, LAZY], ids=["floors", "onnxfile"])
def test_units_import_without_torch(names: tuple[str, ...]):
    """Importing them, and whatever they import, leaves torch out of the process."""
    code = f"import sys, {', '.join(f'edgeprune.{n}' for n in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
