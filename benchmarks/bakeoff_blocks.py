"""Tables of the docs from results beside the bake-off's own cells: one JSON file, one function.

Each gives Markdown for the marks that name it (bakeoff_docs puts it there). A file that is not there is
a FileNotFoundError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def article() -> str:
    """The article's experiment: means ± sd over seeds."""
    columns = [
        "row", "loss, first → last epoch", "train %", "test %", "pruned", "CPU s", "of it scoring", "seeds",
    ]  # fmt: skip
    rows = [["the article", "0.696 → 0.348", "90 → 92.00", "not given", "10", "1000 → 800", "", "not given"]]
    for name, seeds in read("article")["rows"].items():
        cells = list(seeds.values())

        def spread(what: str, cells: list[Any] = cells) -> str:
            values = [c[what] for c in cells]
            sd = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            return f"{np.mean(values):.2f}{sd}"

        first, last = (np.mean([c["loss"][i] for c in cells]) for i in (0, -1))
        rows.append(
            [
                name, f"{first:.3f} → {last:.3f}", spread("train"), spread("test"),
                str(cells[0]["pruned"]), spread("cpu_seconds"), spread("scoring_seconds"), str(len(cells)),
            ]
        )  # fmt: skip
    return markdown(columns, rows)


def shapes(net: str) -> str:
    """Inputs and widths that stay at each size."""
    found = read(f"bakeoff/{net}").get("shapes", {})
    return "; ".join(f"{r}: {'-'.join(map(str, s))}-10" for r, s in found.items()) or "Not measured yet."


def latency(net: str) -> str:
    """p50 and p90 of the shapes at every share of the MACs."""
    found = read(f"bakeoff/{net}")["latency"]
    rows = []
    for name, timed in found["rows"].items():
        p50, p90 = timed["p50_ms"], timed["p90_ms"]
        rows.append(
            [name, f"{p50['value']:.3f} [{p50['low']:.3f}, {p50['high']:.3f}]", f"{p90['value']:.3f}"]
        )
    return markdown(["share of the MACs", "p50, ms", "p90, ms"], rows)


def stability() -> str:
    """Agreement of rankings between resamples."""
    found = read("ranking")["stability"]
    sizes = list(next(iter(found.values())))
    rows = [
        [f"`{name}`", *(f"{of[s]['spearman']:.2f} ({of[s]['kept_half']:.2f})" for s in sizes)]
        for name, of in found.items()
    ]
    return markdown(["criterion", *(f"{s} samples" for s in sizes)], rows)


def truth() -> str:
    """Correlation of scores with single-channel ablation."""
    found = sorted(read("ranking")["truth"].items(), key=lambda item: -item[1]["absorbed"])
    rows = [[name, f"{of['alone']:.2f}", f"{of['absorbed']:.2f}"] for name, of in found]
    return markdown(["criterion", "alone", "absorbed"], rows)


def accuracy() -> str:
    """Whole runs of `compress`: before, after, and what it bought."""
    report = read("fashion")["report"]
    runs = [{**report, "network": "fashion_resnet", "budget": "macs 3x"}, *read("accuracy")["rows"]]
    rows = []
    for run in runs:
        if "reason" in run:
            rows.append([run["network"], f"`{run['budget']}`", run["reason"], "", "", "", "", ""])
            continue
        found = run.get("accuracy", run)
        drop, timed = found["drop"], run.get("timed") or run["latency"]
        rows.append(
            [
                run["network"],
                f"`{run['budget']}`",
                *(f"{100 * found[step]['value']:.2f}" for step in ("dense", "shipped")),
                f"{drop['value']:+.2f} [{drop['low']:+.2f}, {drop['high']:+.2f}]",
                *(f"{run[what]['shipped'] / run[what]['dense']:.3f}" for what in ("macs", "file_bytes")),
                f"{timed['ratio']:.2f} [{timed['ratio_low']:.2f}, {timed['ratio_high']:.2f}]",
            ]
        )
    return markdown(["network", "budget", "dense %", "shipped %", "points lost", "MACs", "file", "p50"], rows)


def read(name: str) -> dict[str, Any]:
    """A file of results.

    Raises:
        FileNotFoundError: it has not been measured.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(path.name)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def markdown(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
