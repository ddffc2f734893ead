"""Read and write the results of benchmarks: one JSON file to read, its bulk beside it, compressed.

    record("accuracy", rows, cells=full_rows)    results/accuracy.json and results/accuracy.cells.json.gz
    read_result(RESULTS / "accuracy.json")       both as one dictionary

NAME.json holds machine, versions, command and `rows`, one row a line. What a reader does not scan
(per-sample flags, whole reports, lists of pins) goes to NAME.cells.json.gz; `cells_file` names it. Both
files are written whole or not at all, the compressed one first, so that a run killed between the two leaves
older rows beside newer cells and never the reverse. Equal content in equal order gives equal bytes.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeprune.records import to_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("edgeprune", "torch", "torchvision", "onnx", "onnxruntime", "onnxsim", "numpy", "scipy")


def record(name: str, rows: list[dict[str, Any]], *, cells: Any = None, **more: Any) -> Path:
    """Write results/NAME.json with where and how it was measured; gives its path.

    Args:
        rows: what a reader scans.
        cells: what is kept in full beside it; None for nothing.
        more: further entries of the JSON file.
    """
    path = RESULTS / f"{name}.json"
    summary = {"benchmark": name, **provenance(), **_portable(more), "rows": _portable(rows)}
    write_result(path, summary, None if cells is None else {"cells": _portable(cells)})
    return path


def provenance() -> dict[str, Any]:
    """When, on what and by which command a result is measured."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "command": " ".join(["python", *sys.orig_argv[1:]]),
    }


def machine() -> dict[str, Any]:
    """Processor, cores and load."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": (names or [platform.machine()])[0],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": platform.system(),
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Python and the installed ones of the packages."""
    installed = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def write_result(path: Path, summary: dict[str, Any], bulk: dict[str, Any] | None = None) -> None:
    """Write `summary` to the JSON file and the entries of `bulk` to the compressed file beside it.

    Floats that are not finite become null.

    Raises:
        ValueError: an entry is in both.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = cells_path(path)
    if bulk:
        if both := {*summary} & {*bulk}:
            raise ValueError(f"{path.name}: {', '.join(sorted(both))} would be written twice")
        text = json.dumps(_finite(bulk), allow_nan=False, separators=(",", ":"))
        _replace(beside, gzip.compress(text.encode(), 9, mtime=0))
        summary = {**summary, "cells_file": beside.name}
    _replace(path, (_lines(_finite(to_json(summary))) + "\n").encode())
    if not bulk:
        beside.unlink(missing_ok=True)


def read_result(path: Path) -> dict[str, Any]:
    """What `write_result` was given, as one dictionary.

    Raises:
        FileNotFoundError: it has not been measured, or the compressed file is missing.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    name = found.pop("cells_file", None)
    if name is not None:
        found |= json.loads(gzip.decompress(path.with_name(name).read_bytes()))
    return found


def known_rows(name: str, entry: str = "rows") -> Any:
    """An entry of results/NAME.json, an empty list where nothing has been measured."""
    path = RESULTS / f"{name}.json"
    return read_result(path)[entry] if path.exists() else []


def cells_path(path: Path) -> Path:
    """NAME.json → NAME.cells.json.gz."""
    return path.with_name(f"{path.stem}.cells.json.gz")


def content_hash(paths: Iterable[Path], root: Path = ROOT) -> str:
    """Twelve digits that tell one state of the files from another, by their names and contents.

    Raises:
        ValueError: there are no files: a folder that was renamed would give one hash for ever.
    """
    files, digest = sorted(paths), hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    if not files:
        raise ValueError("no files to hash")
    return digest.hexdigest()[:12]


def sources(folders: Iterable[Path], pattern: str = "*.py") -> list[Path]:
    """The files of every folder that match.

    Raises:
        ValueError: a folder has none.
    """
    found: list[Path] = []
    for folder in folders:
        files = sorted(folder.rglob(pattern))
        if not files:
            raise ValueError(f"{folder} has no {pattern}")
        found += files
    return found


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as aligned text."""
    cells = [columns, *([str(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


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


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(summary: dict[str, Any]) -> str:
    """JSON with an entry a line; rows, and other collections of collections, an item a line."""

    def text(value: Any) -> str:
        return json.dumps(value, allow_nan=False)

    lines = []
    for key, value in summary.items():
        inner = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(inner, list) or not any(isinstance(v, dict | list) for v in inner):
            lines.append(f" {text(key)}: {text(value)}")
        elif isinstance(value, dict):
            items = ",\n".join(f"  {text(k)}: {text(v)}" for k, v in value.items())
            lines.append(f" {text(key)}: {{\n{items}\n }}")
        else:
            items = ",\n".join(f"  {text(v)}" for v in value)
            lines.append(f" {text(key)}: [\n{items}\n ]")
    return "{\n" + ",\n".join(lines) + "\n}"


def _replace(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)
