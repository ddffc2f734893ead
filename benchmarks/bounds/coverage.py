"""Coverage of the bounds on what was lost, each alone and through the complete search.

    python -m benchmarks.bounds.coverage                 # every part that is not measured yet
    python -m benchmarks.bounds.coverage groups search   # these parts again

Results go to results/bounds.json, tables and plot to docs/bounds.md and docs/bounds.png.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from benchmarks.bounds import page, searches, simulated, zero_one
from benchmarks.recording import known_rows, record

PARTS: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
    "0/1": zero_one.rows,
    "bounded": simulated.bounded,
    "groups": simulated.grouped,
    "errors": simulated.errors,
    "sets": simulated.sets,
    "search": searches.rows,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing or asked for, write tables and plot; 1 where a proven bound fails to cover."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts to measure again")
    asked = parser.parse_args(arguments).parts
    rows = {name: [r for r in known_rows("bounds") if r["kind"] == name] for name in PARTS}
    # Not forked: a fork inherits the locks of the threads that torch has started.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(measured, name): name for name in asked or [n for n in PARTS if not rows[n]]}
        for job in as_completed(jobs):
            name = jobs[job]
            rows[name], seconds = job.result()
            record("bounds", [row for part in PARTS for row in rows[part]])
            print(f"{name}: {len(rows[name])} rows, {seconds:.0f} s", flush=True)
    everything = [row for part in PARTS for row in rows[part]]
    failed = page.below_nominal(everything)
    for row in failed:
        print("below nominal:", row)
    page.write(everything)
    return int(bool(failed))


def measured(name: str) -> tuple[list[dict[str, Any]], float]:
    """All rows of a part, to six decimals, and the seconds they took."""
    began = time.monotonic()
    rows = [{k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in PARTS[name]()]
    return rows, time.monotonic() - began


if __name__ == "__main__":
    raise SystemExit(main())
