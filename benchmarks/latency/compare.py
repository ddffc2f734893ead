"""Plans for measured latency, plans for MACs and Torch-Pruning: which is faster at the same loss of accuracy.

    python -m benchmarks.latency.compare --net NET --step profile    the profile: needs a quiet machine
    python -m benchmarks.latency.compare --net NET --step files      plans, recovery, files: load is harmless
    python -m benchmarks.latency.compare --net NET                   what is missing, then the timing
    python -m benchmarks.latency.compare --speedup NET               `--speedup 2` on one network
    python -m benchmarks.latency.compare --table

Files and accuracies are kept in --work, so that an interrupted run resumes. Writes results/latency.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.latency.plans import RECOVERIES, compared, prepare, time_files
from benchmarks.latency.speedup import row_of
from benchmarks.recording import ROOT, known_rows, record, table

OVER_MACS, OVER_OUTSIDE = 1.25, 1.3  # goals: times faster at the same loss


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per network, recovery and level: by how much the latency-planned file is faster, and the goals."""
    found = []
    for key in dict.fromkeys((r["network"], r["recovery"], r["points"]) for r in rows):
        same = [r for r in rows if (r["network"], r["recovery"], r["points"]) == key]
        macs = next(r for r in same if r["method"] == "macs")
        aligned = next(r for r in same if r["method"] == "macs-aligned")
        outside = min((r for r in same if r["method"].startswith("tp-")), key=lambda r: r["slower"])
        own = next(r for r in same if r["method"] == "latency")
        found.append(
            {
                "network": key[0],
                "recovery": key[1],
                "points": key[2],
                "time": f"{own['time']:.3f}",
                "over macs": _text(macs),
                "over macs-aligned": _text(aligned),
                "over best outside": f"{_text(outside)} {outside['method']}",
                "met": macs["slower"] >= OVER_MACS and outside["slower"] >= OVER_OUTSIDE,
            }
        )
    return found


def short(speedups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `--speedup 2` without their ladders and the files timed while planning."""
    return [{k: v for k, v in row.items() if k not in ("ladder", "timed")} for row in speedups]


def _text(row: dict[str, Any]) -> str:
    low, high = row["slower_interval"]
    return f"{row['slower']:.2f} [{low:.2f}, {high:.2f}]" + (" at least" if row["all_within"] else "")


def tables(found: dict[str, Any]) -> str:
    """Everything measured so far, as text."""
    columns = ["network", "recovery", "points", "time", "over macs", "over macs-aligned"]
    parts = []
    if found["plans"]:
        parts.append(table(verdicts(found["plans"]), [*columns, "over best outside", "met"]))
    if found["speedups"]:
        rows = [
            {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()}
            | {"interval": " to ".join(f"{v:.3f}" for v in row.get("interval", []))}
            | {"ladder": " ".join(f"{p['share']:.2f}:{p['ratio']:.3f}" for p in row.get("ladder", []))}
            for row in found["speedups"]
        ]
        columns = ["network", "asked", "reached", "interval", "within_5_percent", "macs", "slower_than_dense"]
        parts.append(table(rows, [*columns, "cliff", "ladder"]))
    return "\n\n".join(parts)


def main() -> None:
    """Measure what was asked for, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency.compare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--net", help="a trained network: the plans against each other")
    parser.add_argument("--speedup", metavar="NET", help="a network that is asked to become twice as fast")
    parser.add_argument("--step", choices=("profile", "files", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing, per lot or network")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "latency")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = known_rows("latency", "cells") or {}
    found = {name: before.get(name, []) for name in ("plans", "speedups")}
    name = given.net or given.speedup
    if name:
        work = given.work / name
        work.mkdir(parents=True, exist_ok=True)
    if given.net:
        prepare(name, work, 60.0, only_profile=given.step == "profile")
        if given.step != "all":
            return
        ratios = time_files(work, given.seconds)
        new = [row for recovery in RECOVERIES for row in compared(name, work, ratios, recovery)]
        found["plans"] = [r for r in found["plans"] if r["network"] != name] + new
    if given.speedup:
        new = [row_of(name, work, 2.0, given.seconds)]
        found["speedups"] = [r for r in found["speedups"] if r["network"] != name] + new
    if name:
        record("latency", verdicts(found["plans"]), speedups=short(found["speedups"]), cells=found)
    print(tables(found))


if __name__ == "__main__":
    main()
