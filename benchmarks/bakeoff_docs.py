"""Write the measured tables into the docs, between their marks, so that no number is typed.

    python -m benchmarks.bakeoff_docs

A block `<!-- measured: NAME ARGUMENTS -->` … `<!-- end -->` is replaced by the table of that name,
made from the JSON files under benchmarks/results. Text outside the marks is left alone.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bakeoff_table as tables

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DOCS = ("docs/criteria.md", "docs/method.md")
MARK = re.compile(r"(<!-- measured: (.*?) -->\n).*?(<!-- end -->)", re.S)
DEFAULT = "ib-gauss"


def grid(net: str, recovery: str, allocation: str = "uniform") -> str:
    """Accuracy ± sd per criterion and share of the MACs, with the number of seeds where it is not one."""
    found = _read(f"bakeoff/{net}")
    rows = tables.grid(found).get((recovery, allocation), {})
    if not rows:
        return "Not measured yet."
    ratios = sorted({r for row in rows.values() for r in row}, reverse=True)
    if allocation == "uniform":
        refuse_unequal(net, rows, ratios)
    lines = [_row(["criterion", *(f"{r:.3g}" for r in ratios)]), _row(["---"] * (1 + len(ratios)))]
    best = {r: max(tables.mean(row[r]) for row in rows.values() if r in row) for r in ratios}
    for name in tables.order(rows, ratios):
        cells = []
        for r in ratios:
            cell = rows[name].get(r)
            if not cell:
                cells.append("")
                continue
            sd = tables.spread(cell)
            text = f"{tables.mean(cell):.2f}" + ("" if sd is None else f" ± {sd:.2f} ({len(cell)})")
            cells.append(f"**{text}**" if tables.mean(cell) >= best[r] else text)
        lines.append(_row([f"`{name}`", *cells]))
    return "\n".join([f"Dense: {found['dense']:.2f}%.", "", *lines])


def refuse_unequal(net: str, rows: dict[str, dict[float, tables.Cells]], ratios: list[float]) -> None:
    """Raise SystemExit where cells of a column keep different shares of the MACs: they compare nothing."""
    for ratio in ratios:
        kept = {cell["macs"] for row in rows.values() for cell in row.get(ratio, {}).values()}
        if len(kept) > 1 or max(kept) > ratio + 1e-3:
            raise SystemExit(f"{net} at {ratio}: cells keep {sorted(kept)} of the MACs")


def against(net: str, recovery: str, allocation: str = "uniform") -> str:
    """The default's paired differences with bootstrap intervals."""
    found = _read(f"bakeoff/{net}")
    rows = tables.grid(found).get((recovery, allocation), {})
    ratios = sorted(rows.get(DEFAULT, {}), reverse=True)
    lines = [_row([f"`{DEFAULT}` minus", *(f"{r:.3g}" for r in ratios)]), _row(["---"] * (1 + len(ratios)))]
    for name in tables.order(rows, ratios):
        if name == DEFAULT:
            continue
        parts = [tables.difference(found, rows[DEFAULT][r], rows[name].get(r, {})) for r in ratios]
        texts = [f"{p[0]:+.2f} [{p[1]:+.2f}, {p[2]:+.2f}] ({p[3]})" if p else "" for p in parts]
        lines.append(_row([f"`{name}`", *texts]))
    return "\n".join(lines)


def goals(net: str) -> str:
    """The goals of the bake-off against what was measured, compensation alone."""
    found = _read(f"bakeoff/{net}")
    rows = tables.grid(found)[("compensate", "uniform")]
    lines = [_row(["goal", "measured", "met"]), _row(["---"] * 3)]
    for ratio, limit in ((0.5, 1.0), (0.333, 3.0)):
        cells = rows[DEFAULT][ratio]
        drop = found["dense"] - tables.mean(cells)
        seconds = max(sum(c["cpu_seconds"].values()) for c in cells.values())
        lines.append(
            _row(
                [
                    f"at {1 / ratio:.0f}× fewer MACs lose at most {limit:g} points, in under 60 s",
                    f"{drop:.2f} points, {len(cells)} seed(s); at most {seconds:.0f} s of processor time",
                    _met(drop <= limit and seconds < 60),
                ]
            )
        )
    ours, chance = rows[DEFAULT][0.25], rows["random"][0.25]
    both = sorted({*ours} & {*chance})
    lost = [(found["dense"] - ours[s]["accuracy"], found["dense"] - chance[s]["accuracy"]) for s in both]
    shares = [1 - a / b for a, b in lost]
    lines.append(
        _row(
            [
                "at 4× remove at least half of random's loss",
                f"{np.mean([a for a, _ in lost]):.2f} against {np.mean([b for _, b in lost]):.2f} points:"
                f" {100 * np.mean(shares):.0f}% gone, at least {100 * min(shares):.0f}%, {len(both)} seeds",
                _met(min(shares) >= 0.5 and len(both) >= 5),
            ]
        )
    )
    tuned = rows_of(found, "finetune")
    for ratio in sorted(tuned.get(DEFAULT, {}), reverse=True):
        part, best = closest(found, tuned, ratio)
        if part is None:
            continue
        hard = ratio <= 0.25
        goal = "above zero by bootstrap" if hard else "at least −0.3 points"
        lines.append(
            _row(
                [
                    f"after equal fine-tuning at {ratio:.3g}, against the best control: {goal}",
                    f"{part[0]:+.2f} [{part[1]:+.2f}, {part[2]:+.2f}] against `{best}`, {part[3]} seed(s)",
                    _met(part[1] > 0 if hard else part[0] >= -0.3),
                ]
            )
        )
    return "\n".join(lines)


def closest(
    found: dict[str, Any], rows: dict[str, dict[float, tables.Cells]], ratio: float
) -> tuple[tuple[float, float, float, int] | None, str]:
    """The default's difference to the control that comes closest on shared seeds, and which that is.

    Of controls with three shared seeds or more, where there is any: one lucky seed is no best control.
    """
    parts = {
        name: tables.difference(found, rows[DEFAULT][ratio], rows[name][ratio])
        for name in tables.CONTROLS
        if ratio in rows.get(name, {})
    }
    known = {name: p for name, p in parts.items() if p is not None}
    trusted = {name: p for name, p in known.items() if p[3] >= 3} or known
    name = min(trusted, key=lambda n: trusted[n][0], default="")
    return trusted.get(name), name


def rows_of(found: dict[str, Any], recovery: str) -> dict[str, dict[float, tables.Cells]]:
    """Cells of one recovery under uniform allocation."""
    return tables.grid(found).get((recovery, "uniform"), {})


def latency(net: str) -> str:
    """p50 and p90 of the shapes at every share of the MACs."""
    found = _read(f"bakeoff/{net}").get("latency")
    if not found:
        return "Not measured yet."
    lines = [_row(["share of the MACs", "p50, ms", "p90, ms"]), _row(["---"] * 3)]
    for name, row in found["rows"].items():
        p50, p90 = row["p50_ms"], row["p90_ms"]
        lines.append(
            _row([name, f"{p50['value']:.3f} [{p50['low']:.3f}, {p50['high']:.3f}]", f"{p90['value']:.3f}"])
        )
    return "\n".join(lines)


def article() -> str:
    """The article's experiment: means ± sd over seeds."""
    found = _read("article")
    lines = [
        _row(
            [
                "row",
                "loss, first → last epoch",
                "train %",
                "test %",
                "pruned",
                "CPU s",
                "of it scoring",
                "seeds",
            ]
        ),
        _row(["---"] * 8),
        _row(
            ["the article", "0.696 → 0.348", "90 → 92.00", "not given", "10", "1000 → 800", "", "not given"]
        ),
    ]
    for row, seeds in found["rows"].items():
        cells = list(seeds.values())

        def spread(name: str, cells: list[Any] = cells) -> str:
            values = [c[name] for c in cells]
            sd = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            return f"{np.mean(values):.2f}{sd}"

        first, last = (np.mean([c["loss"][i] for c in cells]) for i in (0, -1))
        lines.append(
            _row(
                [
                    row, f"{first:.3f} → {last:.3f}", spread("train"), spread("test"),
                    str(cells[0]["pruned"]), spread("cpu_seconds"), spread("scoring_seconds"),
                    str(len(cells)),
                ]
            )
        )  # fmt: skip
    return "\n".join(lines)


def shapes(net: str) -> str:
    """Inputs and widths that stay at each size."""
    found = _read(f"bakeoff/{net}").get("shapes", {})
    return "; ".join(f"{r}: {'-'.join(map(str, s))}-10" for r, s in found.items()) or "Not measured yet."


def stability() -> str:
    """Agreement of rankings between resamples."""
    found = _read("ranking")
    sizes = list(next(iter(found["stability"].values())))
    lines = [_row(["criterion", *(f"{s} samples" for s in sizes)]), _row(["---"] * (1 + len(sizes)))]
    for name, row in found["stability"].items():
        cells = [f"{row[s]['spearman']:.2f} ({row[s]['kept_half']:.2f})" for s in sizes]
        lines.append(_row([f"`{name}`", *cells]))
    return "\n".join(lines)


def truth() -> str:
    """Correlation of scores with single-channel ablation."""
    rows = _read("ranking")["truth"]
    lines = [_row(["criterion", "alone", "absorbed"]), _row(["---"] * 3)]
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["absorbed"]):
        lines.append(_row([name, f"{row['alone']:.2f}", f"{row['absorbed']:.2f}"]))
    return "\n".join(lines)


TABLES = {f.__name__: f for f in (grid, against, goals, latency, article, shapes, stability, truth)}


def filled(text: str) -> str:
    """The text with every block made anew; a block whose results are missing says so."""

    def make(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        try:
            table = TABLES[name](*arguments)  # type: ignore[operator]
        except (FileNotFoundError, KeyError) as error:
            table = f"Not measured yet ({error})."
        return f"{match[1]}{table}\n{match[3]}"

    return MARK.sub(make, text)


def _read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(path.name)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _met(fine: bool) -> str:
    return "yes" if fine else "no"


def main() -> None:
    """Fill the docs and draw the plots that they show."""
    for name in DOCS:
        path = ROOT / name
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(filled(path.read_text()))
        os.replace(partial, path)
    tables.plot(_read("bakeoff/fashion_resnet"), ROOT / "docs" / "criteria.png", skip=("none",))


if __name__ == "__main__":
    main()
