"""Everything of a `compress` that is fixed before the first removal: the dense network and its file.

Elsewhere: tracing, coupling, task and splits, which other commands need too (analysis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeprune.calibration.drift import drift, warning
from edgeprune.data import Dataset
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace
from edgeprune.measure.staircase import staircase
from edgeprune.run.analysis import analyse_model, check_targets, lone_groups, open_run_data
from edgeprune.search.costs import refuse_unreachable
from edgeprune.session.context import RunContext
from edgeprune.session.dense import ExportedDense, RunData
from edgeprune.session.exporting import BATCH, export_trace, parity_inputs
from edgeprune.session.latency_model import open_latency
from edgeprune.tasks.base import Outputs


def prepare(
    loaded: LoadedModel, dataset: Dataset | None, further: Mapping[str, Dataset], run: RunContext
) -> ExportedDense:
    """Trace, couple, split, run the dense model once over the parts, and export it.

    Raises:
        TraceError, DataError: as the stages do; targets that the model cannot have.
        BudgetError: the budget lies below what structure allows; raised before anything is computed.
        ExportError, ParityError: the dense model does not become a faithful ONNX file.
    """
    options = run.options
    if dataset is not None:
        with run.clock.stage("check targets"):
            check_targets(loaded, dataset, options)
    analysis = analyse_model(loaded, options, clock=run.clock)
    traced, couplings, notes = analysis.trace, analysis.couplings, analysis.notes
    refuse_unreachable(traced, couplings, options.budget)
    data: RunData | None = None
    if dataset is not None:
        data = open_run_data(traced, dataset, options, further=further)
        with run.clock.stage("compare statistics"):
            unlike = warning(drift(traced, dataset, data.splits.train))
        lines = (data.task_note, *lone_groups(dataset, data.splits), unlike)
        for line in filter(None, lines):
            run.progress.note(line)
            notes = (*notes, line)
        with run.clock.stage("dense outputs"):
            data = replace(data, dense=_dense_outputs(traced, data, run))
    calls = parity_inputs(
        traced, dataset, None if data is None else data.splits.validation,
        fixed_batch=options.fixed_batch, seed=options.seed,
    )  # fmt: skip
    with run.clock.stage("export dense"):
        artifact = export_trace(
            analysis.original, calls, run.folder.path / "dense.onnx",
            opset=options.opset, fixed_batch=options.fixed_batch,
        )  # fmt: skip
    latency = open_latency(traced, couplings, artifact.path, run)
    if isinstance(latency, str):
        run.progress.note(latency)
        notes, latency = (*notes, latency), None
    return ExportedDense(
        traced, couplings, data, _alignment(run), artifact=artifact, parity_inputs=tuple(calls),
        latency=latency, notes=notes,
    )  # fmt: skip


def _alignment(run: RunContext) -> int:
    """Block of widths that onnxruntime runs without waste: measured here for the host, 1 for other targets.

    The measurement is a record of the run, so that a resumed run plans as it began.
    """
    if run.options.align is not None:
        return run.options.align
    if not run.target.descriptor.local:
        return 1
    stored = run.folder.load("staircase")
    if stored is None:
        with run.clock.stage("staircase"):
            run.folder.save("staircase", staircase(threads=run.target.threads))
        stored = run.folder.load("staircase")
    return int(stored["alignment"]) if stored else 1


def _dense_outputs(traced: Trace, data: RunData, run: RunContext) -> dict[str, Outputs]:
    """All outputs of the dense model on train (the teacher), validation, test and further sets."""
    if run.folder.load("dense") is not None:
        return _by_part(run.folder.arrays("dense"))
    outputs_by_part: dict[str, Outputs] = {}
    for part in ("validation", "test", "train"):
        run.progress.stage(f"dense outputs: {part}")
        outputs_by_part[part] = outputs(
            traced.graph, data.dataset, data.indices(part), BATCH,
            compute=run.compute, progress=run.progress.step,
        )  # fmt: skip
    for name, other in data.further.items():
        outputs_by_part[f"eval:{name}"] = outputs(
            traced.graph, other, np.arange(len(other)), BATCH, compute=run.compute
        )
    flat = {
        f"{part}/{i}": array for part, arrays in outputs_by_part.items() for i, array in enumerate(arrays)
    }
    run.folder.save("dense", {"splits": data.splits.to_json()}, arrays=flat)
    return outputs_by_part


def _by_part(flat: Mapping[str, np.ndarray]) -> dict[str, Outputs]:
    """Stored arrays "PART/NUMBER" as outputs by part."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name, array in flat.items():
        part, _, number = name.rpartition("/")
        parts.setdefault(part, {})[int(number)] = array
    return {part: tuple(arrays[i] for i in sorted(arrays)) for part, arrays in parts.items()}
