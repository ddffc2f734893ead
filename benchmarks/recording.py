"""Write a benchmark's result: machine, versions, command and rows, as JSON beside the table."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from edgeprune.records import to_json
from edgeprune.store import write_json

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("edgeprune", "torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "numpy", "scipy")


def machine() -> dict[str, Any]:
    """Processor, cores and what was going on."""
    names = [
        ln.split(":", 1)[1].strip()
        for ln in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in ln
    ]
    return {
        "processor": (names or [platform.machine()])[0],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": platform.system(),
    }


def record(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write benchmarks/results/NAME.json and give its path."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(
        path,
        {
            "benchmark": name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {"python": platform.python_version(), **versions},
            "command": " ".join(["python", *sys.orig_argv[1:]]),
            **_portable(more),
            "rows": _portable(rows),
        },
    )
    return path


def _portable(value: Any) -> Any:
    """Without the folders of this machine: of an absolute path the name is kept."""
    plain = to_json(value)
    if isinstance(plain, dict):
        return {k: _portable(v) for k, v in plain.items()}
    if isinstance(plain, list):
        return [_portable(v) for v in plain]
    return (
        Path(plain).name if isinstance(plain, str) and plain.startswith("/") and " " not in plain else plain
    )


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as aligned text."""
    cells = [columns, *([str(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )
