"""Seconds for coupling and surgery, beside Torch-Pruning on the same machine in the same run.

    python -m benchmarks.coupling.speed                # every model, then the growth
    python -m benchmarks.coupling.speed resnet50       # one of them; the other rows are kept
    python -m benchmarks.coupling.speed growth
    python -m benchmarks.coupling.speed --table        # what is measured

Ours, after `torch.export`: functionalise the graph, couple, plan, cut. Torch-Pruning: the dependency graph
and one step of the pruner to the same share of channels, also at random. Both run on one thread in
interleaved rounds; the ratio is of medians, its interval is bootstrapped over rounds. Growth: the time of
coupling against the number of parameter indices, as the width doubles.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision

from benchmarks.recording import known_rows, record

LIMITS = {"resnet50": 1.5, "vit_b_16": 3.0}
SHARE = 0.3
STEPS = ("functional", "coupling", "plan", "surgery")


def ours(model: torch.nn.Module, program: torch.export.ExportedProgram) -> dict[str, float]:
    """Seconds per step; the program was exported before."""
    from edgeprune.coupling.analysis import analyse
    from edgeprune.graph.trace import trace
    from edgeprune.search.groups import uniform
    from edgeprune.surgery.cut import cut

    clock = [time.perf_counter()]
    traced = trace(program)
    clock.append(time.perf_counter())
    couplings = analyse(traced)
    clock.append(time.perf_counter())
    rank = np.random.default_rng(0).permutation(couplings.count)
    removed = uniform(couplings, rank, couplings.macs, (1 - SHARE) ** 2 * couplings.macs())
    clock.append(time.perf_counter())
    cut(traced, couplings, removed)
    clock.append(time.perf_counter())
    return dict(zip(STEPS, np.diff(clock).tolist(), strict=True))


def theirs(model: torch.nn.Module, inputs: torch.Tensor) -> float:
    """Seconds of Torch-Pruning's dependency graph and one pruning step, on a fresh model."""
    import torch_pruning as tp

    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1000]
    began = time.perf_counter()
    pruner = tp.pruner.MetaPruner(
        model, inputs, importance=tp.importance.RandomImportance(), pruning_ratio=SHARE, ignored_layers=head
    )
    pruner.step()
    return time.perf_counter() - began


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Both in interleaved rounds; the first round of each is not counted."""
    size = 224
    image = torch.randn(2, 3, size, size)
    rows: list[dict[str, float]] = []
    outside: list[float] = []
    exported: list[float] = []
    for turn in range(repeats + 1):
        model = torchvision.models.get_model(name, weights=None).eval()
        began = time.perf_counter()
        program = _export(model, image)
        lasted = time.perf_counter() - began
        row = ours(model, program)
        other = theirs(torchvision.models.get_model(name, weights=None).eval(), image[:1])
        if turn:
            rows.append(row)
            outside.append(other)
            exported.append(lasted)
    total = np.array([sum(r.values()) for r in rows])
    core = np.array([r["coupling"] + r["surgery"] for r in rows])
    low, high = interval(total, np.array(outside))
    return {
        "repeats": repeats,
        "export_seconds": round(float(np.median(exported)), 3),
        "seconds": {k: round(float(np.median([r[k] for r in rows])), 3) for k in STEPS},
        "beyond_export": round(float(np.median(total)), 3),
        "coupling_and_surgery": round(float(np.median(core)), 3),
        "limit": LIMITS[name],
        "within": bool(np.median(total) <= LIMITS[name]),
        "torch_pruning": round(float(np.median(outside)), 3),
        "ratio": round(float(np.median(total) / np.median(outside)), 3),
        "ratio_95": [low, high],
        "all_ours": [round(float(t), 3) for t in total],
        "all_theirs": [round(t, 3) for t in outside],
    }


def interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """95% of the ratio of medians, over 2,000 resamples of the turns."""
    rng = np.random.default_rng(0)
    pick = rng.integers(0, len(a), (2000, len(a)))
    ratios = np.median(a[pick], axis=1) / np.median(b[pick], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def growth(repeats: int) -> dict[str, Any]:
    """Coupling of a bottleneck residual network at width ×1, ×2, ×4, in turns."""
    from edgeprune.coupling.couple import couple
    from edgeprune.graph.trace import trace
    from edgeprune.surgery.cut import cut

    nets = {}
    for factor in (1, 2, 4):
        model = torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], width_per_group=64 * factor
        ).eval()
        nets[factor] = trace(_export(model, torch.randn(2, 3, 32, 32)))
    times: dict[int, list[float]] = {f: [] for f in nets}
    cuts: dict[int, list[float]] = {f: [] for f in nets}
    for turn in range(repeats + 1):
        for factor, traced in nets.items():
            found, began = None, time.perf_counter()
            found = couple(traced)
            middle = time.perf_counter()
            cut(traced, found, np.arange(found.count) % 2 == 1)
            if turn:
                times[factor].append(middle - began)
                cuts[factor].append(time.perf_counter() - middle)
    rows = []
    for factor, traced in nets.items():
        indices = sum(sum(p.shape) for p in traced.graph.parameters())
        rows.append(
            {
                "width": factor,
                "indices": indices,
                "parameters": sum(p.numel() for p in traced.graph.parameters()),
                "coupling": round(float(np.median(times[factor])), 4),
                "surgery": round(float(np.median(cuts[factor])), 4),
            }
        )
    slope = np.polyfit(np.log([r["indices"] for r in rows]), np.log([r["coupling"] for r in rows]), 1)[0]
    return {"rows": rows, "exponent": round(float(slope), 3), "at_most_linear": bool(slope <= 1.0)}


def _export(model: torch.nn.Module, image: torch.Tensor) -> torch.export.ExportedProgram:
    from edgeprune.graph.trace import export_program

    return export_program(model, (image,))


def write(name: str, row: dict[str, Any]) -> None:
    """Put a row beside those that are measured."""
    rows = {known["name"]: known for known in known_rows("coupling-speed")}
    rows[name] = {"name": name, **row}
    record("coupling-speed", list(rows.values()))


def show(name: str, row: dict[str, Any]) -> None:
    """Print a row."""
    if name == "growth":
        for r in row["rows"]:
            print(f"width ×{r['width']}: {r['indices']:7} indices, coupling {r['coupling']:.3f} s, "
                  f"surgery {r['surgery']:.3f} s")  # fmt: skip
        print(f"coupling grows with the power {row['exponent']} of the indices")
        return
    print(
        f"{name}: export {row['export_seconds']:.2f} s, beyond it {row['beyond_export']:.2f} s "
        f"(limit {row['limit']} s), Torch-Pruning {row['torch_pruning']:.2f} s, "
        f"ratio {row['ratio']:.2f} [{row['ratio_95'][0]:.2f}, {row['ratio_95'][1]:.2f}]"
    )


def main() -> int:
    """Measure what is asked for, write and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coupling.speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", default=[], help="resnet50, vit_b_16, growth (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    args = parser.parse_args()
    if args.table:
        for known in known_rows("coupling-speed"):
            show(known["name"], known)
        return 0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        name: (lambda name=name: compare(name, args.repeats)) for name in LIMITS
    }
    jobs["growth"] = lambda: growth(args.repeats)
    for name in args.rows or jobs:
        row = jobs[name]()
        write(name, row)
        show(name, row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
