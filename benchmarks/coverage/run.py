"""Compress every model of a list to half of its MACs and prove the exported file; one row each.

    python -m benchmarks.coverage.run                    # transformers, Ultralytics, torchvision
    python -m benchmarks.coverage.run resnet18 swin_t    # some rows, again
    python -m benchmarks.coverage.run --failed           # those that did not pass
    python -m benchmarks.coverage.run --stale            # those that other code measured

Each row runs in a process of its own within limits of memory and processor time, and is written to
results/coverage.json as soon as it is done: a killed run resumes with the rows that are missing. A row
keeps the hash of the code that measured it; it is stale once that code has changed.
Elsewhere: what a row is and when it passes (measure), the page and the list of stale rows (summary, page).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.coverage.measure import SAMPLES, enliven, measure_module
from benchmarks.coverage.models import Row, torchvision_rows
from benchmarks.coverage.parts import measure_parts
from benchmarks.coverage.summary import RESULTS, known_rows, readable, summary
from benchmarks.coverage.transformers_models import transformers_rows
from benchmarks.coverage.ultralytics_models import ultralytics_rows
from benchmarks.coverage.versions import code_hash, commit
from benchmarks.recording import ROOT, provenance, write_result

GIB = 1 << 30


def all_rows(which: str = "all") -> dict[str, Row]:
    """Name -> row of one set or all, transformers first."""
    sets = {
        "transformers": transformers_rows,
        "ultralytics": ultralytics_rows,
        "torchvision": torchvision_rows,
    }
    return {n: row for name, rows in sets.items() if which in ("all", name) for n, row in rows().items()}


def measure(name: str) -> dict[str, Any]:
    """One row: build, trace, couple, cut to half, export, compare. Runs in its own process."""
    import warnings

    import torch

    from edgeprune.frontend.load import from_module

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    row = all_rows()[name]
    model = row.build()
    if row.parts:
        return measure_parts(model, row)
    inputs = row.inputs(SAMPLES)
    model = from_module(model, inputs).module
    enliven(model, inputs)
    return measure_module(model, inputs)


def child(name: str, limit_gib: float, cpu_seconds: float) -> None:
    """Measure in this process and print the row as the last line."""
    resource.setrlimit(resource.RLIMIT_AS, (int(limit_gib * GIB), int(limit_gib * GIB)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds) + 5))
    from edgeprune.errors import EdgepruneError

    try:
        row = measure(name)
    except EdgepruneError as error:
        row = {"passed": False, "reason": f"{type(error).__name__}: {str(error)[:400]}"}
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError) as error:
        text = (str(error).splitlines() or [""])[0][:400]
        row = {"passed": False, "reason": f"{type(error).__name__}: {text}"}
    print("\n" + json.dumps(row), flush=True)


def run_row(name: str, limit_gib: float, cpu_seconds: float) -> dict[str, Any]:
    """The row from a process of its own, which the system ends when it takes too much of either."""
    command = ["nice", "-n", "5", sys.executable, "-m", "benchmarks.coverage.run", "--child", name]
    command += ["--memory-gib", str(limit_gib), "--cpu-seconds", str(cpu_seconds)]
    timeout = 6 * cpu_seconds
    began, code = time.monotonic(), code_hash()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        row = (
            json.loads(lines[-1])
            if lines
            else {
                "passed": False,
                "reason": f"died with code {done.returncode}: {done.stderr.strip()[-300:]}",
            }
        )
    except subprocess.TimeoutExpired:
        row = {"passed": False, "reason": f"no result within {timeout:.0f} s"}
    row["code"] = code
    row["commit"] = commit()
    row["measured"] = time.strftime("%Y-%m-%d", time.gmtime())
    row["seconds_total"] = round(time.monotonic() - began, 1)
    return row


def record(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Put one row beside those that the file holds by now; gives all. Several runs may share the file."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {**known_rows(), name: row}
        write_result(
            RESULTS, {"benchmark": "coverage", **provenance(), "rows": readable(rows)}, {"cells": rows}
        )
    return rows


def line(name: str, row: dict[str, Any]) -> str:
    if "macs_ratio" not in row:
        return f"{name:34} {'-':6} {row.get('reason', '')[:90]}"
    s = row["seconds"]
    spread = row.get("spread_ratio")
    return (
        f"{name:34} {'pass' if row['passed'] else 'FAIL':6} {row['components']:7} {row['free_share']:6.2f} "
        f"{row['macs_ratio'] or 0:6.3f} {row['params_ratio']:6.3f} "
        f"{s.get('trace', 0):7.1f} {s.get('coupling', 0):6.2f} {s.get('surgery', 0):6.2f} "
        f"{row.get('parity_max_abs', 0):9.1e} {spread or 0:10.0f}"
    )


def main() -> int:
    """Measure what is asked for or missing, print every row and what they come to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", help="names to measure again (default: those not yet measured)")
    parser.add_argument("--set", choices=("all", "torchvision", "transformers", "ultralytics"), default="all")
    parser.add_argument("--failed", action="store_true", help="measure again what did not pass")
    parser.add_argument("--stale", action="store_true", help="measure again what other code measured")
    parser.add_argument("--force", action="store_true", help="measure everything again")
    parser.add_argument("--memory-gib", type=float, default=20.0)
    parser.add_argument("--cpu-seconds", type=float, default=900.0, help="processor time for one row")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.memory_gib, args.cpu_seconds)
        return 0
    every = list(all_rows(args.set))
    if unknown := {*args.rows} - {*all_rows()}:
        parser.error(f"no model {', '.join(sorted(unknown))} in the list")
    every = args.rows or every
    known, now = known_rows(), code_hash()
    todo = [
        n for n in every
        if args.rows or args.force or n not in known or (args.failed and not known[n]["passed"])
        or (args.stale and known[n].get("code") != now)
    ]  # fmt: skip
    head = (
        "model",
        "",
        "units",
        "free",
        "MACs",
        "params",
        "trace",
        "coupl",
        "cut",
        "max diff",
        "spread/diff",
    )
    print("{:34} {:6} {:>7} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>9} {:>10}".format(*head))
    for name in todo:
        known = record(name, run_row(name, args.memory_gib, args.cpu_seconds))
        print(line(name, known[name]), flush=True)
    passed = [n for n in every if known.get(n, {}).get("passed")]
    print(summary(known, every, now))
    return 0 if len(passed) == len(every) else 1


if __name__ == "__main__":
    raise SystemExit(main())
