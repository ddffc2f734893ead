"""The proof of the file that was chosen: parity, accuracy, timing, where the time goes.

What is measured here is the shipped file itself: accuracy on the test split comes from
onnxruntime, latency from paired rounds of the dense and the shipped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.deploy.verify import reference_session, verify_for_target, verify_on_device
from edgeprune.errors import ParityError
from edgeprune.graph.execution import outputs
from edgeprune.graph.features import kept_features
from edgeprune.measure.tails import time_tail
from edgeprune.measure.why import why
from edgeprune.pareto.estimates import machine_of, target_estimate, timing
from edgeprune.pareto.front import front_rows
from edgeprune.pareto.select_artifact import Selection
from edgeprune.records import BenchResult, OnnxArtifact, Target, VerifyResult
from edgeprune.recovery import compensate, recalibrate
from edgeprune.search.costs import pinned, widths
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import BATCH, file_outputs
from edgeprune.session.latency_model import TAIL_SECONDS
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder, write_json, write_npz
from edgeprune.surgery.cut import cut

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
    target: Target
    on_target: bool  # whether `bench` ran on the target itself
    estimate: dict[str, Any] | None  # for a target that was not timed
    timing: dict[str, Any]


def prove(
    prepared: Prepared,
    choice: Selection,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    board: MeasurementTarget,
) -> Delivery:
    """Write golden.npz and preprocess.json beside model.onnx, and measure it.

    Raises:
        ParityError: the file puts out NaN or infinity.
    """
    assert prepared.file is not None
    dense, calls, final, shipped = prepared.file, list(prepared.calls), choice.final, choice.shipped
    target, device = board.target, board.device
    with clock.stage("bench"):
        bench = _timed(board, [dense.path, shipped.path], options, clock)
    notes = (*choice.notes, *_why(prepared, choice, bench, options, clock, board))
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
    return Delivery(
        dense, shipped, bench, test, evaluation, verified,
        front_rows(prepared, choice.points, choice.chosen, dense_ms), notes, choice.beside, target,
        board.measures_target, target_estimate(prepared, final, board),
        timing(prepared, choice.tried, options, folder, board, bench),
    )  # fmt: skip


def _timed(board: MeasurementTarget, paths: list[Path], options: Options, clock: Clock) -> BenchResult:
    """The dense and the shipped file in turns; for a deadline until both have a 99th percentile."""
    time = partial(board.time, probes=PROBES)
    if options.budget.deadline_ms is None:
        return time(paths, options.bench_seconds)
    return time_tail(time, paths, max(options.bench_seconds, TAIL_SECONDS), clock.progress.note)


def _why(
    prepared: Prepared,
    choice: Selection,
    bench: BenchResult,
    options: Options,
    clock: Clock,
    board: MeasurementTarget,
) -> tuple[str, ...]:
    """Where the time goes, on request and where no gain was seen; or why that cannot be said.

    Operators are profiled on this machine, so the causes are those of the timing only where it was
    taken here; for another target they are called this machine's.
    """
    if not options.why and all(row.changed for row in bench.ratios):
        return ()
    assert prepared.file is not None
    if board.device is not None:
        return (
            f"why not faster: cannot be said, operators are profiled on this machine only and the files were"
            f" timed on {machine_of(bench)}",
        )
    if not options.why and not choice.final.removed.any() and not choice.chosen.int8:
        return ()  # the network is as it was, and a note says why nothing had to go
    with clock.stage("why"):
        layers = widths(prepared.couplings, choice.final.removed)
        run = {"layers": layers, "pinned": pinned(prepared.couplings)}
        found = why(prepared.file.path, choice.shipped.path, run, threads=board.threads,
                    seconds=options.bench_seconds)  # fmt: skip
    where = "" if board.measures_target else f" on {machine_of(bench)}, not the target"
    gained = all(row.changed and row.ratio.value < 1 for row in bench.ratios)
    said = "where the time goes" if gained else "why not faster"
    return tuple(f"{said}{where}: {cause}" for cause in found.causes)


def _steps(prepared: Prepared, final: SearchState) -> dict[str, npt.NDArray[np.float32]]:
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
    prepared: Prepared, final: SearchState, shipped: OnnxArtifact, calls: list[tuple[npt.NDArray[Any], ...]],
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
