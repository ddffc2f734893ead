"""Tables and plots of the bake-off's cells."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np


def grid(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[float, dict[int, float]]]]:
    """(recovery, allocation) -> criterion -> share of MACs -> seed -> accuracy."""
    made: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for key, cell in found["cells"].items():
        criterion, ratio, seed, recovery, allocation = key.split("|")
        made[recovery, allocation][criterion][float(ratio)][int(seed)] = cell["accuracy"]
    return {k: {c: dict(r) for c, r in v.items()} for k, v in made.items()}


def table(found: dict[str, Any]) -> str:
    """Mean ± sd over seeds in points of accuracy, best column entry marked, then paired differences."""
    lines = [f"{found.get('net', '?')}: dense {found.get('dense', float('nan')):.2f}"]
    for (recovery, allocation), rows in sorted(grid(found).items()):
        ratios = sorted({r for row in rows.values() for r in row}, reverse=True)
        lines += ["", f"{recovery}, {allocation} allocation; accuracy at a share of the MACs"]
        lines.append("criterion    " + "".join(f"{r:>16.3f}" for r in ratios))
        best = {r: max((_mean(row[r]) for row in rows.values() if r in row), default=0.0) for r in ratios}
        order = sorted(rows, key=lambda c: -sum(_mean(rows[c][r]) for r in ratios if r in rows[c]))
        for criterion in order:
            cells = [_cell(rows[criterion].get(r), best[r]) for r in ratios]
            lines.append(f"{criterion:13}" + "".join(f"{c:>16}" for c in cells))
        lines += _against(rows, ratios)
    return "\n".join(lines)


def _against(rows: dict[str, Any], ratios: list[float], default: str = "ib-gauss") -> list[str]:
    """The default's paired difference to every control, over the seeds that both have."""
    lines = []
    for control in ("random", "l2", "taylor", "fpgm"):
        cells = []
        for r in ratios:
            ours, theirs = (rows.get(c, {}).get(r, {}) for c in (default, control))
            both = sorted({*ours} & {*theirs})
            difference = [ours[s] - theirs[s] for s in both]
            cells.append(f"{np.mean(difference):+.2f} (n={len(both)})" if both else "")
        if any(cells):
            lines.append(f"  − {control:9}" + "".join(f"{c:>16}" for c in cells))
    return [f"{default}, paired difference", *lines] if lines else []


def _mean(cell: dict[int, float]) -> float:
    return float(np.mean(list(cell.values())))


def _cell(cell: dict[int, float] | None, best: float) -> str:
    if not cell:
        return ""
    values = list(cell.values())
    spread = f"±{np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}{'*' if _mean(cell) >= best else ' '}"


def plot(found: dict[str, Any], path: Path) -> None:
    """Accuracy against the share of MACs, one panel per recovery; nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted(grid(found).items())
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False)
    for axis, ((recovery, allocation), rows) in zip(axes[0], panels, strict=True):
        for criterion, row in sorted(rows.items()):
            ratios = sorted(row)
            means = [_mean(row[r]) for r in ratios]
            spread = [float(np.std(list(row[r].values()))) for r in ratios]
            style = "--" if criterion in ("random", "l2", "taylor", "fpgm") else "-"
            axis.errorbar(ratios, means, spread, label=criterion, linestyle=style, capsize=2)
        axis.axhline(found["dense"], color="grey", linewidth=0.8)
        axis.set(title=f"{recovery}, {allocation}", xlabel="share of the MACs", ylabel="test accuracy, %")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
