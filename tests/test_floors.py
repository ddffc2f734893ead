"""The rooms of the design: a module imports only from lower floors, in no circle, mostly without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeprune"
# A module may import from lower floors and from its own room; rooms on one floor do not know each other.
FLOORS = {
    "errors": 0,
    "records": 1, "paths": 1,
    "ranks": 2, "store": 2, "information": 2, "targets": 2, "importing": 2,
    "data": 3, "tasks": 3, "export": 3, "frontend": 3,
    "measure": 4, "graph": 4,
    "deploy": 5, "coupling": 5,
    "masks": 6, "surgery": 6, "calibration": 6,
    "latency": 7, "simplify": 7, "recovery": 7, "criteria": 7,
    "session": 8,
    "search": 9,
    "pareto": 10,
    "report": 11,
    "run": 12,
    "api": 13, "cli": 13,
}  # fmt: skip
# Units whose import must not pull in torch: the runner and the command line start without it.
WITHOUT_TORCH = (
    "errors", "records", "paths", "importing", "ranks", "store", "targets", "information", "data", "tasks",
    "frontend",
    "masks", "measure", "deploy", "report", "cli", "session.budget", "search.allocate", "export",
)  # fmt: skip
LONGEST = 400  # lines of one module; most are 70 to 250


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
    """Not even inside a function: the knapsack computes on values that were measured elsewhere."""
    for name in ("search/allocate.py", "search/groups.py", "search/plan_correction.py", "session/budget.py"):
        names = [n for _, n in imports(ast.parse((PACKAGE / name).read_text()))]
        assert not [n for n in names if n.split(".")[0] == "torch"], name


def test_units_import_without_torch():
    """Importing them, and whatever they import, leaves torch out of the process."""
    names = ", ".join(f"edgeprune.{name}" for name in WITHOUT_TORCH)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def dependencies(folder: Path, prefix: str) -> dict[str, set[str]]:
    """Module -> modules of the same tree that it imports when it is itself imported."""
    names = {
        ".".join(p.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): p
        for p in folder.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(prefix):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found[name].add(full if full in names else node.module)
            elif isinstance(node, ast.Import):
                found[name] |= {a.name for a in node.names if a.name in names}
        found[name] = (found[name] & set(names)) - {name}
    return found


@pytest.mark.parametrize("folder", ["edgeprune", "benchmarks"])
def test_no_modules_import_each_other_in_a_circle(folder: str):
    """Lazy and type-checking imports count too: a reader meets them all the same."""
    left = dependencies(ROOT / folder, folder)
    while free := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"in circles, or above one: {sorted(left)}"


def test_modules_stay_short():
    """A longer file has two jobs."""
    long = {p.name: n for p in files() if (n := len(p.read_text().splitlines())) > LONGEST}
    assert not long


def test_every_room_says_what_it_is_for():
    """Each package opens with a docstring of more than its name."""
    for init in PACKAGE.glob("*/__init__.py"):
        assert len((ast.get_docstring(ast.parse(init.read_text())) or "").split()) >= 8, init
