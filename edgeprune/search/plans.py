"""Which components a round removes: widths of least loss within the goals, corrected by timing.

A prediction of milliseconds adds up layers; the whole model is then built, timed beside the
dense one, until the measured time keeps to what was asked. Elsewhere: how the next plan follows from
what was measured (landing), the prediction (latencies), the loss curves (recovery.sensitivity), the
knapsack (planning).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeprune.calibration.capture import Statistics
from edgeprune.coupling.components import BoolArray
from edgeprune.criteria import Scores
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import reexport
from edgeprune.measure.tails import time_tail
from edgeprune.records import BenchResult
from edgeprune.search.allocate import allocate
from edgeprune.search.goals import Goal, Goals, joint
from edgeprune.search.groups import Curve, uniform
from edgeprune.search.plan_correction import TIMINGS, TimedPlan, correct_plan
from edgeprune.search.sensitivity import sensitivity
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import BATCH
from edgeprune.session.latency_model import TAIL_SECONDS
from edgeprune.session.options import Clock, Options
from edgeprune.surgery.cut import cut

SENSITIVITY_SAMPLES = 512
MEDIAN, TAIL = 50, 99  # percentiles
TIMING_SECONDS = 3.0  # at most, and no longer than the final bench


@dataclass(frozen=True)
class Plan:
    """`removed` components of a state, the curves that decided, and what whole models showed.

    timed: per correction the share of the dense latency that was predicted and that was measured, and
        of which percentile: 99 for a deadline, and 50 where there were too few inferences for that.
    """

    removed: BoolArray
    curves: dict[int, Curve] = field(default_factory=dict)
    timed: tuple[dict[str, float], ...] = ()


def plan(
    prepared: Prepared,
    state: SearchState,
    scores: Scores,
    statistics: Statistics | None,
    goals: Goals,
    options: Options,
    clock: Clock,
    *,
    correct: bool = False,
) -> Plan:
    """Components to remove so that a state reaches its goals.

    Args:
        correct: time whole models and correct the prediction, where there is a board to time on.
    """
    nothing = np.zeros(state.couplings.count, bool)
    if not goals or joint(prepared, state.trace, state.couplings, goals)(nothing) <= 1:
        return Plan(nothing)
    curves: dict[int, Curve] = {}
    if statistics is None:
        curves = score_curves(state, scores)
    elif options.allocation != "uniform":
        samples = prepared.calibration()[: max(1, SENSITIVITY_SAMPLES // BATCH)]
        curves = sensitivity(
            state.trace, state.couplings, statistics, scores.rank, samples, progress=clock.progress.step
        )

    def choose(wanted: Goals, held: BoolArray | None = None) -> BoolArray:
        return _choose(prepared, state, scores, curves, wanted, options, held)

    timer = None if prepared.latency is None else prepared.latency.timer
    if not correct or timer is None or all(g.kind != "ms" for g in goals):
        return Plan(choose(goals), curves)
    asked, tail = next((g.share, g.tail) for g in goals if g.kind == "ms")
    predicted = joint(prepared, state.trace, state.couplings, (Goal("ms", 1.0),))
    seconds = TAIL_SECONDS if tail else min(TIMING_SECONDS, options.bench_seconds)

    def aimed(aim: float, held: BoolArray | None) -> BoolArray:
        return choose(tuple(Goal("ms", aim) if g.kind == "ms" else g for g in goals), held)

    percentiles: list[int] = []

    def measured(removed: BoolArray, turn: int) -> TimedPlan:
        share, percentile = timed_share(prepared, state, removed, seconds, clock, tail=tail)
        percentiles.append(percentile)
        clock.progress.step(turn, TIMINGS, f"{share:.3f} of the dense latency, {asked:.3f} asked")
        return TimedPlan(share, predicted(removed), removed)

    others = tuple(g for g in goals if g.kind != "ms")
    rest = joint(prepared, state.trace, state.couplings, others) if others else lambda _: 0.0
    group = None if options.allocation == "uniform" else state.couplings.group
    best, tried = correct_plan(asked, aimed, measured, group, lambda removed: rest(removed) <= 1)
    timed = tuple(
        {"asked": asked, "predicted": t.predicted, "measured": t.measured, "percentile": percentile}
        for t, percentile in zip(tried, percentiles, strict=True)
    )
    return Plan(best.removed, curves, timed)


def score_curves(state: SearchState, scores: Scores) -> dict[int, Curve]:
    """Loss curves without data: the share of a group's score that goes, steeper the less is left."""
    curves = {}
    for g in range(len(state.couplings.group_names)):
        rows = np.flatnonzero(state.couplings.group == g)
        if len(rows) < 2:
            continue
        kept = np.abs(scores.component[rows][np.argsort(scores.rank[rows], kind="stable")])
        gone = np.concatenate([[0.0], np.cumsum(kept)]) / max(float(kept.sum()), 1e-30)
        share = np.linspace(0, 1, len(rows) + 1)
        losses = gone / (1.05 - share)
        curves[g] = Curve(tuple(share.tolist()), tuple(losses.tolist()))
    return curves


def _choose(
    prepared: Prepared,
    state: SearchState,
    scores: Scores,
    curves: dict[int, Curve],
    goals: Goals,
    options: Options,
    held: BoolArray | None,
) -> BoolArray:
    """The widths; those that suit the machine unless that misses the goals or the cost knows them."""
    cost = joint(prepared, state.trace, state.couplings, goals)
    align = 1 if any(g.kind == "ms" for g in goals) else prepared.align
    removed = np.zeros(state.couplings.count, bool)
    for block in dict.fromkeys((align, 1)):
        if options.allocation == "uniform":
            removed = uniform(state.couplings, scores.rank, cost, 1.0, align=block)
        else:
            removed = allocate(state.couplings, scores.rank, curves, cost, 1.0, align=block, held=held)
        if cost(removed) <= 1:
            break
    return removed


def timed_share(
    prepared: Prepared,
    state: SearchState,
    removed: BoolArray,
    seconds: float,
    clock: Clock,
    *,
    tail: bool = False,
) -> tuple[float, int]:
    """Time of the network without `removed` over the dense file's, in paired rounds, and its percentile.

    Args:
        tail: of 99th percentiles, as long as there are inferences enough for these, and not of medians.

    Raises:
        BenchError, DeviceError: the files cannot be timed.
    """
    assert prepared.latency is not None and prepared.latency.timer is not None and prepared.file is not None
    small = cut(state.trace, state.couplings, removed)
    time, note = prepared.latency.timer.time, clock.progress.note
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "small.onnx"
        export_onnx(reexport(small.graph, small.inputs, small.dynamic), path)
        paths = [prepared.file.path, path]
        found = time_tail(time, paths, seconds, note) if tail else time(paths, seconds)
    share, percentile = share_of(found, tail=tail)
    if tail and percentile != TAIL:
        note("too few inferences for 99th percentiles: this plan is corrected by its median")
    return share, percentile


def share_of(found: BenchResult, *, tail: bool) -> tuple[float, int]:
    """Time of the second file by that of the first, and the percentile that was compared."""
    dense, shipped = (m.p99_ms for m in found.models)
    if tail and dense is not None and shipped is not None:
        return shipped.value / dense.value, TAIL
    return found.ratios[0].ratio.value, MEDIAN
