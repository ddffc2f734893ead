"""The choices beside the shipped file: smaller and larger plans, rounds that were tried, 8 bits.

    candidates(...)   files in front/, each exported and parity-checked
    measured(...)     all of them beside the dense file in one run: latency, accuracy on validation
    pick(...)         the file to ship: the 8-bit form where it is faster and within the budget

Plans of the front come from the first round's scores and curves with closed-form recovery and no
training, so that six points cost seconds. Elsewhere: the shipped network itself (search).
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.bench.operators import HostTimer
from edgeprune.errors import BudgetError, EdgepruneError, ExportError, ParityError
from edgeprune.model.trace import Trace
from edgeprune.onnxfile import int8_settings, quantise, require_gain
from edgeprune.onnxfile.files import move_into_place, workshop
from edgeprune.pipeline.board import Board
from edgeprune.pipeline.costs import parameters
from edgeprune.pipeline.exporting import export_trace, file_outputs
from edgeprune.pipeline.goals import Goal, joint
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.state import State
from edgeprune.planning import Curve, allocate, uniform
from edgeprune.records import Interval, OnnxArtifact, QuantiseResult
from edgeprune.recovery import compensate, recalibrate
from edgeprune.store import RunFolder
from edgeprune.surgery import cut

# Shares of the dense cost, the most telling first; the later ones stand in for what cannot be had.
LADDER = (0.48, 0.28, 0.8, 0.2, 0.62, 0.37, 0.7, 0.55, 0.42, 0.33, 0.9, 0.24, 0.85, 0.75, 0.66, 0.58)
CALIBRATION_CALLS, CALIBRATION_BATCH = 32, 16
METHODS = ("minmax", "percentile")  # of finding ranges; `edgeprune quantise` tries the slow entropy too


@dataclass(frozen=True)
class Point:
    """One file that could be shipped. `drop` is the paired loss on validation in points, None without data.

    `ratio` is its latency by the dense file's in the run that timed the whole front; None untimed.
    `dominated` when another point is at least as fast and as accurate.
    """

    name: str
    artifact: OnnxArtifact
    macs: float
    params: int
    trained: bool
    int8: bool
    drop: Interval | None = None
    ratio: Interval | None = None
    dominated: bool = False


def candidates(
    prepared: Prepared, first: State, final: State, tried: list[State], options: Options, folder: RunFolder,
    clock: Clock,
) -> list[Point]:  # fmt: skip
    """Export the rounds that were not shipped, and plans of the ladder until there are `options.front` files.

    A plan that no file can be made of is passed over for the next one; fewer files than asked for, where
    the ladder ends, are said.

    Args:
        first: the network that the first round scored.
    """
    made: dict[str, Any] = {"fixed_batch": options.fixed_batch, "opset": options.opset}
    calls, points = list(prepared.calls), list[Point]()
    place = folder.path / "front"
    place.mkdir(exist_ok=True)
    rounds = [
        (f"round-{s.record['round']}", s.trace, s.couplings.macs(), options.epochs > 0)
        for s in tried
        if s is not final
    ]
    for name, network, macs, trained in itertools.chain(rounds, _plans(prepared, first, folder)):
        if not trained and name.startswith("plan-") and len(points) >= options.front:
            break
        try:
            artifact = export_trace(network, calls, place / f"{name}.onnx", **made)
        except ParityError as error:  # a network that was cut to pieces may put out a constant
            clock.progress.note(f"front: {name} left out: {error.message}")
            continue
        points.append(Point(name, artifact, macs, parameters(network), trained, False))
        clock.progress.step(len(points), max(options.front, len(rounds)))
    if len(points) < options.front:
        clock.progress.note(f"front: {len(points)} files; no further plan of the ladder can be had")
    return points


def eight_bits(
    prepared: Prepared, point: Point, options: Options, clock: Clock, board: Board, output: Path
) -> tuple[Point, QuantiseResult] | str | None:
    """The 8-bit form of a point; why there is none; None where it was not asked for and makes no sense."""
    if options.int8 == "off" or prepared.dataset is None or prepared.splits is None:
        return None
    target = board.target
    if not board.described:
        return "8 bits: name the board's --target, whose kernels decide the types"
    dataset, splits = prepared.dataset, prepared.splits
    try:
        if options.int8 == "auto":
            require_gain(target)
        indices = splits.calibration[: CALIBRATION_CALLS * CALIBRATION_BATCH]
        size = options.fixed_batch or CALIBRATION_BATCH
        parts = [indices[i : i + size] for i in range(0, len(indices) - size + 1, size)]
        labels = None if dataset.labels is None else dataset.labels[splits.validation]

        here = HostTimer(threads=board.threads, seconds=options.bench_seconds / 2)

        def evaluate(path: Path) -> float:
            out = file_outputs(path, dataset, splits.validation, clock)
            return 100 * prepared.measure.scores(out, prepared.dense["validation"], labels)[0]

        found = quantise(
            point.artifact.path, (dataset.batch(part) for part in parts), output, evaluate=evaluate,
            methods=METHODS,
            timer=here if board.measures_target and board.device is None else None, **int8_settings(target),
        )  # fmt: skip
    except (ExportError, ParityError, BudgetError) as error:
        return f"8 bits: {error}"
    except EdgepruneError as error:
        return None if options.int8 == "auto" else f"8 bits: {error}"
    named = Point(f"{point.name}-int8", found.artifact, point.macs, point.params, point.trained, True)
    return named, found


def measured(
    prepared: Prepared, points: list[Point], options: Options, clock: Clock, board: Board
) -> list[Point]:
    """Latency of every point beside the dense file, in one run, and the loss on validation."""
    assert prepared.file is not None
    paths = [prepared.file.path, *(p.artifact.path for p in points)]
    bench = board.time(paths, options.bench_seconds * (1 + len(paths) / 8))
    ratios: list[Interval | None] = [row.ratio for row in bench.ratios]
    ratios = ratios or [None] * len(points)
    found = []
    for point, ratio in zip(points, ratios, strict=True):
        drop = None
        if prepared.dataset is not None and prepared.splits is not None:
            out = file_outputs(point.artifact.path, prepared.dataset, prepared.splits.validation, clock)
            drop = prepared.drop(out, "validation", level=0.8)
        found.append(replace(point, drop=drop, ratio=ratio))
    return [replace(p, dominated=any(_beats(q, p) for q in found)) for p in found]


def pick(points: list[Point], shipped: Point, options: Options, *, on_target: bool = True) -> Point:
    """The 8-bit form of the shipped point where it is clearly faster and the budget allows its loss.

    Args:
        on_target: the latencies were measured on the target; another processor's say nothing of it.
    """
    eight = next((p for p in points if p.name == f"{shipped.name}-int8"), None)
    own = next(p for p in points if p.name == shipped.name)
    if eight is not None and options.int8 == "on":
        return eight
    if eight is None or own.ratio is None or eight.ratio is None or not on_target:
        return own
    limit = options.budget.max_drop
    within = limit is not None and eight.drop is not None and eight.drop.high <= limit
    return eight if within and eight.ratio.high < own.ratio.low else own


def ship_as(point: Point, folder: Path) -> None:
    """Put an 8-bit point in the place of model.onnx; the float file stays beside it as model-float.onnx."""
    for source, name in ((folder / "model.onnx", "model-float.onnx"), (point.artifact.path, "model.onnx")):
        with workshop(folder / name) as made:
            shutil.copyfile(source, made / name)
            move_into_place(made / name, folder / name)


def rows(
    prepared: Prepared, points: list[Point], chosen: Point, dense_ms: float | None
) -> list[dict[str, Any]]:
    """The front as the report holds it, fastest first."""
    value = _dense_value(prepared)
    order = sorted(points, key=lambda p: p.ratio.value if p.ratio else p.macs)
    return [
        {
            "name": p.name,
            "accuracy": _left(value, p.drop),
            "drop": p.drop,
            "macs": round(p.macs),
            "params": p.params,
            "file_bytes": p.artifact.bytes,
            "ratio": None if p.ratio is None else p.ratio.value,
            "ratio_low": None if p.ratio is None else p.ratio.low,
            "ratio_high": None if p.ratio is None else p.ratio.high,
            "latency_ms": None if p.ratio is None or dense_ms is None else p.ratio.value * dense_ms,
            "trained": p.trained,
            "int8": p.int8,
            "dominated": p.dominated,
            "file": _place(p, chosen),
            "chosen": p.name == chosen.name,
        }
        for p in order
    ]  # fmt: skip


def _plans(prepared: Prepared, first: State, folder: RunFolder) -> Iterator[tuple[str, Trace, float, bool]]:
    """Name, network, MACs and whether trained at the shares of the ladder that can be reached, one by one.

    With data they are refitted in closed form.
    """
    record = folder.load("rounds/1")
    if record is None:
        return
    couplings = first.couplings
    rank = np.asarray(folder.arrays("rounds/1")["rank"], dtype=np.int64)
    groups = {name: g for g, name in enumerate(couplings.group_names)}
    curves = {groups[k]: Curve(tuple(c["shares"]), tuple(c["losses"])) for k, c in record["curves"].items()}
    kind = "macs" if prepared.latency is None else "ms"
    calibration = prepared.calibration() if prepared.dataset is not None else None
    seen: set[bytes] = set()
    for share in LADDER:
        cost = joint(prepared, first.trace, couplings, (Goal(kind, share),))
        if cost(np.zeros(couplings.count, bool)) <= 1:
            continue
        removed = (
            allocate(couplings, rank, curves, cost, 1.0) if curves else uniform(couplings, rank, cost, 1.0)
        )
        if cost(removed) > 1 or removed.tobytes() in seen:
            continue
        seen.add(removed.tobytes())
        if calibration is None:
            small = cut(first.trace, couplings, removed)
        else:
            small = recalibrate(compensate(first.trace, couplings, removed, calibration)[0], calibration)
        yield f"plan-{round(100 * share)}", small, couplings.macs(removed), False


def _beats(q: Point, p: Point) -> bool:
    """Whether q is at least as good in both and better in one."""
    if q is p or q.ratio is None or p.ratio is None:
        return False
    drops = (q.drop.value, p.drop.value) if q.drop and p.drop else (0.0, 0.0)
    times = (q.ratio.value, p.ratio.value)
    return drops[0] <= drops[1] and times[0] <= times[1] and (drops[0] < drops[1] or times[0] < times[1])


def _place(point: Point, chosen: Point) -> str:
    """Where a point's file is in the run folder."""
    if point.name == chosen.name:
        return "model.onnx"
    return "model-float.onnx" if point.name == "shipped" else f"front/{point.artifact.path.name}"


def _left(value: float | None, drop: Interval | None) -> float | None:
    """Accuracy on validation after a loss in points."""
    return None if value is None or drop is None else min(1.0, max(0.0, value - drop.value / 100))


def _dense_value(prepared: Prepared) -> float | None:
    if prepared.dataset is None or prepared.splits is None:
        return None
    labels = prepared.dataset.labels
    wanted: npt.NDArray[np.int64] | None = None if labels is None else labels[prepared.splits.validation]
    dense = prepared.dense["validation"]
    return prepared.measure.scores(dense, dense, wanted)[0]
