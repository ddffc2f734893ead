"""The result as files, with the proof: ONNX, parity, accuracy of the file, timing.

What is measured here is the shipped file itself: accuracy on the test split comes from
onnxruntime, latency from paired rounds of the dense and the shipped file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.bench.why import why
from edgeprune.device.verify import reference_session, verify_for_target, verify_on_device
from edgeprune.errors import ParityError
from edgeprune.model.features import kept_features
from edgeprune.model.run import outputs
from edgeprune.onnxfile import describe
from edgeprune.pipeline import front
from edgeprune.pipeline.board import Board
from edgeprune.pipeline.costs import parameters, pinned, widths
from edgeprune.pipeline.exporting import BATCH, export_trace, file_outputs
from edgeprune.pipeline.latencies import TAIL_SECONDS
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.state import State
from edgeprune.records import BenchResult, OnnxArtifact, Target, VerifyResult
from edgeprune.recovery import compensate, recalibrate
from edgeprune.store import RunFolder, write_json, write_npz
from edgeprune.surgery import cut

GOLDEN = 4
PROBES = 3  # fresh processes per file for load time, first inference and memory


@dataclass(frozen=True)
class Delivery:
    """Artefacts and measurements of a finished run."""

    dense: OnnxArtifact
    shipped: OnnxArtifact
    bench: BenchResult
    test: dict[str, npt.NDArray[np.float32]]  # step -> outputs on the test split
    evaluation: dict[str, npt.NDArray[np.float32]]  # set -> outputs of the shipped file
    verified: (
        VerifyResult | str | None
    )  # on the target's processor; the reason where it was not, None for the host
    front: list[dict[str, Any]]
    notes: tuple[str, ...]
    beside: list[dict[str, Any]]  # further files of the run's own folder, as the report lists them
    on_target: bool  # whether `bench` ran on the target itself
    target: Target


def deliver(
    prepared: Prepared,
    final: State,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    board: Board,
    *,
    first: State,
    tried: list[State],
) -> Delivery:
    """Write model.onnx, golden.npz and preprocess.json, and measure them.

    Raises:
        ParityError: a file does not compute what its graph computes.
    """
    assert prepared.file is not None
    dense, calls = prepared.file, list(prepared.calls)
    made: dict[str, Any] = {"fixed_batch": options.fixed_batch, "opset": options.opset}
    with clock.stage("export"):
        shipped = export_trace(final.trace, calls, folder.path / "model.onnx", **made)
    points, chosen, notes = _choices(prepared, first, final, tried, shipped, options, folder, clock, board)
    beside = []
    if chosen.int8:
        beside.append({"name": "model-float.onnx", "bytes": shipped.bytes, "sha256": shipped.sha256})
        front.ship_as(chosen, folder.path)
        shipped = replace(describe(folder.path / "model.onnx", note=chosen.artifact.note),
                          parity=chosen.artifact.parity)  # fmt: skip
    target, device = board.target, board.device
    with clock.stage("bench"):
        seconds = max(options.bench_seconds, TAIL_SECONDS if options.budget.deadline_ms else 0.0)
        bench = board.time([dense.path, shipped.path], seconds, probes=PROBES)
    if not target.local:
        if options.why:
            notes = (*notes, f"--why profiles operators on this machine only, not on {target.title}")
    elif options.why or not all(row.changed for row in bench.ratios):
        with clock.stage("why"):
            layers = widths(prepared.couplings, final.removed)
            run = {"layers": layers, "pinned": pinned(prepared.couplings)}
            found = why(dense.path, shipped.path, run, threads=board.threads, seconds=options.bench_seconds)
        notes = (*notes, *(f"why not faster: {cause}" for cause in found.causes))
    verified: VerifyResult | str | None = None
    if not target.local:
        with clock.stage("verify"):
            verified = (
                verify_for_target(shipped.path, target)
                if device is None
                else verify_on_device(shipped.path, device)
            )
    test: dict[str, npt.NDArray[np.float32]] = {}
    evaluation: dict[str, npt.NDArray[np.float32]] = {}
    if prepared.dataset is not None and prepared.splits is not None:
        with clock.stage("test"):
            test = _steps(prepared, final)
            test["dense"] = prepared.dense["test"]
            indices = prepared.splits.test
            test["shipped"] = file_outputs(shipped.path, prepared.dataset, indices, clock)
            for name, other in prepared.evaluation.items():
                evaluation[name] = file_outputs(shipped.path, other, np.arange(len(other)), clock)
    _golden(prepared, final, shipped, calls, folder.path)
    dense_ms = bench.models[0].p50_ms.value if bench.models[0].p50_ms else None
    rows = front.rows(prepared, points, chosen, dense_ms)
    on_target = board.measures_target
    return Delivery(dense, shipped, bench, test, evaluation, verified, rows, notes, beside, on_target, target)


def _choices(
    prepared: Prepared, first: State, final: State, tried: list[State], shipped: OnnxArtifact,
    options: Options, folder: RunFolder, clock: Clock, board: Board,
) -> tuple[list[front.Point], front.Point, tuple[str, ...]]:  # fmt: skip
    """The front, the point to ship, and what to know of 8 bits."""
    own = front.Point(
        "shipped", shipped, final.couplings.macs(), parameters(final.trace), options.epochs > 0, False
    )
    notes: list[str] = []
    with clock.stage("front"):
        points = [own, *front.candidates(prepared, first, final, tried, options, folder, clock)]
    with clock.stage("8 bits"):
        (folder.path / "front").mkdir(exist_ok=True)
        eight = front.eight_bits(
            prepared, own, options, clock, board, folder.path / "front" / "shipped-int8.onnx"
        )
        if isinstance(eight, str):
            notes.append(eight)
        elif eight is not None:
            points.append(eight[0])
            notes += eight[1].notes
    with clock.stage("front: bench"):
        points = front.measured(prepared, points, options, clock, board)
    return points, front.pick(points, own, options, on_target=board.measures_target), tuple(notes)


def _steps(prepared: Prepared, final: State) -> dict[str, npt.NDArray[np.float32]]:
    """Test outputs with the same components gone and no recovery, and with closed-form recovery alone."""
    assert prepared.dataset is not None and prepared.splits is not None
    indices = prepared.splits.test
    pruned = cut(prepared.trace, prepared.couplings, final.removed)
    found = {"pruned": outputs(pruned.graph, prepared.dataset, indices, BATCH)}
    calibration = prepared.calibration()
    closed, _ = compensate(prepared.trace, prepared.couplings, final.removed, calibration)
    found["compensated"] = outputs(recalibrate(closed, calibration).graph, prepared.dataset, indices, BATCH)
    return found


def _golden(
    prepared: Prepared, final: State, shipped: OnnxArtifact, calls: list[tuple[npt.NDArray[Any], ...]],
    path: Path,
) -> None:  # fmt: skip
    """Recorded inputs and outputs that a device checks itself against, and how inputs are made."""
    session = reference_session(shipped.path)  # of 8 bits: the graph as written, which every kernel aims at
    fixed = session.get_inputs()[0].shape[0]
    call = calls[0] if isinstance(fixed, int) else tuple(x[:GOLDEN] for x in calls[0])
    out = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), call, strict=True)})
    if not all(np.isfinite(o).all() for o in out if o.dtype.kind == "f"):
        raise ParityError(f"{shipped.path}: puts out NaN or infinity on recorded inputs")
    arrays = {f"input_{i}": x for i, x in enumerate(call)} | {f"output_{i}": x for i, x in enumerate(out)}
    write_npz(path / "golden.npz", arrays)
    dataset = prepared.dataset
    write_json(
        path / "preprocess.json",
        {
            "inputs": [{"name": i.name, "shape": i.shape, "dtype": i.type} for i in session.get_inputs()],
            "outputs": [{"name": o.name, "shape": o.shape, "dtype": o.type} for o in session.get_outputs()],
            "preprocessing": dataset.preprocessing if dataset is not None else {},
            "kept_inputs": kept_features(final.trace.graph),
            "class_names": list(dataset.class_names or ()) if dataset is not None else [],
        },
    )
