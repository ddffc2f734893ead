"""Hold N random networks to "removed equals masked"; every failure prints its seed.

    python benchmarks/fuzz.py 10000 [--start 0] [--json benchmarks/results/fuzz.json]

Networks are drawn from every block in tests/blocks.py and tests/blocks_tokens.py. Twenty
share one export. One bundle in five frees head width and group positions instead of heads
and groups, one in ten has in-place operators and a free batch (those run one by one).
`check([seed])` in tests/generate.py runs one network again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from generate import check  # noqa: E402

BUNDLE = 20


def fuzz(count: int, start: int, progress: bool = True) -> dict:
    """Check seeds start..start+count-1; gives the totals and the failures."""
    totals = {"networks": 0, "components": 0, "removed": 0, "moved": 0, "free_batch": 0, "other_factor": 0}
    failures: list[str] = []
    began = time.monotonic()
    for first in range(start, start + count, BUNDLE):
        seeds = range(first, min(first + BUNDLE, start + count))
        number = first // BUNDLE
        full, other = number % 10 == 9, number % 5 == 3
        for part in [[s] for s in seeds] if full else [seeds]:
            outcome = check(part, full=full, other=other)
            for key in ("networks", "components", "removed", "moved"):
                totals[key] += getattr(outcome, key)
            for failure in outcome.failures:
                failures.append(failure)
                print(
                    f"FAILED {failure}{' (free batch)' if full else ''}{' (other factor)' if other else ''}",
                    flush=True,
                )
        totals["free_batch"] += len(seeds) * full
        totals["other_factor"] += len(seeds) * other
        if progress:
            print(f"\r{totals['networks']} networks, {len(failures)} failures", end="", file=sys.stderr)
    if progress:
        print(file=sys.stderr)
    seconds = time.monotonic() - began
    return {
        "start": start,
        **totals,
        "failures": failures,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, help="how many networks")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--json", type=Path, help="write the totals there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result = fuzz(args.count, args.start)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        partial = args.json.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(partial, args.json)
    share = result["moved"] / max(1, result["networks"])
    print(
        f"{result['networks']} networks, {result['removed']} components removed of {result['components']}, "
        f"outputs moved in {share:.0%}, {len(result['failures'])} failures, {result['seconds']} s"
    )
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
