"""Write the measured tables into docs/*.md between their marks, so that no number is typed by hand.

    python -m benchmarks.pages.fill
    python -m benchmarks.pages.fill --check    # write nothing; fail where a page differs from the results

A block `<!-- measured: NAME ARGUMENTS -->` … `<!-- end -->` is replaced by the table of that name,
generated from benchmarks/results. Text outside the marks is unchanged.
Elsewhere: tables from results other than the grids of the bake-off (blocks), docs/coverage.md
(coverage.page).
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.criteria import tables
from benchmarks.pages import blocks
from benchmarks.pages.blocks import accurate, markdown, paired, read
from benchmarks.recording import ROOT

DOCS = ("docs/criteria.md", "docs/method.md", "docs/accuracy.md", "docs/realtime.md", "docs/tasks.md")
MARK = re.compile(r"(<!-- measured: (.*?) -->\n).*?(<!-- end -->)", re.S)
DEFAULT = "ib-gauss"
NETS = ("fashion_resnet", "fashion_plain", "fashion_dw", "debian_text")


def grid(net: str, recovery: str, allocation: str = "uniform") -> str:
    """Accuracy ± sd per criterion and share of the MACs, with the number of seeds where it is not one."""
    found = read(f"bakeoff/{net}")
    cells = tables.grid(found)[recovery, allocation]
    ratios = sorted({r for of in cells.values() for r in of}, reverse=True)
    if allocation == "uniform":
        refuse_unequal(net, cells, ratios)
    best = {r: max(tables.mean(of[r]) for of in cells.values() if r in of) for r in ratios}
    rows = [
        [f"`{name}`", *(accurate(cells[name].get(r), best[r]) for r in ratios)]
        for name in tables.order(cells, ratios)
    ]
    return f"Dense: {found['dense']:.2f}%.\n\n" + markdown(["criterion", *(f"{r:.3g}" for r in ratios)], rows)


def refuse_unequal(net: str, rows: dict[str, dict[float, tables.Cells]], ratios: list[float]) -> None:
    """Raise SystemExit where cells of a column keep different shares of the MACs: they compare nothing."""
    for ratio in ratios:
        kept = {cell["macs"] for row in rows.values() for cell in row.get(ratio, {}).values()}
        if len(kept) > 1 or max(kept) > ratio + 1e-3:
            raise SystemExit(f"{net} at {ratio}: cells keep {sorted(kept)} of the MACs")


def against(net: str, recovery: str, allocation: str = "uniform") -> str:
    """The default's paired differences with bootstrap intervals."""
    found = read(f"bakeoff/{net}")
    cells = tables.grid(found)[recovery, allocation]
    ratios = sorted(cells[DEFAULT], reverse=True)
    rows = [
        [
            f"`{name}`",
            *(paired(tables.difference(found, cells[DEFAULT][r], cells[name].get(r, {}))) for r in ratios),
        ]
        for name in tables.order(cells, ratios)
        if name != DEFAULT
    ]
    return markdown([f"`{DEFAULT}` minus", *(f"{r:.3g}" for r in ratios)], rows)


def shared_out(net: str, recovery: str) -> str:
    """What sensitivity allocation gains over uniform: paired differences of the same criterion."""
    found = read(f"bakeoff/{net}")
    both = tables.grid(found)
    ours, theirs = both[recovery, "sensitivity"], both[recovery, "uniform"]
    ratios = sorted({r for of in ours.values() for r in of}, reverse=True)
    rows = [
        [
            f"`{name}`",
            *(
                paired(tables.difference(found, ours[name].get(r, {}), theirs[name].get(r, {})))
                for r in ratios
            ),
        ]
        for name in tables.order(ours, ratios)
    ]
    return markdown(["sensitivity minus uniform", *(f"{r:.3g}" for r in ratios)], rows)


def seconds() -> str:
    """Processor seconds of each step, median and largest over all sizes and seeds."""
    rows = []
    for net in NETS:
        keys = {k: c["cpu_seconds"] for k, c in read(f"bakeoff/{net}")["cells"].items()}
        mine = [s for k, s in keys.items() if k.startswith(f"{DEFAULT}|") and "|compensate|" in k]
        tuned = [s["finetune"] for k, s in keys.items() if "|finetune|" in k]
        steps = [[s[step] for s in mine] for step in ("capture", "score", "recover")]
        rows.append([net, *(f"{np.median(s):.1f}, {max(s):.1f}" for s in [*steps, tuned])])
    columns = ["network", "statistics", f"scoring, `{DEFAULT}`", "compensation", "fine-tune, any criterion"]
    return markdown(columns, rows)


def goals(net: str) -> str:
    """The goals of the bake-off against what was measured, compensation alone."""
    found = read(f"bakeoff/{net}")
    cells = tables.grid(found)["compensate", "uniform"]
    rows = []
    for ratio, limit in ((0.5, 1.0), (0.333, 3.0)):
        mine = cells[DEFAULT][ratio]
        drop = found["dense"] - tables.mean(mine)
        slowest = max(sum(c["cpu_seconds"].values()) for c in mine.values())
        rows.append(
            [
                f"at {1 / ratio:.0f}× fewer MACs lose at most {limit:g} points, in under 60 s",
                f"{drop:.2f} points, {len(mine)} seed(s); at most {slowest:.0f} s of processor time",
                _met(drop <= limit and slowest < 60),
            ]
        )
    ours, chance = cells[DEFAULT][0.25], cells["random"][0.25]
    both = sorted({*ours} & {*chance})
    lost = [(found["dense"] - ours[s]["accuracy"], found["dense"] - chance[s]["accuracy"]) for s in both]
    shares = [1 - a / b for a, b in lost]
    rows.append(
        [
            "at 4× remove at least half of random's loss",
            f"{np.mean([a for a, _ in lost]):.2f} against {np.mean([b for _, b in lost]):.2f} points:"
            f" {100 * np.mean(shares):.0f}% gone, at least {100 * min(shares):.0f}%, {len(both)} seeds",
            _met(min(shares) >= 0.5 and len(both) >= 5),
        ]
    )
    tuned = tables.grid(found)["finetune", "uniform"]
    for ratio in sorted(tuned[DEFAULT], reverse=True):
        part, best = closest(found, tuned, ratio)
        if part is None:
            continue
        hard = ratio <= 0.25
        goal = "above zero by bootstrap" if hard else "at least −0.3 points"
        rows.append(
            [
                f"after equal fine-tuning at {ratio:.3g}, against the best control: {goal}",
                f"{part[0]:+.2f} [{part[1]:+.2f}, {part[2]:+.2f}] against `{best}`, {part[3]} seed(s)",
                _met(part[1] > 0 if hard else part[0] >= -0.3),
            ]
        )
    return markdown(["goal", "measured", "met"], rows)


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


TABLES: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (
        grid, against, shared_out, seconds, goals,
        blocks.accuracy, blocks.article, blocks.latency, blocks.realtime, blocks.scoring, blocks.shapes,
        blocks.shares, blocks.stability, blocks.tasks, blocks.theta, blocks.truth, blocks.variants,
    )
}  # fmt: skip


def filled(text: str) -> str:
    """The text with every block generated again; a block whose results are missing says so."""

    def make(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        table = TABLES[name]
        try:
            made = table(*arguments)
        except (FileNotFoundError, KeyError):
            made = "Not measured yet."
        return f"{match[1]}{made}\n{match[3]}"

    return MARK.sub(make, text)


def _met(fine: bool) -> str:
    return "yes" if fine else "no"


def main(arguments: list[str] | None = None) -> int:
    """Fill the docs and draw the plots that they show, or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages.fill", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; name the pages that differ")
    options = parser.parse_args(arguments)
    if options.check:
        differ = [name for name in DOCS if filled(text := (ROOT / name).read_text()) != text]
        print("\n".join(f"{name} differs from benchmarks/results" for name in differ))
        return 1 if differ else 0
    for name in DOCS:
        path = ROOT / name
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(filled(path.read_text()))
        os.replace(partial, path)
    tables.plot(read("bakeoff/fashion_resnet"), ROOT / "docs" / "criteria.png", skip=("none",))
    blocks.plot_article(ROOT / "docs" / "article.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
