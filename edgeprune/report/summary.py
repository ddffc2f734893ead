"""report.json: what happened, from records only. Elsewhere: removed.json (removals), the page (page)."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.coupling.sizes import Sizes
from edgeprune.errors import ParityError
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.trace import Trace
from edgeprune.pareto.estimates import machine_of, planned_shares
from edgeprune.pareto.proof import Proof
from edgeprune.pareto.select_artifact import ArtifactSelection
from edgeprune.records import to_json
from edgeprune.records.report import (
    Accuracy,
    CriterionRow,
    FileEntry,
    KeptInput,
    LatencyRow,
    MetricRow,
    NamedModel,
    NamedTarget,
    Pair,
    ParityRow,
    PartAccuracy,
    Report,
    Stage,
)
from edgeprune.report.budget_check import missed, nothing_removed, unmeasured
from edgeprune.report.removals import first_removed
from edgeprune.search.costs import parameters, pinned, widths
from edgeprune.session.context import RunContext
from edgeprune.session.dense import ExportedDense, RunData
from edgeprune.session.options import Options
from edgeprune.surgery.recipe import kept_inputs
from edgeprune.tasks.base import Outputs
from edgeprune.tasks.comparison import score_interval

VERSIONS = ("edgeprune", "torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of what the result depends on; what is not installed is left out."""
    versions_by_name = {}
    for name in VERSIONS:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions_by_name


def report(
    loaded: LoadedModel,
    dense: ExportedDense,
    selection: ArtifactSelection,
    proof: Proof,
    run: RunContext,
    removed: Mapping[str, Any],
) -> Report:
    """The content of report.json; `removed` is that of removed.json."""
    options, target, final = run.options, run.target.descriptor, selection.final
    over = missed(dense, final, proof, run)
    data = dense.data
    return Report(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=NamedModel(Path(loaded.source).stem, loaded.source, loaded.sha256),
        target=NamedTarget(target.name, target.title),
        seed=options.seed,
        versions=versions(),
        machine={**proof.bench.machine, "system": platform.platform(), "cores": os.cpu_count()},
        criterion=_criterion(selection, options),
        budget={k: v for k, v in to_json(options.budget).items() if v is not None},
        accuracy=None if data is None else _accuracy(data, proof),
        macs=Pair(round(dense.couplings.macs()), round(final.couplings.macs())),
        params=Pair(parameters(dense.trace), parameters(final.trace)),
        file_bytes=Pair(proof.dense.bytes, proof.shipped.bytes),
        parity=_parity(proof),
        latency=_latency(
            proof, run.target.measures_target, timed_batch(dense.trace, options, proof.bench.batch)
        ),
        estimate=proof.estimate,
        timing=proof.timing,
        planned=planned_shares(selection.tried, proof.front),
        verified=to_json(proof.verified),
        layers=widths(dense.couplings, final.removed),
        inputs=tuple(KeptInput(**x) for x in kept_inputs(dense.trace, Sizes(dense.couplings, final.removed))),
        pinned=pinned(dense.couplings),
        stages=tuple(Stage(s.name, s.seconds, s.peak_mb) for s in run.clock.stages),
        metrics=() if data is None else _metrics(data, proof),
        front=tuple(proof.front),
        rounds=[state.record for state in selection.tried],
        splits=None if data is None else data.splits.to_json(),
        bench=to_json(proof.bench),
        files=(
            FileEntry("model.onnx", proof.shipped.bytes, proof.shipped.sha256),
            FileEntry("dense.onnx", proof.dense.bytes, proof.dense.sha256),
            *proof.beside,
        ),
        notes=_notes(dense, selection, proof, run, over),
        warnings=_warnings(dense, proof, run, over),
        changes=proof.changes,
        first_removed=first_removed(removed),
        missed=tuple(over),
        preprocessing={} if data is None else data.dataset.preprocessing,
    )


def timed_batch(traced: Trace, options: Options, asked: int) -> int:
    """The batch that the files were timed at: their first input's if it is fixed, else as asked."""
    if options.fixed_batch is not None:
        return options.fixed_batch
    first = traced.inputs[0]
    return asked if traced.dynamic[0] or not first.dim() else len(first)


def _warnings(dense: ExportedDense, proof: Proof, run: RunContext, over: list[str]) -> tuple[str, ...]:
    """What limits the result: budgets that were missed or not measured, times that are not the target's."""
    lines = [f"over the budget: {text}" for text in over] + unmeasured(proof, run)
    if not run.target.descriptor.local:
        lines += _unmeasured_target(proof, run.target.descriptor.title)
    if dense.latency is not None:
        lines += dense.latency.notes
    return tuple(dict.fromkeys([*lines, *proof.bench.warnings]))


def _notes(
    dense: ExportedDense, selection: ArtifactSelection, proof: Proof, run: RunContext, over: list[str]
) -> tuple[str, ...]:
    notes = list(dense.notes)
    if not run.target.descriptor.local:
        notes += _about_target(proof, run.target.descriptor.title)
    notes += [f"over the budget: {text}" for text in over] + unmeasured(proof, run)
    notes += nothing_removed(dense, selection, run.options)
    if dense.latency is not None:
        basis = "planned by" if dense.latency.basis == "measured" else "planned by an estimate:"
        notes += [f"{basis} {dense.latency.source}", *dense.latency.notes]
    notes += proof.notes
    notes += [text for text in (proof.shipped.note, *proof.bench.warnings) if text]
    return tuple(dict.fromkeys(notes))


def _parity(proof: Proof) -> ParityRow:
    parity = proof.shipped.parity
    if parity is None:
        raise ParityError(f"{proof.shipped.path}: was not compared with its reference")
    eight = any(row.chosen and row.int8 for row in proof.front)
    return ParityRow(
        parity.max_abs,
        parity.top1_agreement,
        "its 8-bit graph run unoptimised" if eight else "PyTorch",
        parity.atol,
        parity.samples,
        parity.output_spread,
    )


def _latency(proof: Proof, on_target: bool, batch: int) -> LatencyRow | None:
    """Latency of both files where they were run; None on an emulator."""
    if not proof.bench.ratios:
        return None
    ratio = proof.bench.ratios[0].ratio
    dense, shipped = proof.bench.models
    return LatencyRow(
        basis="measured",
        where=machine_of(proof.bench),
        on_target=on_target,
        threads=proof.bench.threads,
        batch=batch,
        dense_p50_ms=dense.p50_ms.value if dense.p50_ms else None,
        shipped_p50_ms=shipped.p50_ms.value if shipped.p50_ms else None,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
    )


def _about_target(proof: Proof, title: str) -> list[str]:
    """What was and was not measured on the target itself."""
    notes = _unmeasured_target(proof, title)
    if proof.verified is not None and not isinstance(proof.verified, str):
        parity = proof.verified.parity
        notes.append(
            f"checked on {proof.verified.where}: differs from this machine by at most {parity.max_abs:.1e}"
        )
    return notes


def _unmeasured_target(proof: Proof, title: str) -> list[str]:
    """What was not measured or not checked on the target."""
    notes = []
    if proof.bench.emulated:
        notes.append(f"{proof.bench.board} is an emulator: its times mean nothing and are not shown")
    elif proof.bench.board is None:
        notes.append(f"latency was measured on this machine, not on {title}; --board measures there")
    if isinstance(proof.verified, str):
        notes.append(proof.verified)
    return notes


def _criterion(selection: ArtifactSelection, options: Options) -> CriterionRow:
    settings: dict[str, Any] = {"estimator": "", "samples": 0}
    if selection.tried:
        record = selection.tried[-1].record
        settings = {**record.settings, "estimator": record.estimator, "samples": record.samples}
    return CriterionRow(options.criterion, settings)


def _accuracy(data: RunData, proof: Proof) -> Accuracy:
    """The task's measure on the test part, step by step; every output of a model with several."""
    loss = data.loss(proof.test["shipped"], "test")
    first = {step: score_interval(data.measured(out, "test")[0][1]) for step, out in proof.test.items()}
    parts = tuple(PartAccuracy(p.measure, p.unit, p.dense, p.value, p.drop) for p in loss.parts)
    return Accuracy(
        measured_as=loss.deciding.measure if len(parts) > 1 else data.measured_as,
        unit=loss.unit,
        task=data.task.name,
        task_note=data.task_note,
        samples=len(data.splits.test),
        test_origin=data.splits.test_origin,
        dense=first["dense"],
        pruned=first["pruned"],
        compensated=first["compensated"],
        shipped=first["shipped"],
        drop=loss.drop,
        parts=parts,
    )


def _metrics(data: RunData, proof: Proof) -> tuple[MetricRow, ...]:
    """Further metrics on the test part, and the task's measure on further sets."""
    rows = []
    targets = data.targets("test")
    if targets is not None:
        for metric in data.metrics:
            before, after = (metric.score(proof.test[k], targets).value for k in ("dense", "shipped"))
            rows.append(MetricRow(metric.measure.name, before, after))
    for name in data.further:
        before, after = (_first(data, out, name) for out in (data.dense[f"eval:{name}"], proof.further[name]))
        rows.append(MetricRow(f"{data.measured_as} ({name})", before, after))
    return tuple(rows)


def _first(data: RunData, outputs: Outputs, name: str) -> float:
    return data.measured_further(outputs, name)[0][1].value
