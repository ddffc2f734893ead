"""Predicted against measured milliseconds of whole pruned models that the profile has not seen.

    python -m benchmarks.latency.prediction --net mobilenet_v2     profile, export, measure, compare
    python -m benchmarks.latency.prediction --table                every network's row

A profile is measured (120 sets of widths). Thirty random plans, with keep shares drawn per group and not
aligned to any block, are cut, exported by torch.onnx and timed warm in rounds interleaved with the dense
file. The measured time is the ratio of medians times the dense p50. The prediction uses nothing measured on
these plans. Every step is kept in --work, so that an interrupted run resumes. Results:
results/latency_prediction.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.recording import ROOT, known_rows, record
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import Trace, reexport, trace
from edgeprune.latency import Profile, latency_cost, profile_model, read_profile
from edgeprune.latency.measuring import TIMER
from edgeprune.latency.resizing import keep_shares
from edgeprune.measure.host import RUNNER, read_answer
from edgeprune.measure.timings import block_bootstrap
from edgeprune.store import write_json
from edgeprune.surgery.cut import cut
from edgeprune.targets import load_target
from examples import nets

PLANS, TOGETHER = 30, 5


def network(name: str) -> tuple[Trace, Couplings]:
    """The network with random weights, or those of the examples' checkpoint where there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checkpoint = ROOT / "examples" / "checkpoints" / f"{name}.safetensors"
    if hasattr(nets, name):
        model, x = getattr(nets, name)(), torch.randn(2, 1, 28, 28)
        if checkpoint.exists():
            model.load_state_dict(load_file(checkpoint))
    else:
        import torchvision  # type: ignore[import-untyped]

        model, x = getattr(torchvision.models, name)(weights=None), torch.randn(2, 3, 224, 224)
    traced = trace(model.eval(), (x,))
    return traced, analyse(traced)


def random_plans(couplings: Couplings, count: int, seed: int) -> list[BoolArray]:
    """Keep shares drawn per group around a level drawn per plan; widths as they fall."""
    rng = np.random.default_rng(seed)
    groups = len(couplings.group_names)
    levels = rng.uniform(0.25, 0.95, count)
    return [
        keep_shares(couplings, np.clip(rng.uniform(0.6, 1.4, groups) * level, 0.1, 1.0)) for level in levels
    ]


def profiled(
    name: str, traced: Trace, couplings: Couplings, work: Path, networks: int, seconds: float
) -> Profile:
    def tell(done: int, total: int) -> None:
        print(f"{name}: profile {done}/{total}", file=sys.stderr, flush=True)

    path = work / "profile.json"
    return profile_model(
        traced, couplings, target=load_target("host"), path=path, networks=networks, seconds=seconds,
        name=name, progress=tell,
    )  # fmt: skip


def exported(traced: Trace, couplings: Couplings, plans: list[BoolArray], work: Path) -> list[Path]:
    """The dense file, then one of each plan; existing files are kept."""
    paths = [work / "dense.onnx", *(work / f"plan{n}.onnx" for n in range(len(plans)))]
    for path, removed in zip(paths, [None, *plans], strict=True):
        if not path.exists():
            small = traced if removed is None else cut(traced, couplings, removed)
            export_onnx(reexport(small.graph, small.inputs, small.dynamic), path)
    return paths


def measured(paths: list[Path], work: Path, seconds: float) -> list[dict[str, Any]]:
    """Each plan's paired ratio to the dense file, a few plans at a time, as they come."""
    file = work / "measured.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    while len(rows) < len(paths) - 1:
        part = paths[1 + len(rows) : 1 + len(rows) + TOGETHER]
        times = warm_times([paths[0], *part], seconds * len(part))
        dense = block_bootstrap(times[0], lambda v: np.median(v, axis=-1), 0)
        for taken in times[1:]:
            own = block_bootstrap(taken, lambda v: np.median(v, axis=-1), 0)
            interval = [own.value / dense.value, own.low / dense.high, own.high / dense.low]
            rows.append({"ratio": interval, "dense_ms": dense.value})
        write_json(file, rows)
    return rows


def warm_times(paths: list[Path], seconds: float) -> list[np.ndarray[Any, Any]]:
    """Milliseconds of whole runs without the profiler, in turns that begin with an uncounted run."""
    command = [sys.executable, "-P", str(TIMER), f"--runner={RUNNER}", f"--seconds={seconds}"]
    command += [f"--together={len(paths)}", "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    (files,) = read_answer(done.stdout, done.returncode, done.stderr, "layers")["parts"]
    return [np.asarray(file["wall_ns"], dtype=np.float64) / 1e6 for file in files]


def compare(name: str, work: Path, networks: int, seconds: float, step: str) -> dict[str, Any] | None:
    """Do what is missing and give the network's row."""
    traced, couplings = network(name)
    plans = random_plans(couplings, PLANS, seed=2026)
    paths = exported(traced, couplings, plans, work)
    if step == "export":
        return None
    began = time.monotonic()
    profile = profiled(name, traced, couplings, work, networks, seconds)
    profile_seconds = time.monotonic() - began
    rows = measured(paths, work, 1.0)
    cost = latency_cost(read_profile(work / "profile.json"), traced, couplings)
    dense = float(np.median([row["dense_ms"] for row in rows]))
    wanted = np.array([row["ratio"][0] for row in rows]) * dense
    predicted = np.array([cost(plan) for plan in plans]) * dense / cost.dense
    macs = np.array([couplings.macs(plan) for plan in plans]) / couplings.macs() * dense
    errors, by_macs = np.abs(predicted / wanted - 1), np.abs(macs / wanted - 1)
    for n in np.argsort(-errors)[:5]:
        print(f"  plan {n}: measured {wanted[n]:.3f} ms, predicted {predicted[n]:.3f}", file=sys.stderr)
    return {
        "network": name,
        "dense_ms": dense,
        "plans": len(rows),
        "networks_profiled": len(profile.wholes),
        "profile_seconds": profile_seconds,
        "median_error": float(np.median(errors)),
        "p90_error": float(np.quantile(errors, 0.9)),
        "worst_error": float(errors.max()),
        "median_error_of_macs": float(np.median(by_macs)),
        "spearman": float(_ranks(predicted) @ _ranks(wanted)),
        "measured_ms": wanted.tolist(),
        "predicted_ms": predicted.tolist(),
        "machine": profile.machine,
        "warnings": list(profile.warnings),
    }


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    ranks -= ranks.mean()
    unit: np.ndarray[Any, Any] = ranks / np.linalg.norm(ranks)
    return unit


def readable(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows without the milliseconds of every plan."""
    return [
        {k: v for k, v in row.items() if k not in ("measured_ms", "predicted_ms")} for row in rows.values()
    ]


def table(rows: dict[str, Any]) -> str:
    """Markdown, one row a network."""
    lines = [
        "| network | dense ms | plans | median error | p90 | worst | median of MACs | rank correlation |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        errors = [
            f"{row[key]:.1%}" for key in ("median_error", "p90_error", "worst_error", "median_error_of_macs")
        ]
        cells = [name, f"{row['dense_ms']:.3g}", str(row["plans"]), *errors, f"{row['spearman']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency.prediction",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--net")
    parser.add_argument("--networks", type=int, default=120, help="sets of widths in the profile")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the profile's runs")
    parser.add_argument("--step", choices=("export", "all"), default="all")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "latency-prediction")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows: dict[str, Any] = known_rows("latency_prediction", "cells") or {}
    if args.net:
        work = args.work / args.net
        work.mkdir(parents=True, exist_ok=True)
        row = compare(args.net, work, args.networks, args.seconds, args.step)
        if row is not None:
            rows[args.net] = row
            record("latency_prediction", readable(rows), cells=rows)
            print(table({args.net: row}))
    if args.table:
        print(table(rows))


if __name__ == "__main__":
    main()
