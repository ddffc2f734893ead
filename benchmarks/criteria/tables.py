"""Tables and plots of the bake-off's cells, and the bootstrap of paired differences."""

from __future__ import annotations

import base64
import zlib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CONTROLS = ("random", "l2", "taylor", "fpgm", "tp-l2", "tp-taylor", "tp-bn-scale")
RESAMPLES = 2000
MARKERS = "osv^D<>Pp*hXd8"
Cells = dict[int, dict[str, Any]]  # seed -> cell
FloatArray = npt.NDArray[np.float32]


def packed(flags: np.ndarray) -> str:
    """Booleans as text: bits, deflated, base64."""
    return base64.b64encode(zlib.compress(np.packbits(flags).tobytes(), 9)).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """What `packed` was given."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(raw, count=count).astype(bool)


def grid(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[float, Cells]]]:
    """(recovery, allocation) -> criterion -> share of MACs -> seed -> cell."""
    made: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for key, cell in found["cells"].items():
        criterion, ratio, seed, recovery, allocation = key.split("|")
        made[recovery, allocation][criterion][float(ratio)][int(seed)] = cell
    return {k: {c: dict(r) for c, r in v.items()} for k, v in made.items()}


def summary_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per criterion, share, recovery and allocation (or variant and recovery): means over seeds."""
    rows = [
        {
            "recovery": recovery,
            "allocation": allocation,
            "criterion": criterion,
            "share": ratio,
            **_summary(cells),
        }
        for (recovery, allocation), criteria in sorted(grid(found).items())
        for criterion, ratios in sorted(criteria.items())
        for ratio, cells in sorted(ratios.items(), reverse=True)
    ]
    for name, recoveries in found.get("variants", {}).items():
        rows += [
            {"recovery": recovery, "variant": name, **_summary({int(s): c for s, c in cells.items()})}
            for recovery, cells in recoveries.items()
            if cells
        ]
    return rows


def _summary(cells: Cells) -> dict[str, Any]:
    """Of one removal over its seeds; accuracy and drop in percent, processor seconds of all steps, median."""
    sd = spread(cells)
    return {
        "seeds": sorted(cells),
        "accuracy": round(mean(cells), 4),
        "sd": None if sd is None else round(sd, 4),
        "drop": round(float(np.mean([c["drop"] for c in cells.values()])), 4),
        "macs": round(float(np.mean([c["macs"] for c in cells.values()])), 6),
        "cpu_seconds": round(float(np.median([sum(c["cpu_seconds"].values()) for c in cells.values()])), 2),
    }


def difference(found: dict[str, Any], ours: Cells, theirs: Cells) -> tuple[float, float, float, int] | None:
    """Paired difference of accuracy in points with its 95% interval and the number of seeds.

    Seeds and test samples are both drawn again (percentile bootstrap); only seeds that both have count.
    """
    both = sorted({*ours} & {*theirs})
    if not both:
        return None
    count = found["settings"]["test_samples"]
    dense = unpacked(found["dense_right"], count)
    gain = np.stack(
        [
            (unpacked(ours[s]["differs"], count) ^ dense).astype(np.float32)
            - (unpacked(theirs[s]["differs"], count) ^ dense)
            for s in both
        ]
    )
    seeds, samples = draws(len(both), count)
    means = (seeds * (samples @ gain.T)).sum(1) / (len(both) * count)
    low, high = 100 * np.percentile(means, [2.5, 97.5])
    return 100 * float(gain.mean()), float(low), float(high), len(both)


@cache
def draws(seeds: int, count: int) -> tuple[FloatArray, FloatArray]:
    """How often each resample holds a seed, (RESAMPLES, seeds), and a test sample, (RESAMPLES, count)."""
    rng = np.random.default_rng(0)
    chosen = np.zeros((RESAMPLES, seeds), np.float32), np.zeros((RESAMPLES, count), np.float32)
    for row in range(RESAMPLES):
        for weights in chosen:
            size = weights.shape[1]
            weights[row] = np.bincount(rng.integers(size, size=size), minlength=size)
    return chosen


def mean(cells: Cells) -> float:
    """Mean accuracy over seeds."""
    return float(np.mean([c["accuracy"] for c in cells.values()]))


def spread(cells: Cells) -> float | None:
    """Sample standard deviation of the accuracy over seeds; None for one seed."""
    return float(np.std([c["accuracy"] for c in cells.values()], ddof=1)) if len(cells) > 1 else None


def text_of(cells: Cells | None, best: float) -> str:
    """Mean ± sd, the best of a column marked."""
    if not cells:
        return ""
    sd = spread(cells)
    return f"{mean(cells):.2f}{'' if sd is None else f'±{sd:.2f}'}{'*' if mean(cells) >= best else ' '}"


def order(rows: dict[str, dict[float, Cells]], ratios: list[float]) -> list[str]:
    """Criteria by mean accuracy over the sizes that all of them have, best first."""
    shared = [r for r in ratios if all(r in row for row in rows.values())] or ratios
    return sorted(
        rows, key=lambda c: -float(np.mean([mean(rows[c][r]) for r in shared if r in rows[c]] or 0))
    )


def table(found: dict[str, Any], default: str = "ib-gauss") -> str:
    """Mean ± sd over seeds, best column entry marked, then the default's paired differences."""
    lines = [f"{found.get('net', '?')}: dense {found.get('dense', float('nan')):.2f}"]
    for (recovery, allocation), rows in sorted(grid(found).items()):
        ratios = sorted({r for row in rows.values() for r in row}, reverse=True)
        lines += ["", f"{recovery}, {allocation} allocation; accuracy at a share of the MACs"]
        lines.append("criterion    " + "".join(f"{r:>16.3f}" for r in ratios))
        best = {r: max(mean(row[r]) for row in rows.values() if r in row) for r in ratios}
        for criterion in order(rows, ratios):
            cells = [text_of(rows[criterion].get(r), best[r]) for r in ratios]
            lines.append(f"{criterion:13}" + "".join(f"{c:>16}" for c in cells))
        for control in rows:
            if control == default or default not in rows or recovery == "none":
                continue
            parts = [difference(found, rows[default].get(r, {}), rows[control].get(r, {})) for r in ratios]
            texts = [f"{p[0]:+.2f}[{p[1]:+.2f},{p[2]:+.2f}]" if p else "" for p in parts]
            lines.append(f"  −{control:11}" + "".join(f"{t:>20}" for t in texts))
    return "\n".join(lines)


def plot(found: dict[str, Any], path: Path, skip: tuple[str, ...] = ()) -> None:
    """Accuracy against the share of MACs, one panel per recovery; nothing without matplotlib.

    Criteria have one colour and marker in all panels, controls broken lines. `scratch` is left to the tables:
    it would press everybody else into one line.
    """
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (k, {c: row for c, row in rows.items() if c != "scratch"})
        for k, rows in sorted(grid(found).items())
        if k[0] not in skip and len(rows) > 2
    ]
    if not panels:
        return
    names = sorted({c for _, rows in panels for c in rows})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(7 * len(panels), 5.5), squeeze=False)
    for axis, ((recovery, allocation), rows) in zip(axes[0], panels, strict=True):
        ratios = sorted({r for row in rows.values() for r in row})
        for criterion in order(rows, ratios):
            row, number = rows[criterion], names.index(criterion)
            at = sorted(row)
            axis.errorbar(
                at, [mean(row[r]) for r in at], [spread(row[r]) or 0.0 for r in at], label=criterion,
                linestyle="--" if criterion in CONTROLS else "-", marker=MARKERS[number % len(MARKERS)],
                color=pyplot.get_cmap("tab20")(number % 20), capsize=2, markersize=4,
                linewidth=2.5 if criterion == "ib-gauss" else 1.2,
            )  # fmt: skip
        axis.axhline(found["dense"], color="grey", linewidth=0.8)
        axis.set(title=f"{recovery}, {allocation}", xlabel="share of the MACs", ylabel="test accuracy, %")
        axis.legend(fontsize=8, title="best first", title_fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
