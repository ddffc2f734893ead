"""Tables of docs/bounds.md and the plot beside it, from the rows of results/bounds.json."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
DOCS = Path(__file__).parents[2] / "docs"
MARK = re.compile(r"(<!-- bounds: (\w+) -->\n).*?(<!-- end -->)", re.S)
PROVEN = {
    "0/1": ("coverage",),
    "bounded": ("coverage",),
    "groups": ("coverage_betting",),
    "search": ("coverage",),
}


def below_nominal(rows: Rows) -> Rows:
    """Rows in which a proven bound covers less than nominal by over four Monte Carlo errors.

    With some 150 simulated rows, one beyond three is expected by chance in every third run.
    """
    return [
        row
        for row in rows
        for column in PROVEN.get(row["kind"], ())
        if row[column] < row["nominal"] - 4 * row["monte_carlo_error"] - 1e-9
    ]


def write(rows: Rows) -> None:
    """Fill the marks of docs/bounds.md and draw docs/bounds.png; without matplotlib the plot stays."""
    path = DOCS / "bounds.md"
    path.write_text(MARK.sub(lambda m: m[1] + TABLES[m[2]](rows) + m[3], path.read_text()))
    try:
        import matplotlib
    except ImportError:
        print("docs/bounds.png is not drawn: matplotlib is missing")
        return
    matplotlib.use("Agg")
    _plot(rows)


def zero_one(rows: Rows) -> str:
    """Lowest coverage over the shares of losses, exact and as it was; margins at pure loss."""
    own = [r for r in rows if r["kind"] == "0/1"]
    samples = sorted({r["samples"] for r in own})
    lines = []
    for psi in sorted({r["discordance"] for r in own}):
        cells = []
        for n in samples:
            here = [r for r in own if r["samples"] == n and r["discordance"] == psi]
            now, before = (min(r[c] for r in here) for c in ("coverage", "coverage_before"))
            cells.append(f"{now:.3f} / {before:.3f}")
        lines.append([f"{100 * psi:g}%", *cells])
    return _markdown(["samples differ", *(f"n = {n}" for n in samples)], lines)


def margins(rows: Rows) -> str:
    """How far the bound lies above the estimate, in points, where half as many are won as lost."""
    own = [r for r in rows if r["kind"] == "0/1"]
    samples = sorted({r["samples"] for r in own})
    lines = []
    for psi in sorted({r["discordance"] for r in own}):
        here = [
            max((r for r in own if (r["samples"], r["discordance"]) == (n, psi)), key=lambda r: r["loss"])
            for n in samples
        ]
        lines.append([f"{100 * psi:g}%", *(f"{r['margin']:.2f} / {r['margin_before']:.2f}" for r in here)])
    return _markdown(["samples differ, all losses", *(f"n = {n}" for n in samples)], lines)


def bounded(rows: Rows) -> str:
    """Coverage and mean margin: betting, as it was, empirical Bernstein."""
    return _by_case(
        [r for r in rows if r["kind"] == "bounded"],
        lambda r: " / ".join(
            f"{r[f'coverage{t}']:.3f} ({r[f'margin{t}']:.2f})" for t in ("", "_before", "_bernstein")
        ),
    )


def groups(rows: Rows) -> str:
    """Coverage: Student's t over groups, betting over groups, as it was."""
    return _by_case(
        [r for r in rows if r["kind"] == "groups"],
        lambda r: " / ".join(f"{r[f'coverage{t}']:.3f}" for t in ("", "_betting", "_before")),
        "groups",
    )


def approximate(rows: Rows) -> str:
    """Coverage and mean margin above the truth of what has no proven bound."""
    return _by_case(
        [r for r in rows if r["kind"] in ("errors", "sets")],
        lambda r: f"{r['coverage']:.3f} ({r['margin']:.1f})",
    )


def search(rows: Rows) -> str:
    """Share of searches that accept no bad network, now and as it was; the lower of both dependences."""
    return _by_case(_worst(rows), lambda r: f"{r['coverage']:.3f} / {r['coverage_before']:.3f}")


def designs(rows: Rows) -> str:
    """Mean share that the search ends at if the loss grows, and the lowest coverage, by design."""
    own = [r for r in rows if r["kind"] == "search" and r["case"] == "loss grows with what is removed"]
    names = {
        "": "places share the reserve",
        "_ordered": "`ordered`",
        "_no_retries": "no retries",
        "_before": "as it was",
    }
    lines = []
    for tail, name in names.items():
        cells = [
            np.mean([r[f"share{tail}"] for r in own if r["samples"] == n])
            for n in sorted({r["samples"] for r in own})
        ]
        worst = min(r[f"coverage{tail}"] for r in rows if r["kind"] == "search")
        lines.append([name, f"{worst:.3f}", *(f"{x:.3f}" for x in cells)])
    return _markdown(
        ["design", "lowest coverage", *(f"n = {n}" for n in sorted({r["samples"] for r in own}))], lines
    )


TABLES = {
    "zero_one": zero_one, "margins": margins, "bounded": bounded, "groups": groups,
    "approximate": approximate, "search": search, "designs": designs,
}  # fmt: skip


def _worst(rows: Rows) -> Rows:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for r in (r for r in rows if r["kind"] == "search"):
        key = (r["case"], r["samples"])
        known = found.setdefault(key, dict(r))
        for column in (c for c in r if c.startswith("coverage")):
            known[column] = min(known[column], r[column])
    return list(found.values())


def _by_case(rows: Rows, cell: Any, unit: str = "n") -> str:
    samples = sorted({r["samples"] for r in rows})
    lines = []
    for case in dict.fromkeys(r["case"] for r in rows):
        here = {r["samples"]: r for r in rows if r["case"] == case}
        lines.append([case, *(cell(here[n]) if n in here else "" for n in samples)])
    return _markdown(["case", *(f"{unit} = {n}" for n in samples)], lines)


def _markdown(columns: list[str], lines: Iterable[list[str]]) -> str:
    body = [columns, ["---"] * len(columns), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in body)


def _plot(rows: Rows) -> None:
    """Coverage of every row, now and as it was, one panel per kind."""
    from matplotlib import pyplot

    panels = (
        ("0/1", "0/1 scores, exact", "coverage", rows),
        ("bounded", "bounded scores, betting", "coverage", rows),
        ("groups", "groups, betting", "coverage_betting", rows),
        ("search", "complete search", "coverage", rows),
    )
    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.8), sharey=True, layout="constrained")
    for ax, (kind, title, column, source) in zip(axes, panels, strict=True):
        own = [r for r in source if r["kind"] == kind]
        ticks = sorted({r["samples"] for r in own})
        for shift, name, colour, marker, label in (
            (-0.15, "coverage_before", "tab:red", "x", "normal bound, until 0.1"),
            (0.15, column, "tab:blue", "o", "now"),
        ):
            x = [ticks.index(r["samples"]) + shift for r in own]
            ax.scatter(x, [r[name] for r in own], s=16, c=colour, marker=marker, alpha=0.6, lw=1, label=label)
        ax.axhline(0.9, color="black", lw=0.8, ls="--")
        ax.set_xticks(range(len(ticks)), [f"{n:,}" for n in ticks])
        ax.set_xlabel("groups" if kind == "groups" else "samples")
        ax.set_title(title, fontsize=10)
        ax.set_ylim(0, 1.03)
    axes[0].set_ylabel("coverage of the one-sided 90% bound")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(DOCS / "bounds.png", dpi=110)
    pyplot.close(figure)
