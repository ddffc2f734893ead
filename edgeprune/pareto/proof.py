"""The proof of the file that was chosen: parity, accuracy, timing, where the time goes.

What is measured here is the shipped file itself: accuracy on the test split comes from onnxruntime,
latency from paired rounds of the dense and the shipped file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from edgeprune.deploy.verify import reference_session, verify_for_target, verify_on_board
from edgeprune.errors import ParityError
from edgeprune.graph.execution import outputs
from edgeprune.graph.features import kept_features
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.tails import time_tail
from edgeprune.measure.why import why
from edgeprune.pareto.changes import changes
from edgeprune.pareto.estimates import machine_of, target_estimate, timing_summary
from edgeprune.pareto.front import front_rows
from edgeprune.pareto.select_artifact import ArtifactSelection
from edgeprune.records import BenchResult, OnnxArtifact, VerifyResult, to_json
from edgeprune.records.report import Changes, Estimate, FileEntry, FrontRow, TimingSummary
from edgeprune.recovery import recover_closed_form
from edgeprune.search.costs import pinned, widths
from edgeprune.search.state import SearchState
from edgeprune.session.context import RunContext
from edgeprune.session.dense import ExportedDense, RunData
from edgeprune.session.exporting import BATCH, file_outputs
from edgeprune.session.latency_model import TAIL_SECONDS
from edgeprune.store import write_json, write_npz
from edgeprune.surgery.cut import cut
from edgeprune.tasks.base import Outputs

GOLDEN = 4
PROBES = 3  # fresh processes per file for load time, first inference and memory


@dataclass(frozen=True)
class Proof:
    """Files and measurements of a finished run.

    test: outputs on the test part by step ("dense", "pruned", "compensated", "shipped"). further: outputs
    of the shipped file on further sets. verified: on the target's processor; the reason if that was not
    possible, None for the host. estimate: for a target that was not timed.
    """

    dense: OnnxArtifact
    shipped: OnnxArtifact
    bench: BenchResult
    front: list[FrontRow]
    timing: TimingSummary
    estimate: Estimate | None
    verified: VerifyResult | str | None
    notes: tuple[str, ...]
    beside: list[FileEntry]
    changes: Changes | None = None
    test: dict[str, Outputs] = field(default_factory=dict)
    further: dict[str, Outputs] = field(default_factory=dict)


def prove(dense: ExportedDense, selection: ArtifactSelection, run: RunContext) -> Proof:
    """Write golden.npz and preprocess.json beside model.onnx, and measure it.

    Raises:
        ParityError: the file puts out NaN or infinity.
    """
    final, shipped, target = selection.final, selection.shipped, run.target
    with run.clock.stage("bench"):
        bench = _timed([dense.artifact.path, shipped.path], run)
    notes = (*selection.notes, *_why(dense, selection, bench, run))
    verified: VerifyResult | str | None = None
    if not target.descriptor.local:
        with run.clock.stage("verify"):
            if target.board is None:
                verified = verify_for_target(shipped.path, target.descriptor)
            else:
                verified = verify_on_board(shipped.path, target.board)
    test: dict[str, Outputs] = {}
    further: dict[str, Outputs] = {}
    if dense.data is not None:
        data = dense.data
        with run.clock.stage("test"):
            test = _steps(dense, data, final)
            test["dense"] = data.dense["test"]
            test["shipped"] = file_outputs(shipped.path, data.dataset, data.splits.test, run.progress)
            for name, other in data.further.items():
                further[name] = file_outputs(shipped.path, other, np.arange(len(other)), run.progress)
    _write_golden(dense, final, shipped, run.folder.path)
    dense_ms = bench.models[0].p50_ms.value if bench.models[0].p50_ms else None
    return Proof(
        dense.artifact,
        shipped,
        bench,
        front_rows(dense, selection.candidates, selection.chosen, dense_ms),
        timing_summary(dense, selection.tried, run, bench),
        target_estimate(dense, final, run),
        verified,
        notes,
        selection.beside,
        None if dense.data is None else changes(dense.data, test["dense"], test["shipped"]),
        test,
        further,
    )


def _timed(paths: list[Path], run: RunContext) -> BenchResult:
    """The dense and the shipped file in turns; for a deadline until both have a 99th percentile."""
    time, seconds = partial(run.target.time, probes=PROBES), run.options.bench_seconds
    if run.options.budget.deadline_ms is None:
        return time(paths, seconds)
    return time_tail(time, paths, max(seconds, TAIL_SECONDS), run.progress.note)


def _why(
    dense: ExportedDense, selection: ArtifactSelection, bench: BenchResult, run: RunContext
) -> tuple[str, ...]:
    """Where the time goes, on request and if no gain was seen; or why that cannot be said.

    Operators are profiled on this machine, so the causes hold for the timing only if it was taken here;
    for another target they are called this machine's.
    """
    options, target = run.options, run.target
    if not options.why and all(row.changed for row in bench.ratios):
        return ()
    if target.board is not None:
        return (
            f"why not faster: unknown, operators are profiled on this machine only and the files were"
            f" timed on {machine_of(bench)}",
        )
    if not options.why and not selection.final.removed.any() and not selection.chosen.int8:
        return ()  # the network is unchanged, and a note says why nothing had to go
    with run.clock.stage("why"):
        removal = {
            "layers": to_json(widths(dense.couplings, selection.final.removed)),
            "pinned": to_json(pinned(dense.couplings)),
        }
        files = (dense.artifact.path, selection.shipped.path)
        request = BenchRequest(files, threads=target.threads, seconds=options.bench_seconds)
        result = why(request, removal)
    where = "" if target.measures_target else f" on {machine_of(bench)}, not the target"
    gained = all(row.changed and row.ratio.value < 1 for row in bench.ratios)
    heading = "where the time goes" if gained else "why not faster"
    return tuple(f"{heading}{where}: {cause}" for cause in result.causes)


def _steps(dense: ExportedDense, data: RunData, final: SearchState) -> dict[str, Outputs]:
    """Test outputs with the same components gone and no recovery, and with closed-form recovery alone."""
    pruned = cut(dense.trace, dense.couplings, final.removed)
    closed, _ = recover_closed_form(dense.trace, dense.couplings, final.removed, data.calibration())
    return {
        name: outputs(network.graph, data.dataset, data.splits.test, BATCH)
        for name, network in (("pruned", pruned), ("compensated", closed))
    }


def _write_golden(dense: ExportedDense, final: SearchState, shipped: OnnxArtifact, folder: Path) -> None:
    """Recorded inputs and outputs that a device checks itself against, and how inputs are made."""
    session = reference_session(shipped.path)  # 8 bits: the graph as written, which every kernel aims at
    inputs, call = session.get_inputs(), dense.parity_inputs[0]
    if not isinstance(inputs[0].shape[0], int):
        call = tuple(x[:GOLDEN] for x in call)
    out = session.run(None, {i.name: x for i, x in zip(inputs, call, strict=True)})
    if not all(np.isfinite(o).all() for o in out if o.dtype.kind == "f"):
        raise ParityError(f"{shipped.path}: puts out NaN or infinity on recorded inputs")
    arrays = {f"input_{i}": x for i, x in enumerate(call)} | {f"output_{i}": x for i, x in enumerate(out)}
    write_npz(folder / "golden.npz", arrays)
    dataset = None if dense.data is None else dense.data.dataset
    write_json(
        folder / "preprocess.json",
        {
            "inputs": [{"name": i.name, "shape": i.shape, "dtype": i.type} for i in inputs],
            "outputs": [{"name": o.name, "shape": o.shape, "dtype": o.type} for o in session.get_outputs()],
            "preprocessing": dataset.preprocessing if dataset is not None else {},
            "kept_inputs": kept_features(final.trace.graph),
            "class_names": list(dataset.class_names or ()) if dataset is not None else [],
        },
    )
