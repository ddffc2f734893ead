"""report.json: what happened, from records only. Elsewhere: removed.json (removals)."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from edgeprune.coupling.sizes import Sizes
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.trace import Trace
from edgeprune.pareto.estimates import machine_of, planned
from edgeprune.pareto.proof import Delivery
from edgeprune.pareto.select_artifact import Selection
from edgeprune.records import Interval, to_json
from edgeprune.report import SCHEMA
from edgeprune.report.budget_check import missed, nothing_removed, unmeasured
from edgeprune.search.costs import parameters, pinned, widths
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.options import Clock, Options
from edgeprune.surgery.recipe import kept_inputs
from edgeprune.tasks.bounds import share_interval

VERSIONS = ("edgeprune", "torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def report(
    loaded: LoadedModel,
    prepared: Prepared,
    choice: Selection,
    made: Delivery,
    options: Options,
    clock: Clock,
) -> dict[str, Any]:
    """The content of report.json."""
    target, final, tried = made.target, choice.final, choice.tried
    parity = made.shipped.parity
    assert parity is not None
    notes = list(prepared.notes)
    if not target.local:
        notes += _about_target(made, target.title)
    over = missed(final, made, options)
    notes += [f"over the budget: {text}" for text in over] + unmeasured(made, options)
    notes += nothing_removed(prepared, final, tried, options)
    if prepared.latency is not None:
        said = "planned by" if prepared.latency.basis == "measured" else "planned by an estimate:"
        notes += [f"{said} {prepared.latency.source}", *prepared.latency.notes]
    notes += made.notes
    notes += [text for text in (made.shipped.note, *made.bench.warnings) if text]
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {"name": Path(loaded.source).stem, "path": loaded.source, "sha256": loaded.sha256},
        "target": {"name": target.name, "title": target.title},
        "seed": options.seed,
        "versions": versions(),
        "machine": {**made.bench.machine, "system": platform.platform(), "cores": os.cpu_count()},
        "criterion": _criterion(tried, options),
        "budget": {k: v for k, v in to_json(options.budget).items() if v is not None},
        "accuracy": _accuracy(prepared, made),
        "macs": {"dense": round(prepared.couplings.macs()), "shipped": round(final.couplings.macs())},
        "params": {"dense": parameters(prepared.trace), "shipped": parameters(final.trace)},
        "file_bytes": {"dense": made.dense.bytes, "shipped": made.shipped.bytes},
        "parity": {
            "reference": "its 8-bit graph run unoptimised" if _in_8_bits(made) else "PyTorch",
            "max_abs": parity.max_abs,
            "top1_agreement": parity.top1_agreement,
            "atol": parity.atol,
            "samples": parity.samples,
            "output_spread": parity.output_spread,
        },
        "latency": _latency(made, timed_batch(prepared.trace, options, made.bench.batch)),
        "estimate": made.estimate,
        "timing": made.timing,
        "planned": planned(tried, made.front),
        "verified": to_json(made.verified),
        "layers": widths(prepared.couplings, final.removed),
        "inputs": kept_inputs(prepared.trace, Sizes(prepared.couplings, final.removed)),
        "pinned": pinned(prepared.couplings),
        "stages": clock.stages,
        "metrics": _metrics(prepared, made),
        "front": made.front,
        "rounds": [s.record for s in tried],
        "splits": None if prepared.splits is None else prepared.splits.to_json(),
        "bench": to_json(made.bench),
        "files": [
            {"name": "model.onnx", "bytes": made.shipped.bytes, "sha256": made.shipped.sha256},
            {"name": "dense.onnx", "bytes": made.dense.bytes, "sha256": made.dense.sha256},
            *made.beside,
        ],
        "notes": list(dict.fromkeys(notes)),
        "missed": over,
    }


def _in_8_bits(made: Delivery) -> bool:
    return any(row["chosen"] and row["int8"] for row in made.front)


def timed_batch(traced: Trace, options: Options, asked: int) -> int:
    """The batch that the files were timed at: their first input's where it is fixed, else as asked."""
    if options.fixed_batch is not None:
        return options.fixed_batch
    first = traced.inputs[0]
    return asked if traced.dynamic[0] or not first.dim() else len(first)


def _latency(made: Delivery, batch: int) -> dict[str, Any] | None:
    """Latency of both files where they were run; None where that was an emulator."""
    if not made.bench.ratios:
        return None
    ratio = made.bench.ratios[0].ratio
    dense, shipped = made.bench.models
    return {
        "basis": "measured",
        "where": machine_of(made.bench),
        "on_target": made.on_target,
        "threads": made.bench.threads,
        "batch": batch,
        "dense_p50_ms": dense.p50_ms.value if dense.p50_ms else None,
        "shipped_p50_ms": shipped.p50_ms.value if shipped.p50_ms else None,
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
    }


def _about_target(made: Delivery, title: str) -> list[str]:
    """What was and was not seen on the target itself."""
    notes = []
    if made.bench.emulated:
        notes.append(f"{made.bench.device} is an emulator: its times mean nothing and are not shown")
    elif made.bench.device is None:
        notes.append(f"latency was measured on this machine, not on {title}; --device measures there")
    if isinstance(made.verified, str):
        notes.append(made.verified)
    elif made.verified is not None:
        parity = made.verified.parity
        notes.append(
            f"checked on {made.verified.where}: differs from this machine by at most {parity.max_abs:.1e}"
        )
    return notes


def _criterion(tried: list[SearchState], options: Options) -> dict[str, Any]:
    record = tried[-1].record if tried else {}
    return {
        "name": options.criterion,
        "settings": {
            **record.get("settings", {}),
            "estimator": record.get("estimator", ""),
            "samples": record.get("samples", 0),
        },
    }


def _accuracy(prepared: Prepared, made: Delivery) -> dict[str, Any] | None:
    if prepared.dataset is None or prepared.splits is None:
        return None
    labels = prepared.dataset.labels
    wanted = None if labels is None else labels[prepared.splits.test]
    name = "agreement" if prepared.measure.metric is None else prepared.measure.name
    found: dict[str, Any] = {"measured_as": name, "samples": len(prepared.splits.test)}
    for step in ("dense", "pruned", "compensated", "shipped"):
        value, scores = prepared.measure.scores(made.test[step], made.test["dense"], wanted)
        found[step] = share_interval(scores) if scores is not None else Interval(value, value, value)
    found["drop"] = prepared.drop(made.test["shipped"], "test")
    return found


def _metrics(prepared: Prepared, made: Delivery) -> list[dict[str, Any]]:
    """Further metrics on the test split, and the first metric on further sets."""
    rows = []
    labels = None if prepared.dataset is None else prepared.dataset.labels
    if labels is not None and prepared.splits is not None:
        wanted = labels[prepared.splits.test]
        for metric in prepared.extra_metrics:
            before, after = (metric(made.test[k], wanted).value for k in ("dense", "shipped"))
            rows.append({"name": metric.name, "dense": before, "shipped": after})
    for name, other in prepared.evaluation.items():
        dense = prepared.dense[f"eval:{name}"]
        before, _ = prepared.measure.scores(dense, dense, other.labels)
        after, _ = prepared.measure.scores(made.evaluation[name], dense, other.labels)
        rows.append({"name": f"{prepared.measure.name} ({name})", "dense": before, "shipped": after})
    return rows
