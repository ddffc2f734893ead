"""Accuracy before and after on real data: wearable sensors and package texts, two budgets each.

    python -m benchmarks.accuracy.runs                  # every row that is not measured yet, or failed
    python -m benchmarks.accuracy.runs wearable_gru     # those rows again
    python -m benchmarks.accuracy.runs wearable_gru --budget "max-drop 1"
    python -m benchmarks.accuracy.runs --time           # only the latencies of the shipped files again

A row is one run of `edgeprune compress`, called as a user calls it, on a committed checkpoint. Rows that
are measured are kept; a row that was stopped resumes in its run folder. Each row is written to
results/accuracy.json as soon as it is measured. A row whose run fails keeps the error as its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.recording import ROOT, known_rows, machine, record, table

RUNS = ROOT / ".cache" / "accuracy"
NETS = {
    "wearable_cnn": ("128,6", "examples.wearable:data"),
    "wearable_gru": ("128,6", "examples.wearable:data"),
    "debian_text": ("int64:20", "examples.debian_text:data"),
}
BUDGETS = {
    "max-drop 1": ("--max-drop", "1"),
    "macs 0.5, max-drop 5": ("--macs", "0.5", "--max-drop", "5"),
    "macs 0.25": ("--macs", "0.25"),
}
BULK = ("layers", "pinned", "rounds", "notes", "parity")  # kept in full in the cells
COLUMNS = [
    "network", "budget", "dense", "shipped", "drop", "validation_drop", "macs_ratio", "params_ratio",
    "p50_ratio", "seconds", "reason",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.runs", description=__doc__.splitlines()[0]
    )
    parser.add_argument("nets", nargs="*", help="measure these again (default: rows not measured or failed)")
    parser.add_argument("--budget", choices=list(BUDGETS), help="only rows of this budget")
    parser.add_argument("--force", action="store_true", help="measure everything again, in new run folders")
    parser.add_argument("--time", action="store_true", help="only time the shipped files again")
    given = parser.parse_args()
    if unknown := set(given.nets) - set(NETS):
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETS)}")
    rows = {(row["network"], row["budget"]): row for row in known_rows("accuracy", "cells")}
    for net in given.nets or NETS:
        for budget in [given.budget] if given.budget else BUDGETS:
            key = (net, budget)
            if given.time:
                if key in rows and "reason" not in rows[key]:
                    rows[key] |= timed(folder_of(net, budget))
            elif "reason" in rows.get(key, {"reason": ""}) or given.nets or given.force:
                rows[key] = measured(net, budget, given.force)
                print(table([shown(rows[key])], COLUMNS), flush=True)
            else:
                continue
            full = [rows[n, b] for n in NETS for b in BUDGETS if (n, b) in rows]
            record("accuracy", [readable(row) for row in full], cells=full)
    every = [rows[n, b] for n in NETS for b in BUDGETS if (n, b) in rows]
    print(table([shown(row) for row in every], COLUMNS))
    return 1 if any("reason" in row for row in every) else 0


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """The row without its bulk."""
    return {k: v for k, v in row.items() if k not in BULK}


def folder_of(net: str, budget: str) -> Path:
    return RUNS / f"{net} {budget}".replace(" ", "-").replace(",", "")


def command_of(net: str, budget: str) -> list[str]:
    """What a user types."""
    shape, data = NETS[net]
    return [
        "edgeprune", "compress", f"examples/checkpoints/{net}.safetensors",
        "--model", f"examples.sequence_nets:{net}", "--input-shape", shape, "--data", data, *BUDGETS[budget],
    ]  # fmt: skip


def measured(net: str, budget: str, force: bool) -> dict[str, Any]:
    """One run of `compress` as a row."""
    folder = folder_of(net, budget)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = command_of(net, budget)
    row: dict[str, Any] = {"network": net, "budget": budget, "command": " ".join(command)}
    run = [sys.executable, "-m", *command, "--output", str(folder), "--json", *(["--force"] if force else [])]
    print(f"{net}, {budget} …", flush=True)
    began, used = time.monotonic(), cpu_seconds()
    done = subprocess.run(run, cwd=ROOT, check=False, text=True, capture_output=True)
    row["seconds"] = round(time.monotonic() - began, 1)
    row["cpu_seconds"] = round(cpu_seconds() - used, 1)
    row["load_average"] = os.getloadavg()[0]
    if done.returncode:
        lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
        at = next((i for i, line in enumerate(lines) if "Error" in line or "ERROR" in line), -2)
        return {**row, "reason": " ".join(line.strip() for line in lines[at:])[:500]}
    return {**row, **figures(json.loads(done.stdout))}


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of report.json that a row keeps."""
    accuracy = report["accuracy"]
    chosen = next((p["name"] for p in report["front"] if p["chosen"]), None)
    final: dict[str, Any] = next((r for r in report["rounds"] if f"round {r['round']}" == chosen), {})
    return {
        "samples": accuracy["samples"],
        **{step: accuracy[step] for step in ("dense", "pruned", "compensated", "shipped", "drop")},
        "validation_drop": final.get("validation_drop"),
        "rounds": [
            {"macs": r["macs"], "validation_drop": r.get("validation_drop")} for r in report["rounds"]
        ],
        "macs": report["macs"],
        "params": report["params"],
        "file_bytes": report["file_bytes"],
        "parity": report["parity"],
        "pinned": report["pinned"],
        "layers": report["layers"],
        "latency": report["latency"],
        "notes": report["notes"],
    }


def timed(folder: Path) -> dict[str, Any]:
    """Both files of a run timed in interleaved rounds for ten seconds; nothing where the folder is gone."""
    files = [folder / "dense.onnx", folder / "model.onnx"]
    if not all(file.exists() for file in files):
        return {}
    command = [sys.executable, "-m", "edgeprune", "bench", *map(str, files), "--seconds", "10", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    ratio = found["ratios"][0]["ratio"]
    dense, shipped = (model["p50_ms"]["value"] for model in found["models"])
    return {
        "timed": {
            "dense_p50_ms": dense,
            "shipped_p50_ms": shipped,
            "ratio": ratio["value"],
            "ratio_low": ratio["low"],
            "ratio_high": ratio["high"],
            "rounds": found["rounds"],
            "warnings": found["warnings"],
            "machine": machine(),
        }
    }


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as the table prints it."""
    out: dict[str, str] = {k: str(row[k]) for k in ("network", "budget", "seconds", "reason") if k in row}
    if "reason" in row:
        return out
    for step in ("dense", "shipped"):
        out[step] = "{:.1%} ({:.1%}–{:.1%})".format(*(row[step][k] for k in ("value", "low", "high")))
    for step in ("drop", "validation_drop"):
        if row[step]:
            out[step] = "{:+.2f} ({:+.2f}…{:+.2f})".format(*(row[step][k] for k in ("value", "low", "high")))
    for what in ("macs", "params"):
        out[f"{what}_ratio"] = f"{row[what]['shipped'] / row[what]['dense']:.3f}"
    latency = row.get("timed") or row["latency"]
    out["p50_ratio"] = "{:.2f} ({:.2f}–{:.2f})".format(
        *(latency[k] for k in ("ratio", "ratio_low", "ratio_high"))
    )
    return out


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
