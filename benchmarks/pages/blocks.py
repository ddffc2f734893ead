"""Tables of the docs from results other than the grids of the bake-off: one function per table.

Each returns Markdown for the mark of its name; `pages.fill` writes it into the page. A result that is
missing is a FileNotFoundError.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.criteria import tables
from benchmarks.recording import RESULTS, read_result

PROTOTYPE = {  # accuracy without / with compensation at 70, 50, 30 and 20% of the channels, one seed
    "ib-gauss": ("89.7 / 92.3", "83.9 / 90.7", "51.2 / 85.4", "22.6 / 71.4"),
    "l2": ("86.8 / 91.7", "67.1 / 89.7", "33.5 / 79.5", "19.0 / 54.9"),
    "random": ("86.6 / 91.3", "78.7 / 87.8", "24.4 / 66.2", "11.2 / 45.3"),
    "taylor": ("90.2 / 92.4", "77.8 / 90.5", "24.9 / 81.5", "12.4 / 26.0"),
    "ib-jmi": ("88.3 / 90.8", "82.7 / 86.8", "56.6 / 73.3", "37.7 / 48.0"),
    "ib-edge": ("89.8 / 91.0", "73.6 / 80.5", "46.1 / 64.7", "38.0 / 44.1"),
}


def article() -> str:
    """The article's experiment: means ± sd over seeds."""
    columns = [
        "row", "loss, first → last epoch", "train %", "test %", "pruned", "CPU s", "of it scoring", "seeds",
    ]  # fmt: skip
    rows = [["the article", "0.696 → 0.348", "90 → 92.00", "not given", "10", "1000 → 800", "", "not given"]]
    for name, seeds in sorted(read("article")["cells"].items()):
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


def plot_article(path: Path) -> None:
    """Training loss by epoch of every row of the article's experiment, mean over seeds."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    for name, seeds in sorted(read("article")["cells"].items()):
        losses = np.array([cell["loss"] for cell in seeds.values()])
        axis.plot(range(1, losses.shape[1] + 1), losses.mean(0), label=name, marker="o", markersize=3)
    axis.set(xlabel="epoch", ylabel="training cross-entropy, nats", title="100-100-10 on Fashion-MNIST")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


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
    report = read("fashion")["cells"]["report"]
    runs = [{**report, "network": "fashion_resnet", "budget": "macs 3x"}, *read("accuracy")["cells"]]
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


def theta() -> str:
    """Accuracy at several thetas, and what each changes against none."""
    found = read("bakeoff/theta")
    cells = tables.grid(found)["compensate", "uniform"]
    ratios = sorted({r for of in cells.values() for r in of}, reverse=True)
    rows = []
    for name, of in sorted(cells.items(), key=lambda item: _named(item[0])):
        criterion, value = _named(name)
        none = cells[f"{criterion}@0"]
        changes = [
            paired(tables.difference(found, of[r], none[r])) if value and r in of else "" for r in ratios
        ]
        means = [accurate(of.get(r), 100.0) for r in ratios]
        rows.append([f"`{criterion}`", f"{value:g}", *means, *changes])
    columns = [f"at {r:.3g}" for r in ratios]
    return markdown(["criterion", "θ", *columns, *(f"{c}, minus θ = 0" for c in columns)], rows)


def shares() -> str:
    """Accuracy recalibrated / compensated by share of the channels, and in brackets the earlier figures."""
    found = read("bakeoff/shares")
    both = tables.grid(found)
    bare, compensated = both["recalibrate", "channels"], both["compensate", "channels"]
    ratios = sorted({r for of in compensated.values() for r in of}, reverse=True)
    rows = []
    for name in tables.order(compensated, ratios):
        cells = []
        for r, before in zip(ratios, PROTOTYPE[name], strict=True):
            seeds = len(compensated[name][r])
            ours = f"{tables.mean(bare[name][r]):.1f} / {tables.mean(compensated[name][r]):.1f}"
            cells.append(f"{ours} ({seeds}) [{before}]")
        rows.append([f"`{name}`", *cells])
    head = markdown(["criterion", *(f"{100 * r:.0f}% of the channels" for r in ratios)], rows)
    return f"Dense: {found['dense']:.2f}% [93.0%].\n\n{head}"


def scoring() -> str:
    """What every criterion estimates, and the processor seconds of one scoring per network."""
    found = read("scoring")
    nets = list(found["capture_seconds"])
    rows = []
    for row in found["rows"]:
        settings = ", ".join(
            f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in row["settings"].items()
        )
        samples = str(row["samples"]) if row["samples"] else "none"
        seconds = (f"{row['seconds'][net]:.2f}" for net in nets)
        rows.append([f"`{row['criterion']}`", row["estimator"], settings, row["unit"], samples, *seconds])
    rows.append(
        ["statistics, for all", "", "", "", "", *(f"{v:.2f}" for v in found["capture_seconds"].values())]
    )
    machine, versions = found["machine"], found["versions"]
    where = f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}"
    return f"{where}.\n\n" + markdown(["criterion", "estimator", "settings", "unit", "samples", *nets], rows)


def variants() -> str:
    """Other choices and fine-tunes at a quarter: accuracy, and the paired difference to the default."""
    found = read("bakeoff/variants")
    default = found["variants"]["`ib-gauss`"]
    rows = []
    for name, recoveries in found["variants"].items():
        cells = [name]
        for recovery in ("compensate", "finetune"):
            mine, base = (_by_seed(of[recovery]) for of in (recoveries, default))
            cells.append(accurate(mine, 100.0))
            same = mine is base or name == "`ib-gauss`" or not mine
            cells.append("" if same else paired(tables.difference(found, mine, base)))
        rows.append(cells)
    columns = ["choice", "compensated", "minus `ib-gauss`", "fine-tuned", "minus `ib-gauss`"]
    return markdown(columns, rows)


def _by_seed(cells: dict[str, Any]) -> tables.Cells:
    return {int(seed): cell for seed, cell in cells.items()}


def realtime() -> str:
    """Late answers of the sensor stream, dense and pruned, at each rate."""
    found = read("realtime")
    rows = []
    for run in found["rows"]:
        cells = [f"{run['streams']}", f"{run['rate_hz']}"]
        for name in ("dense", "pruned"):
            late = {key: 100 * run[name]["missed"][key] for key in ("value", "low", "high")}
            cells.append(f"{late['value']:.2f}% [{late['low']:.2f}, {late['high']:.2f}]")
            cells.append(f"{run[name]['worst_ms']:.1f}")
        rows.append([*cells, f"{run['load_average']:.1f}"])
    columns = ["streams", "inputs/s", "dense, late", "worst, ms", "pruned, late", "worst, ms", "load"]
    p50, ratio, machine = found["dense_p50_ms"], found["ratio"]["ratio"], found["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, one thread"
    share = f"pruned {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of it"
    return f"{where}; dense p50 {p50['value']:.3f} ms, {share}.\n\n{markdown(columns, rows)}"


def accurate(cells: tables.Cells | None, best: float) -> str:
    """Mean ± sd with the number of seeds; the best of a column in bold; empty where nothing was measured."""
    if not cells:
        return ""
    sd = tables.spread(cells)
    text = f"{tables.mean(cells):.2f}" + ("" if sd is None else f" ± {sd:.2f} ({len(cells)})")
    return f"**{text}**" if tables.mean(cells) >= best else text


def paired(part: tuple[float, float, float, int] | None) -> str:
    """A difference with its interval and the number of seeds."""
    return f"{part[0]:+.2f} [{part[1]:+.2f}, {part[2]:+.2f}] ({part[3]})" if part else ""


def tasks() -> str:
    """One trained network per task: what half of the MACs costs, with Torch-Pruning beside it."""
    columns = [
        "network",
        "measure",
        "dense",
        "shipped",
        "lost",
        "MACs",
        "p50",
        "Torch-Pruning lost",
        "its p50",
    ]
    rows = []
    for row in read("tasks")["rows"]:
        if "reason" in row:
            rows.append([f"`{row['network']}`", f"failed: {row['reason'][:80]}", *[""] * 7])
            continue
        beside = row["tp_lost"], row["tp_p50_ratio"]
        rows.append([
            f"`{row['network']}`", row["metric"], f"{row['dense']:.4g}", f"{row['shipped']:.4g}",
            f"{_interval(row['lost'])} {row['unit']}{' *' if row['missed'] else ''}", f"{row['macs']:.3f}",
            _interval(row["p50_ratio"]), *(_interval(value) if value else "not measured" for value in beside),
        ])  # fmt: skip
    return markdown(columns, rows)


def _interval(values: list[float]) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*values)


def read(name: str) -> dict[str, Any]:
    """A file of results.

    Raises:
        FileNotFoundError: it has not been measured.
    """
    return read_result(RESULTS / f"{name}.json")


def markdown(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _named(name: str) -> tuple[str, float]:
    criterion, value = name.split("@")
    return criterion, float(value)
