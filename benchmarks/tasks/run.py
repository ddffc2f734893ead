"""One network per task through `edgeprune compress`, with Torch-Pruning beside it.

    python -m benchmarks.tasks.run                    # every row that is not measured yet, or failed
    python -m benchmarks.tasks.run binary ctc         # those rows again
    python -m benchmarks.tasks.run --no-outside       # without Torch-Pruning

A row is one call of the command as a user types it, on a committed checkpoint: half of the MACs, at most one
point (or percent) lost at a one-sided 90% bound. What misses the bound is written all the same and says so.
Rows go to results/tasks.json one by one; a killed run goes on with the next. Rows of detection need
Ultralytics, which the makefile installs.
Elsewhere: networks (nets), data (datasets, canvases), training (train_small, train_yolo).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.recording import ROOT, known_rows, record, table
from benchmarks.tasks.train_small import CHECKPOINTS, SHAPES
from edgeprune.session.budget import Budget
from edgeprune.session.options import Options

RUNS = ROOT / ".cache" / "tasks"
EPOCHS = {"segmentation": 4, "yolo11n": 3}
BATCH = {"segmentation": 32, "yolo11n": 24}
TASKS = {"two_outputs": None, "yolo11n": "detection"}
DETECTORS = {"yolo11n": ((3, 192, 192), "benchmarks.tasks.datasets:detection")}
NAMES = (*SHAPES, *DETECTORS)
KEPT = ("accuracy", "macs", "params", "file_bytes", "latency", "parity", "missed", "notes", "rounds", "front",
        "stages")  # fmt: skip
COLUMNS = ["network", "task", "metric", "dense", "shipped", "lost", "unit", "macs", "p50_ratio", "int8",
           "seconds", "tp_lost", "tp_p50_ratio", "reason"]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="measure these again")
    parser.add_argument("--no-outside", action="store_true", help="without Torch-Pruning")
    parser.add_argument("--force", action="store_true", help="new run folders")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    cells = {row["network"]: row for row in known_rows("tasks", "cells")}
    for name in given.names or NAMES:
        if not given.names and "reason" not in cells.get(name, {"reason": ""}):
            continue
        if not (CHECKPOINTS / f"{name}.safetensors").exists():
            continue
        row = measured(name, given.force, not given.no_outside)
        # read again: another run may have written rows meanwhile
        cells = {**{other["network"]: other for other in known_rows("tasks", "cells")}, name: row}
        kept = [cells[n] for n in NAMES if n in cells]
        record("tasks", [row for cell in kept for row in readable(cell)], cells=kept)
        print(table(readable(cells[name]), COLUMNS), flush=True)
    return 1 if any("reason" in cell for cell in cells.values()) else 0


def settings(name: str) -> dict[str, Any]:
    """Checkpoint, factory, shape and data of a row."""
    shape, data = DETECTORS.get(name, (SHAPES.get(name), f"benchmarks.tasks.datasets:{name}"))
    return {
        "checkpoint": CHECKPOINTS / f"{name}.safetensors", "model": f"benchmarks.tasks.nets:{name}",
        "shape": shape, "data": data, "dtype": "int64" if name == "tokens" else None,
    }  # fmt: skip


def command_of(name: str) -> list[str]:
    """What a user types."""
    known = settings(name)
    dtype = f"{known['dtype']}:" if known["dtype"] else ""
    task = TASKS.get(name, name)
    return [
        "edgeprune", "compress", str(Path(known["checkpoint"]).relative_to(ROOT)), "--model", known["model"],
        "--input-shape", dtype + ",".join(map(str, known["shape"])), "--data", known["data"],
        *(["--task", task] if task else []), "--macs", "0.5", "--max-drop", "1",
        "--epochs", str(EPOCHS.get(name, 4)), "--batch-size", str(BATCH.get(name, 64)),
        "--profile-seconds", "8", "--front", "0",
    ]  # fmt: skip


def measured(name: str, force: bool, outside: bool) -> dict[str, Any]:
    """One run of `compress`, and the same cut by Torch-Pruning."""
    folder = RUNS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = command_of(name)
    row: dict[str, Any] = {"network": name, "command": " ".join(command)}
    run = [sys.executable, "-m", *command, "--output", str(folder), "--json", *(["--force"] if force else [])]
    print(f"{name} …", flush=True)
    began = time.monotonic()
    done = subprocess.run(run, cwd=ROOT, check=False, text=True, capture_output=True)
    row["seconds"] = round(time.monotonic() - began, 1)
    path = folder / "report.json"
    if not path.exists() or done.returncode not in (0, 6):
        return {**row, "reason": done.stderr.strip()[-600:]}
    report = json.loads(path.read_text())
    row |= {k: report[k] for k in KEPT}
    if outside:
        row["torch_pruning"] = beside(name, report, folder)
    return row


def beside(name: str, report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Torch-Pruning's row, or why there is none."""
    from benchmarks.tasks.outside import macs_of, torch_pruning_row

    options = Options(
        budget=Budget(max_drop=1.0), task=TASKS.get(name, name), epochs=EPOCHS.get(name, 4),
        batch_size=BATCH.get(name, 64),
    )  # fmt: skip
    try:
        return torch_pruning_row(settings(name), options, macs_of(report), folder)
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {str(error)[:300]}"}


def readable(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per judged output."""
    if "reason" in cell:
        return [{k: cell[k] for k in ("network", "command", "seconds", "reason")}]
    accuracy, latency, outside = cell["accuracy"], cell["latency"], cell.get("torch_pruning", {})
    rows = []
    for part in accuracy["parts"] or [None]:
        known = part or {**accuracy, "measure": accuracy["measured_as"]}
        ends = [_number(known[k]) for k in ("dense", "shipped")]
        rows.append({
            "network": cell["network"], "task": accuracy["task"], "metric": known["measure"],
            "dense": ends[0], "shipped": ends[1],
            "lost": [round(known["drop"][k], 3) for k in ("value", "low", "high")], "unit": known["unit"],
            "macs": round(cell["macs"]["shipped"] / cell["macs"]["dense"], 4),
            "p50_ratio": [round(latency[k], 3) for k in ("ratio", "ratio_low", "ratio_high")],
            "int8": _int8(cell), "missed": cell["missed"], "seconds": cell["seconds"],
            "tp_lost": outside.get("lost"), "tp_macs": outside.get("macs"),
            "tp_p50_ratio": outside.get("p50_ratio"), "tp_reason": outside.get("reason"),
        })  # fmt: skip
    return rows


def _number(value: Any) -> float:
    return round(float(value["value"] if isinstance(value, dict) else value), 4)


def _int8(cell: dict[str, Any]) -> str:
    """The 8-bit file's loss and ratio, or why there is none."""
    for row in cell["front"]:
        if row["int8"]:
            drop = row["drop"]
            return f"{drop['value']:+.2f} (to {drop['high']:+.2f}), p50 {row['ratio']:.2f}"
    said = [note for note in cell["notes"] if "8 bit" in note or "int8" in note.lower()]
    return said[0] if said else "not asked"


if __name__ == "__main__":
    raise SystemExit(main())
