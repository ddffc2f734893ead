"""Which file a run ships: the planned network, its 8-bit form, or a wider network's 8-bit form.

    select_artifact(...)    makes the front with its 8-bit forms, times all of it in one run, and decides

A latency budget is planned in float. If the 8-bit form of that plan then goes past the goal, a wider
network whose 8-bit form still meets it with less loss ships instead. The report states any gain beyond
the float plan.
Elsewhere: the files (front, quantized_variants), proof and timing of the one chosen (proof).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.export.files import artifact_record, move_into_place, workshop
from edgeprune.pareto import front
from edgeprune.pareto.front import Candidate, PlannedCandidate
from edgeprune.pareto.quantized_variants import quantized_variants
from edgeprune.records import OnnxArtifact
from edgeprune.records.report import FileEntry
from edgeprune.search.costs import parameters
from edgeprune.search.plan_correction import CLOSE
from edgeprune.search.rounds import store_round, stored_round
from edgeprune.search.search import SearchResult
from edgeprune.search.state import Asked, RoundRecord, SearchState, advance
from edgeprune.session.context import RunContext
from edgeprune.session.dense import DenseNetwork, ExportedDense, latency_of
from edgeprune.session.exporting import export_trace
from edgeprune.session.options import Options
from edgeprune.surgery.cut import retrace


@dataclass(frozen=True)
class ArtifactSelection:
    """The front, the candidate that is model.onnx, and the network that this file is of.

    tried: the networks of the rounds, the shipped one included. beside: further files of the run's own
    folder, as the report lists them.
    """

    candidates: list[Candidate]
    chosen: Candidate
    shipped: OnnxArtifact
    final: SearchState
    tried: list[SearchState]
    beside: list[FileEntry]
    notes: tuple[str, ...]


def select_artifact(dense: ExportedDense, result: SearchResult, run: RunContext) -> ArtifactSelection:
    """Write model.onnx and the files of front/, and time them.

    Raises:
        ParityError: a file does not compute what its graph computes.
    """
    options, path = run.options, run.folder.path
    final, tried = result.accepted, result.tried
    with run.clock.stage("export"):
        shipped = export_trace(
            final.trace, list(dense.parity_inputs), path / "model.onnx",
            fixed_batch=options.fixed_batch, opset=options.opset,
        )  # fmt: skip
    candidates = [front.candidate_of(dense, "shipped", shipped, final, run)]
    if options.front or len(tried) > 1:
        with run.clock.stage("front"):
            candidates += front.make_candidates(dense, result, run)
    notes: list[str] = []
    if options.int8 != "off" and dense.data is not None:
        with run.clock.stage("8 bits"):
            variants = quantized_variants(dense, candidates, run)
        candidates += variants.candidates
        notes += variants.notes
    with run.clock.stage("front: bench"):
        candidates = front.time_candidates(dense, candidates, run)
    on_target = run.target.measures_target
    chosen = preferred_form(candidates, options, on_target=on_target)
    better = (
        wider_int8(dense, candidates, chosen, latency_goal(dense, options), options) if on_target else None
    )
    notes += gain_beyond_plan(candidates, better or chosen, options, on_target=on_target)
    if better is not None:
        candidates, chosen = _renamed(candidates, path), better
        base = next(c for c in candidates if c.name == better.float_name)
        if isinstance(base.network, PlannedCandidate):
            final = _state_of(base, base.network, result.first, run)
            tried = [*tried, final]
        elif base.network is not None:
            final = base.network
    beside = []
    if chosen.int8:
        plain = next(c for c in candidates if c.name == chosen.float_name).artifact
        _copy(plain.path, path / "model-float.onnx")
        _copy(chosen.artifact.path, path / "model.onnx")
        beside.append(FileEntry("model-float.onnx", plain.bytes, plain.sha256))
        shipped = replace(
            artifact_record(path / "model.onnx", note=chosen.artifact.note), parity=chosen.artifact.parity
        )
    return ArtifactSelection(candidates, chosen, shipped, final, tried, beside, tuple(notes))


def latency_goal(dense: DenseNetwork, options: Options) -> float | None:
    """The share of the dense median latency that was asked for; None if no latency was asked for."""
    budget, model = options.budget, latency_of(dense)
    goals = [] if budget.speedup is None else [1 / budget.speedup]
    if budget.target_ms is not None and model is not None:
        goals.append(budget.target_ms / model.dense_ms)
    return min(goals, default=None)


def preferred_form(candidates: list[Candidate], options: Options, *, on_target: bool = True) -> Candidate:
    """The 8-bit form of the planned network if it is clearly faster and the budget allows its loss.

    Args:
        candidates: "shipped", the planned network in float, and "shipped-int8" if that could be made.
        on_target: the latencies were measured on the target; another processor's prove nothing about it.
    """
    plain, eight = _pair(candidates)
    if eight is not None and options.int8 == "on":
        return eight
    if eight is None or plain.ratio is None or eight.ratio is None or not on_target:
        return plain
    limit = options.budget.max_drop
    within = limit is not None and eight.drop is not None and eight.drop.high <= limit
    return eight if within and eight.ratio.high < plain.ratio.low else plain


def wider_int8(
    dense: DenseNetwork,
    candidates: list[Candidate],
    chosen: Candidate,
    goal: float | None,
    options: Options,
) -> Candidate | None:
    """A wider network's 8-bit form that meets the goal with less loss, if the chosen one goes past it.

    None too for a 99th percentile, which a front is not timed for.
    """
    budget = options.budget
    if not chosen.int8 or chosen.ratio is None or chosen.drop is None or goal is None:
        return None
    if chosen.ratio.value >= goal * (1 - CLOSE) or budget.deadline_ms is not None:
        return None
    macs, params = dense.couplings.macs(), parameters(dense.trace)

    def meets_budget(c: Candidate) -> bool:
        """Every part of the budget, by what was measured."""
        return (
            c.ratio is not None
            and c.drop is not None
            and c.ratio.value <= goal * (1 + CLOSE)
            and (budget.max_drop is None or c.drop.high <= budget.max_drop)
            and (budget.macs is None or c.macs <= budget.macs * macs)
            and (budget.params is None or c.params <= budget.params * params)
            and (budget.size_mb is None or c.artifact.bytes <= budget.size_mb * 1e6)
        )

    wider = [c for c in candidates if c.int8 and c.macs > chosen.macs and meets_budget(c)]
    best = min(wider, key=lambda c: c.drop.value if c.drop else 0.0, default=None)
    return best if best and best.drop and best.drop.value < chosen.drop.value else None


def gain_beyond_plan(
    candidates: list[Candidate], chosen: Candidate, options: Options, *, on_target: bool = True
) -> tuple[str, ...]:
    """Note on what 8 bits add to a plan that was made in float, if a latency was asked for."""
    plain, eight = _pair(candidates)
    if not chosen.int8 or not options.budget.timed:
        return ()
    text = f"{options.budget.asked()} was planned in float; 8 bits are a gain beyond that plan"
    if not on_target or plain.ratio is None or eight is None or eight.ratio is None:
        return (text,)
    plain_speed, eight_speed = 1 / plain.ratio.value, 1 / eight.ratio.value
    text += f": {plain_speed:.2f} times as fast as dense in float, {eight_speed:.2f} in 8 bits"
    if chosen.name == eight.name or chosen.ratio is None or chosen.drop is None or eight.drop is None:
        return (text,)
    return (
        f"{text}; {chosen.name} is shipped instead, of a wider network ({chosen.recovery}): it meets the"
        f" goal at {1 / chosen.ratio.value:.2f} and loses {chosen.drop.value:+.2f} points on validation, not"
        f" {eight.drop.value:+.2f}",
    )


def _pair(candidates: list[Candidate]) -> tuple[Candidate, Candidate | None]:
    """The planned network's candidate and its 8-bit form."""
    named = {c.name: c for c in candidates}
    return named["shipped"], named.get("shipped-int8")


def _renamed(candidates: list[Candidate], folder: Path) -> list[Candidate]:
    """The candidates when another network than the planned one ships: that one is called "planned"."""
    renamed = []
    for c in candidates:
        if c.float_name == "shipped":
            name = c.name.replace("shipped", "planned")
            target = folder / "front" / f"{name}.onnx"
            _copy(c.artifact.path, target)
            c = replace(c, name=name, artifact=replace(c.artifact, path=target))
        renamed.append(c)
    return renamed


def _state_of(
    candidate: Candidate, plan: PlannedCandidate, first: SearchState, run: RunContext
) -> SearchState:
    """A plan of the front as if a round had given it, with its record; rounds are numbered from 1."""
    number = run.options.rounds + 1
    stored = stored_round(run, 1)
    base = RoundRecord() if stored is None else stored[0]
    record = replace(
        base, round=number, macs=candidate.macs, params=candidate.params,
        asked=Asked({plan.goal.kind: plan.goal.share}, first.record.round), drop=candidate.drop, fits=(),
        epochs=(), timed=(), mask=None,
    )  # fmt: skip
    if stored is not None:
        store_round(run, number, record, replace(stored[1], removed=plan.removed))
    return advance(first, retrace(plan.trace), plan.removed, record, run.options)


def _copy(source: Path, target: Path) -> None:
    """Copy a file into place, atomically."""
    with workshop(target) as temporary:
        shutil.copyfile(source, temporary / target.name)
        move_into_place(temporary / target.name, target)
