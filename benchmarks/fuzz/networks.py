"""Test random networks for "removed equals masked"; every failure prints its seed.

    PYTHONPATH=tests/support python -m benchmarks.fuzz.networks 10000 --json benchmarks/results/fuzz.json

Networks are drawn from every block in tests/support/blocks*.py and joins.py. Seeds from 10,000 on also draw
from blocks_spelled.py, so that earlier seeds keep their networks. Twenty networks share one export. One
bundle in five frees head width and group positions instead of heads and groups; one in twenty has in-place
operators and a free batch (those run one by one). `check([seed])` in tests/support/generate.py runs one
network again.

With --json the totals are written after every 40 networks, and a run resumes where the file ends. Seeds
that failed are tried again first. The file names the generator that drew the seeds; another generator
starts over, and the earlier record moves to `earlier`. `code` counts the networks that were tested with
each state of the rules and of surgery, by a hash of their files. The table lists the operators with a rule,
how many nodes of each were tested by any generator, and why the others were not. Runs over separate ranges
of seeds are joined by `--merge a.json b.json --json benchmarks/results/fuzz.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.recording import ROOT, content_hash, sources
from edgeprune.coupling.operators import TABLE
from edgeprune.store import write_json

try:
    from generate import Outcome, check
except ModuleNotFoundError as error:
    if error.name != "generate":
        raise
    raise SystemExit(
        "benchmarks.fuzz.networks needs PYTHONPATH=tests/support (`make fuzz` sets it)"
    ) from None

BUNDLE = 20
CHUNK = 2 * BUNDLE
NEVER_IN_A_TRACE = {  # rules for graphs before `normalise`
    "aten._unsafe_view.default": "becomes a reshape when a model is traced",
    "aten.dropout.default": "is dropped when a model is traced",
    "aten.tensor_split.sections": "torch.export writes slices",
    "aten.view.default": "becomes a reshape when a model is traced",
    "aten.view_as.default": "torch.export writes a view of sizes",
}
COUNTED = ("networks", "components", "removed", "moved", "free_batch", "other_factor")


def flavour(seed: int) -> dict[str, bool]:
    """How the bundle of a seed is traced: with a free batch, or with the other factors free."""
    number = seed // BUNDLE
    return {"full": number % 20 == 19, "other": number % 5 == 3}


def chunk(first: int, stop: int) -> dict[str, Any]:
    """Check seeds first..stop-1; gives totals, failures and operators."""
    totals: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    operators: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    at = first
    while at < stop:
        seeds = range(at, min(at - at % BUNDLE + BUNDLE, stop))
        how = flavour(at)
        for part in [[s] for s in seeds] if how["full"] else [list(seeds)]:
            outcome = check(part, **how)
            for key in ("networks", "components", "removed", "moved"):
                totals[key] += getattr(outcome, key)
            operators += outcome.operators
            failures += told(outcome, part)
        totals["free_batch"] += len(seeds) * how["full"]
        totals["other_factor"] += len(seeds) * how["other"]
        at = seeds.stop
    return {
        **totals,
        "operators": dict(operators),
        "failures": failures,
        "code": {CODE: totals["networks"]},
    }


def told(outcome: Outcome, seeds: list[int]) -> list[dict[str, Any]]:
    """Failures by seed, printed as they occur."""
    found = []
    for text in outcome.failures:
        named = text.split(":")[0].removeprefix("seed ")
        seed = int(named) if named.isdecimal() else seeds[0]
        found.append({"seed": seed, **flavour(seed), "what": text})
        print(f"FAILED {text} {flavour(seed)}", flush=True)
    return found


def generator() -> str:
    """Hash of everything that decides which network a seed draws."""
    folder = ROOT / "tests" / "support"
    return content_hash(
        p for kind in ("blocks", "joins", "generate") for p in sources([folder], f"{kind}*.py")
    )


def code() -> str:
    """Hash of what is tested: the graph as it is read, the rules, surgery."""
    return content_hash(sources(ROOT / "edgeprune" / room for room in ("graph", "coupling", "surgery")))


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Totals of two stretches of seeds."""
    return {
        **known,
        **{key: known[key] + new[key] for key in COUNTED},
        "operators": dict(Counter(known["operators"]) + Counter(new["operators"])),
        "failures": known["failures"] + new["failures"],
        "code": dict(Counter(known["code"]) + Counter(new["code"])),
    }


def again(failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of earlier failures that still fail; what only failed in a bundle is tried in its bundle."""
    still = []
    for seed, whole in sorted({(f["seed"], f["what"].startswith("seeds")) for f in failures}):
        seeds = list(range(seed, seed - seed % BUNDLE + BUNDLE)) if whole else [seed]
        still += told(check(seeds, **flavour(seed)), seeds)
    return still


def covered(operators: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """Nodes by operator with a rule in coupling, and the operators that occurred in no network."""
    known = {str(t) for t in TABLE}
    seen = {name: operators[name] for name in sorted(known & set(operators))}
    return seen, sorted(known - set(operators))


def coverage(found: dict[str, Any]) -> dict[str, Any]:
    """How many rules networks of any generator met, and why the others were not met."""
    operators = Counter(found["operators"])
    for record in found["earlier"]:
        operators += Counter(record["operators"])
    seen, unseen = covered(operators)
    why = {name: NEVER_IN_A_TRACE.get(name, "not drawn yet") for name in unseen}
    return {"rules_covered": len(seen), "rules_not_covered": why}


def records(path: Path | None) -> list[dict[str, Any]]:
    """The records of the file by generator, the newest first."""
    if path is None or not path.exists():
        return []
    newest = json.loads(path.read_text())
    return [newest, *newest.pop("earlier", [])]


def others(known: list[dict[str, Any]], own: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of another generator, another torch or another first seed."""
    return [r for r in known if any(r[key] != own[key] for key in ("start", "generator", "torch"))]


def fuzz(count: int, start: int, path: Path | None) -> dict[str, Any]:
    """Check seeds start..start+count-1, going on from what the file holds."""
    blank: dict[str, Any] = {**dict.fromkeys(COUNTED, 0), "operators": {}, "failures": [], "seconds": 0.0}
    blank["code"] = {}
    header = {"start": start, "generator": generator(), "torch": torch.__version__}
    known = records(path)
    found: dict[str, Any] = {**header, **blank, "earlier": others(known, header)}
    for old in known:
        if path and all(old[k] == v for k, v in header.items()):
            held = old.get("code", {"unknown": old["networks"]})
            found |= old | {"failures": again(old["failures"]), "code": held}
            write_json(path, found | coverage(found))
    while found["networks"] < count:
        began = time.monotonic()
        first = start + found["networks"]
        found = merged(found, chunk(first, min(first + CHUNK, start + count)))
        found["seconds"] = round(found["seconds"] + time.monotonic() - began, 1)
        found |= coverage(found)
        if path:
            write_json(path, found)
        print(f"{found['networks']} networks, {len(found['failures'])} failures", file=sys.stderr, flush=True)
    return found


def join(paths: list[Path], path: Path | None) -> dict[str, Any]:
    """Stretches that follow each other as one.

    Raises:
        SystemExit: another generator or torch, or seeds that are missing or counted twice.
    """
    read = [{"code": {}} | json.loads(p.read_text()) for p in paths]
    first, *rest = sorted(read, key=lambda found: found["start"])
    for other in rest:
        if any(other[key] != first[key] for key in ("generator", "torch")):
            raise SystemExit(f"the stretch from seed {other['start']} is of another generator or torch")
        if other["start"] != first["start"] + first["networks"]:
            raise SystemExit(f"seeds up to {first['start'] + first['networks']}, then from {other['start']}")
        first = merged(first, other) | {"seconds": round(first["seconds"] + other["seconds"], 1)}
    first["earlier"] = others(records(path), first)
    first |= coverage(first)
    if path:
        write_json(path, first)
    return first


CODE = code()  # at import: files may change during the run


def main() -> int:
    """Test the networks asked for, print the operators and the totals."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz.networks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("count", type=int, nargs="?", default=1000, help="how many networks")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--json", type=Path, help="write the totals there, and go on from there")
    parser.add_argument("--merge", type=Path, nargs="+", help="only join what these files hold")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # an eighth of the time went into looking for garbage
    result = join(args.merge, args.json) if args.merge else fuzz(args.count, args.start, args.json)
    seen, _ = covered(result["operators"])
    print("  ".join(f"{name.removeprefix('aten.')} {n}" for name, n in seen.items()))
    print(f"{result['rules_covered']} operators with a rule occurred, by any generator; never:")
    for name, why in result["rules_not_covered"].items():
        print(f"  {name}: {why}")
    share = result["moved"] / max(1, result["networks"])
    print(
        f"{result['networks']} networks, {result['removed']} components removed of {result['components']}, "
        f"outputs moved in {share:.0%}, {len(result['failures'])} failures, {result['seconds']} s"
    )
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
