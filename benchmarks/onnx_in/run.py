"""Import every file of the table, compare, cut to half of its MACs and ship it again; one row each.

    python -m benchmarks.onnx_in.run                          # rows that are missing
    python -m benchmarks.onnx_in.run "resnet18 opset 18"      # some rows, again
    python -m benchmarks.onnx_in.run --failed                 # those that did not pass

A row passes when the import agrees with ONNX Runtime on the file, at most 0.55 of the MACs remain (two thirds
for files of others, whose goal is 1.5 times fewer), the shipped file agrees with the pruned graph and its
inputs and outputs bear the file's names. Each row runs in a process of its own and is written at once.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.coverage.measure import SAMPLES, measure_trace
from benchmarks.coverage.summary import known_rows as coverage_rows
from benchmarks.onnx_in.files import File, all_files
from benchmarks.recording import ROOT, known_rows, record, table

NAME = "onnx_in"
OTHERS_TARGET = 2 / 3
MEMORY, SECONDS = 20 << 30, 600
COLUMNS = ["file", "opset", "imported", "import_difference", "free_share", "pytorch_free_share", "macs_ratio",
           "parity_max_abs", "passed", "reason"]  # fmt: skip


def measure(file: File) -> dict[str, Any]:
    """One row. Runs in its own process."""
    import onnx
    import torch

    from edgeprune.frontend.load import load_model
    from edgeprune.run.open_trace import open_trace

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path, shapes = file.write(Path(folder))
        model = onnx.load(str(path), load_external_data=False)
        row: dict[str, Any] = {
            "file": file.name,
            "producer": f"{model.producer_name} {model.producer_version}".strip() or file.source,
            "opset": max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
            "nodes": len(model.graph.node),
            "operators": sorted({n.op_type for n in model.graph.node}),
            "imported": False,
        }
        print("\n" + json.dumps(row), flush=True)
        began = time.monotonic()
        loaded = load_model(path, input_shapes=shapes or None)
        difference = float(loaded.notes[0].rpartition("agrees with ONNX Runtime to ")[2].split()[0])
        row |= {"imported": True, "import_difference": difference}
        row["import_seconds"] = round(time.monotonic() - began, 1)
        print("\n" + json.dumps(row), flush=True)
        traced, notes = open_trace(loaded)
        goal = 0.5 if file.model else OTHERS_TARGET
        if not all(traced.dynamic):
            reason = "its batch is fixed, and this table cuts and compares networks with a free batch only"
            return {**row, "batch": "fixed", "passed": False, "reason": reason, "notes": list(notes[1:])}
        torch.manual_seed(1)
        inputs = tuple(
            torch.randn(SAMPLES, *x.shape[1:]) if x.is_floating_point() and x.dim() else x
            for x in loaded.example_inputs
        )
        measured, small = measure_trace(traced, inputs, target=goal)
        known = coverage_rows().get(file.model, {})
        row |= {
            "free_share": measured["free_share"],
            "pytorch_free_share": known.get("free_share"),
            "mmacs": measured["mmacs"],
            "macs_ratio": measured["macs_ratio"],
            "parity_max_abs": measured["parity_max_abs"],
            "spread_ratio": measured["spread_ratio"],
            "batch": "free",
            "seconds": measured["seconds"],
        }
        cut_enough = measured["macs_ratio"] is not None and measured["macs_ratio"] <= 1.1 * goal
        row["passed"] = bool(cut_enough and (measured["spread_ratio"] or 0) >= 1000)
        row["names_kept"] = small.interface == loaded.interface
        row["notes"] = list(notes[1:])
    return row


def child(name: str) -> None:
    """Measure in this process; the row is the last line."""
    import warnings

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    print("\n" + json.dumps(measure(all_files()[name])), flush=True)


def run_row(name: str) -> dict[str, Any]:
    """The row from a process of its own; what was known when it failed stays in it."""
    command = ["nice", "-n", "5", sys.executable, "-m", "benchmarks.onnx_in.run", "--child", name]
    row: dict[str, Any] = {"file": name, "imported": False, "passed": False}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=4 * SECONDS, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return {**row, "reason": f"no result within {4 * SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"file"')]
    row |= json.loads(lines[-1]) if lines else {}
    if done.returncode:
        text = [line for line in done.stderr.strip().splitlines() if line.strip()] or [
            f"code {done.returncode}"
        ]
        row["reason"] = text[-1].rpartition("errors.")[2].replace(str(ROOT), "")[:400]
    row["measured"] = time.strftime("%Y-%m-%d", time.gmtime())
    return row


def main() -> int:
    """Measure what is asked for or missing; every row is kept as soon as it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.onnx_in.run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--failed", action="store_true", help="measure again what did not pass")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return 0
    names = list(all_files())
    if unknown := {*args.rows} - {*names}:
        parser.error(f"no file {', '.join(sorted(unknown))} in the list")
    rows = {row["file"]: row for row in known_rows(NAME)}
    for name in args.rows or [n for n in names if args.only in n]:
        again = args.rows or name not in rows or (args.failed and not rows[name]["passed"])
        if again:
            rows[name] = run_row(name)
            record(NAME, list(rows.values()))
            print(table([rows[name]], COLUMNS).splitlines()[1], flush=True)
    passed = [n for n in names if rows.get(n, {}).get("passed")]
    print(f"{len(passed)} of {len(rows)} rows pass; {len(names)} are in the list")
    return 0 if len(passed) == len(names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
