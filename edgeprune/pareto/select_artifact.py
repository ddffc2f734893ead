"""Which file a run ships: the planned network, its 8-bit form, or a wider network's 8-bit form.

    select_artifact(...)    makes the front with its 8-bit forms, times all of it in one run, and decides

A latency budget is planned in float; where the 8-bit form of that plan then goes past what was asked, a
wider network whose 8-bit form still meets it with less loss is shipped in its place. What was counted on
top of a plan is said. Elsewhere: the files (front, eightbits), proof and timing of the one chosen (deliver).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.export.files import describe, move_into_place, workshop
from edgeprune.pareto import front
from edgeprune.pareto.front import Candidate, PlannedCandidate, float_name
from edgeprune.pareto.quantized_variants import quantized_variants
from edgeprune.records import OnnxArtifact, to_json
from edgeprune.search.costs import parameters
from edgeprune.search.plan_correction import CLOSE
from edgeprune.search.state import SearchState, advance
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import export_trace
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder
from edgeprune.surgery.cut import retrace


@dataclass(frozen=True)
class Selection:
    """The front, the point of it that is model.onnx, and the network that this file is of.

    `tried` are the states of the rounds, that network's included.
    `beside` lists further files of the run's own folder, as the report does.
    """

    points: list[Candidate]
    chosen: Candidate
    shipped: OnnxArtifact
    final: SearchState
    tried: list[SearchState]
    beside: list[dict[str, Any]]
    notes: tuple[str, ...]


def select_artifact(
    prepared: Prepared, first: SearchState, final: SearchState, tried: list[SearchState], options: Options, folder: RunFolder,
    clock: Clock, board: MeasurementTarget,
) -> Selection:  # fmt: skip
    """Write model.onnx and the files of front/, and time them.

    Raises:
        ParityError: a file does not compute what its graph computes.
    """
    path = folder.path
    with clock.stage("export"):
        made: dict[str, Any] = {"fixed_batch": options.fixed_batch, "opset": options.opset}
        shipped = export_trace(final.trace, list(prepared.calls), path / "model.onnx", **made)
    own = front.candidate_of(prepared, "shipped", shipped, final, options)
    with clock.stage("front"):
        points = [own, *front.candidates(prepared, first, final, tried, options, folder, clock)]
    with clock.stage("8 bits"):
        forms = quantized_variants(prepared, points, options, clock, board, path / "front")
    with clock.stage("front: bench"):
        points = front.time_candidates(prepared, [*points, *forms.points], options, clock, board)
    seen = board.measures_target
    chosen = shipped_form(points, options, on_target=seen)
    better = instead(prepared, points, chosen, goal(prepared, options), options) if seen else None
    notes = [*forms.notes, *counted_on_top(points, better or chosen, options, on_target=seen)]
    if better is not None:
        points, chosen = _renamed(points, path), better
        base = next(p for p in points if p.name == float_name(better))
        if isinstance(base.network, SearchState):
            final = base.network
        else:
            final = _state_of(base, first, options, folder)
            tried = [*tried, final]
    beside = []
    if chosen.int8:
        plain = next(p for p in points if p.name == float_name(chosen)).artifact
        _put(plain.path, path / "model-float.onnx")
        _put(chosen.artifact.path, path / "model.onnx")
        beside.append({"name": "model-float.onnx", "bytes": plain.bytes, "sha256": plain.sha256})
        shipped = replace(describe(path / "model.onnx", note=chosen.artifact.note),
                          parity=chosen.artifact.parity)  # fmt: skip
    return Selection(points, chosen, shipped, final, tried, beside, tuple(notes))


def goal(prepared: Prepared, options: Options) -> float | None:
    """The share of the dense median latency that was asked for; None where none was."""
    budget = options.budget
    found = [] if budget.speedup is None else [1 / budget.speedup]
    if budget.target_ms is not None:
        assert prepared.latency is not None
        found.append(budget.target_ms / prepared.latency.dense_ms)
    return min(found, default=None)


def shipped_form(points: list[Candidate], options: Options, *, on_target: bool = True) -> Candidate:
    """The 8-bit form of the planned network where it is clearly faster and the budget allows its loss.

    Args:
        points: "shipped", the planned network in float, and "shipped-int8" where that could be made.
        on_target: the latencies were measured on the target; another processor's say nothing of it.
    """
    own, eight = _pair(points)
    if eight is not None and options.int8 == "on":
        return eight
    if eight is None or own.ratio is None or eight.ratio is None or not on_target:
        return own
    limit = options.budget.max_drop
    within = limit is not None and eight.drop is not None and eight.drop.high <= limit
    return eight if within and eight.ratio.high < own.ratio.low else own


def instead(
    prepared: Prepared, points: list[Candidate], chosen: Candidate, asked: float | None, options: Options
) -> Candidate | None:
    """A wider network's 8-bit form that meets the goal with less loss, where the chosen one goes past it.

    None as well where a 99th percentile was asked for, which a front is not timed for.
    """
    budget = options.budget
    if not chosen.int8 or chosen.ratio is None or chosen.drop is None or asked is None:
        return None
    if chosen.ratio.value >= asked * (1 - CLOSE) or budget.deadline_ms is not None:
        return None
    dense = {"macs": prepared.couplings.macs(), "params": parameters(prepared.trace)}

    def keeps(p: Candidate) -> bool:
        """Whether a point keeps to every part of the budget, by what was measured of it."""
        assert p.ratio is not None and p.drop is not None
        return (
            p.ratio.value <= asked * (1 + CLOSE)
            and (budget.max_drop is None or p.drop.high <= budget.max_drop)
            and (budget.macs is None or p.macs <= budget.macs * dense["macs"])
            and (budget.params is None or p.params <= budget.params * dense["params"])
            and (budget.size_mb is None or p.artifact.bytes <= budget.size_mb * 1e6)
        )

    wider = [p for p in points if p.int8 and p.macs > chosen.macs and p.ratio and p.drop and keeps(p)]
    best = min(wider, key=lambda p: p.drop.value if p.drop else 0.0, default=None)
    return best if best and best.drop and best.drop.value < chosen.drop.value else None


def counted_on_top(
    points: list[Candidate], chosen: Candidate, options: Options, *, on_target: bool = True
) -> tuple[str, ...]:
    """What 8 bits add to a plan that was made in float, where a latency was asked for."""
    own, eight = _pair(points)
    if not chosen.int8 or not options.budget.timed:
        return ()
    said = f"{options.budget.asked()} was planned in float, and 8 bits are counted on top of it"
    if not on_target or own.ratio is None or eight is None or eight.ratio is None:
        return (said,)
    said += (
        f": {1 / own.ratio.value:.2f} times as fast as dense in float, {1 / eight.ratio.value:.2f} in 8 bits"
    )
    if chosen.name == eight.name or chosen.ratio is None or chosen.drop is None or eight.drop is None:
        return (said,)
    return (
        f"{said}; {chosen.name} is shipped instead, of a wider network ({chosen.recovery}): it meets the"
        f" goal at {1 / chosen.ratio.value:.2f} and loses {chosen.drop.value:+.2f} points on validation, not"
        f" {eight.drop.value:+.2f}",
    )


def _pair(points: list[Candidate]) -> tuple[Candidate, Candidate | None]:
    """The planned network's point and its 8-bit form."""
    named = {p.name: p for p in points}
    return named["shipped"], named.get("shipped-int8")


def _renamed(points: list[Candidate], folder: Path) -> list[Candidate]:
    """The points where another network than the planned one is shipped: that one is called planned."""
    found = []
    for p in points:
        if float_name(p) == "shipped":
            name = p.name.replace("shipped", "planned")
            _put(p.artifact.path, folder / "front" / f"{name}.onnx")
            p = replace(p, name=name, artifact=replace(p.artifact, path=folder / "front" / f"{name}.onnx"))
        found.append(p)
    return found


def _state_of(point: Candidate, first: SearchState, options: Options, folder: RunFolder) -> SearchState:
    """A plan of the front as if a round had given it, with its record; rounds are numbered from 1."""
    plan = point.network
    assert isinstance(plan, PlannedCandidate)
    number = options.rounds + 1
    record = {
        **(folder.load("rounds/1") or {}), "round": number, "macs": point.macs, "params": point.params,
        "asked": {"goals": {plan.goal.kind: plan.goal.share}, "from": first.record.get("round", 0)},
        "validation_drop": to_json(point.drop), "fits": (), "epochs": (), "timed": (), "mask": None,
    }  # fmt: skip
    arrays = {**folder.arrays("rounds/1"), "now": plan.removed}
    folder.save(f"rounds/{number}", record, arrays=arrays)
    return advance(first, retrace(plan.trace), plan.removed, record, options)


def _put(source: Path, target: Path) -> None:
    """Copy a file into place, atomically."""
    with workshop(target) as made:
        shutil.copyfile(source, made / target.name)
        move_into_place(made / target.name, target)
