"""The choices beside the shipped file: smaller and larger plans, rounds that were tried, 8 bits.

    candidates(...)   files in front/, each exported and parity-checked
    time_candidates(...)     all of them beside the dense file in one run: latency, accuracy on validation
    front_rows(...)         the front as the report holds it

Plans of the front come from the first round's scores and curves with closed-form recovery and no
training, so that six points cost seconds; a round that was tried is fine-tuned. Each point says which,
and only points of equal recovery are held against each other. Elsewhere: 8-bit forms (eightbits),
which file is shipped (choosing), the network that the budget planned (search).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray
from edgeprune.errors import ParityError
from edgeprune.graph.trace import Trace
from edgeprune.records import BenchResult, Interval, OnnxArtifact
from edgeprune.recovery import compensate, recalibrate
from edgeprune.search.allocate import allocate
from edgeprune.search.costs import parameters
from edgeprune.search.goals import Goal, joint, shares
from edgeprune.search.groups import Curve, uniform
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import export_trace, file_outputs
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder
from edgeprune.surgery.cut import cut

# Shares of the dense cost, the most telling first; the later ones stand in for what cannot be had.
FRONT_SHARES = (0.48, 0.28, 0.8, 0.2, 0.62, 0.37, 0.7, 0.55, 0.42, 0.33, 0.9, 0.24, 0.85, 0.75, 0.66, 0.58)


@dataclass(frozen=True)
class PlannedCandidate:
    """A plan of the front: `removed` components of the first round's network, and what is left."""

    trace: Trace
    removed: BoolArray
    goal: Goal


@dataclass(frozen=True)
class Candidate:
    """One file that could be shipped. `drop` is the paired loss on validation in points, None without data.

    `recovery` is "fine-tuned", "closed form" or "none". `ratio` is its latency by the dense file's in the
    run that timed the whole front, None untimed; `predicted` the same as planning saw it, None where no
    latency was predicted and of 8 bits. `dominated` when another point of the same recovery is at least
    as fast and as accurate.
    """

    name: str
    artifact: OnnxArtifact
    macs: float
    params: int
    recovery: str
    int8: bool = False
    predicted: float | None = None
    drop: Interval | None = None
    ratio: Interval | None = None
    dominated: bool = False
    network: SearchState | PlannedCandidate | None = field(default=None, repr=False, compare=False)


def candidate_of(
    prepared: Prepared, name: str, artifact: OnnxArtifact, state: SearchState, options: Options
) -> Candidate:
    """The point of a network that the rounds gave."""
    predicted = None
    if prepared.latency is not None:
        predicted = shares(prepared, state.trace, state.couplings, (Goal("ms", 1.0),))["ms"]
    scored = bool(state.record.get("round", 0))
    return Candidate(
        name, artifact, state.couplings.macs(), parameters(state.trace),
        _recovery(prepared, trained=scored and options.epochs > 0, cut=scored),
        predicted=predicted, network=state,
    )  # fmt: skip


def candidates(
    prepared: Prepared, first: SearchState, final: SearchState, tried: list[SearchState], options: Options, folder: RunFolder,
    clock: Clock,
) -> list[Candidate]:  # fmt: skip
    """Export the rounds that were not shipped, and plans of the ladder until there are `options.front` files.

    A plan that no file can be made of is passed over for the next one; fewer files than asked for, where
    the ladder ends, are said.

    Args:
        first: the network that the first round scored.
    """
    made: dict[str, Any] = {"fixed_batch": options.fixed_batch, "opset": options.opset}
    calls, points = list(prepared.calls), list[Candidate]()
    place = folder.path / "front"
    place.mkdir(exist_ok=True)
    rounds = [(f"round-{s.record['round']}", s) for s in tried if s is not final]
    networks: Iterator[tuple[str, SearchState | PlannedCandidate]]
    networks = itertools.chain(rounds, _plans(prepared, first, folder))
    for name, network in networks:
        if isinstance(network, PlannedCandidate) and len(points) >= options.front:
            break
        try:
            artifact = export_trace(network.trace, calls, place / f"{name}.onnx", **made)
        except ParityError as error:  # a network that was cut to pieces may put out a constant
            clock.progress.note(f"front: {name} left out: {error.message}")
            continue
        if isinstance(network, PlannedCandidate):
            points.append(_planned(prepared, name, artifact, first, network))
        else:
            points.append(candidate_of(prepared, name, artifact, network, options))
        clock.progress.step(len(points), max(options.front, len(rounds)))
    if len(points) < options.front:
        clock.progress.note(f"front: {len(points)} files; no further plan of the ladder can be had")
    return points


def time_candidates(
    prepared: Prepared, points: list[Candidate], options: Options, clock: Clock, board: MeasurementTarget
) -> list[Candidate]:
    """Latency of every point beside the dense file, in one run, and the loss on validation."""
    assert prepared.file is not None
    paths = [prepared.file.path, *(p.artifact.path for p in points)]
    bench: BenchResult = board.time(paths, options.bench_seconds * (1 + len(paths) / 8))
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


def front_rows(
    prepared: Prepared, points: list[Candidate], chosen: Candidate, dense_ms: float | None
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
            "predicted": p.predicted,
            "ratio": None if p.ratio is None else p.ratio.value,
            "ratio_low": None if p.ratio is None else p.ratio.low,
            "ratio_high": None if p.ratio is None else p.ratio.high,
            "latency_ms": None if p.ratio is None or dense_ms is None else p.ratio.value * dense_ms,
            "recovery": p.recovery,
            "int8": p.int8,
            "dominated": p.dominated,
            "file": _place(p, chosen),
            "chosen": p.name == chosen.name,
        }
        for p in order
    ]  # fmt: skip


def float_name(point: Candidate) -> str:
    """The name of a point's float form."""
    return point.name.removesuffix("-int8") if point.int8 else point.name


def _plans(
    prepared: Prepared, first: SearchState, folder: RunFolder
) -> Iterator[tuple[str, PlannedCandidate]]:
    """Plans at the shares of the ladder that can be reached; with data refitted in closed form."""
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
    for share in FRONT_SHARES:
        goal = Goal(kind, share)
        cost = joint(prepared, first.trace, couplings, (goal,))
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
        yield f"plan-{round(100 * share)}", PlannedCandidate(small, removed, goal)


def _planned(
    prepared: Prepared, name: str, artifact: OnnxArtifact, first: SearchState, plan: PlannedCandidate
) -> Candidate:
    """The point of a plan of the ladder."""
    predicted = None
    if prepared.latency is not None:
        predicted = joint(prepared, first.trace, first.couplings, (Goal("ms", 1.0),))(plan.removed)
    return Candidate(
        name, artifact, first.couplings.macs(plan.removed), parameters(plan.trace),
        _recovery(prepared, trained=False, cut=True), predicted=predicted, network=plan,
    )  # fmt: skip


def _recovery(prepared: Prepared, *, trained: bool, cut: bool) -> str:
    """What was done about a removal: nothing without data, or where nothing but the lossless went."""
    if prepared.dataset is None or not cut:
        return "none"
    return "fine-tuned" if trained else "closed form"


def _beats(q: Candidate, p: Candidate) -> bool:
    """Whether q, of the same recovery, is at least as good in both and better in one."""
    if q is p or q.ratio is None or p.ratio is None or q.recovery != p.recovery:
        return False
    drops = (q.drop.value, p.drop.value) if q.drop and p.drop else (0.0, 0.0)
    times = (q.ratio.value, p.ratio.value)
    return drops[0] <= drops[1] and times[0] <= times[1] and (drops[0] < drops[1] or times[0] < times[1])


def _place(point: Candidate, chosen: Candidate) -> str:
    """Where a point's file is in the run folder."""
    if point.name == chosen.name:
        return "model.onnx"
    return "model-float.onnx" if point.name == float_name(chosen) else f"front/{point.artifact.path.name}"


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
