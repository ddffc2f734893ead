"""Time the information core against NumPy, scikit-learn and its own goals.

    python -m benchmarks.information.run            # everything; some minutes
    python -m benchmarks.information.run --only flagship,ross

One run measures both sides of every ratio in interleaved rounds and gives the median ratio with a 95%
bootstrap interval over rounds, of wall time and of the processor time of this process: on a shared machine
they differ. A run of every section writes results/information.json (machine, versions, command, rows); the
scaling section draws docs/information-*.svg.
Elsewhere: the sections (labels, others), clocks and data (timing).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import edgeprune._core as core
from benchmarks.information.labels import classes, flagship, many, scaling
from benchmarks.information.others import others, ross, selection
from benchmarks.information.timing import Row
from benchmarks.recording import RESULTS, provenance, versions, write_result

PACKAGES = ("edgeprune", "numpy", "scipy", "scikit-learn")
SECTIONS: dict[str, Callable[[int], list[Row]]] = {
    "flagship": flagship,
    "classes": classes,
    "many": many,
    "ross": ross,
    "others": others,
    "selection": selection,
    "scaling": scaling,
}


def show(row: Row) -> str:
    """Lay a row out for the terminal."""
    if "note" in row:
        return f"{row['name']:<62} {row['note']}"
    text = f"{row['name']:<62} {row['ours_wall_s']:9.3f} s wall {row['ours_cpu_s']:9.3f} s cpu"
    if "wall_ratio" in row:
        for kind in ("wall", "cpu"):
            r = row[f"{kind}_ratio"]
            text += f"  {kind} ratio {r['value']:.4g} [{r['low']:.4g}, {r['high']:.4g}]"
        text += f"  least/least {row['least_wall_ratio']:.4g}"
    return text + (f"  goal: {row['goal']}" if row.get("goal") else "")


def main() -> None:
    """Run the sections asked for and write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.information.run", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma separated")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    sections: dict[str, Any] = {}
    for name in names:
        before = os.getloadavg()
        rows = SECTIONS[name](options.rounds)
        sections[name] = {"load_before": before, "load_after": os.getloadavg(), "rows": rows}
        for row in rows:
            print(show(row), flush=True)
    if set(names) != set(SECTIONS):
        print("not recorded: the record is of one run of every section")
        return
    summary = {"benchmark": "information", **provenance(), "versions": versions(PACKAGES)}
    write_result(RESULTS / "information.json", summary | {"simd": core.simd_name(), "rows": sections})


if __name__ == "__main__":
    main()
