"""Which components a round removes: widths of least loss within the goals, corrected by timing.

A prediction of milliseconds adds up layers; the whole model is then built, timed beside the dense one,
until the measured time meets the goal. With a mask, components go by the evidence of the mask instead:
score mass lost per cost saved.
Elsewhere: how the next plan follows from what was measured (plan_correction), the prediction
(session.latency_model), loss curves (sensitivity), the knapsack (allocate).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.calibration.capture import Statistics
from edgeprune.coupling.components import BoolArray, RemovalCost
from edgeprune.criteria import Scores
from edgeprune.errors import BenchError
from edgeprune.export.export import export_onnx
from edgeprune.graph.compute import Compute, open_compute
from edgeprune.graph.execution import batches
from edgeprune.graph.trace import reexport
from edgeprune.masks import evidence, order
from edgeprune.measure.tails import time_tail
from edgeprune.records import BenchResult
from edgeprune.search.allocate import allocate
from edgeprune.search.goals import Goal, Goals, joint
from edgeprune.search.groups import Curve, uniform
from edgeprune.search.plan_correction import TIMINGS, TimedPlan, correct_plan
from edgeprune.search.sensitivity import least_joint_loss, sensitivity, split_images
from edgeprune.search.state import SearchState, TimedShare
from edgeprune.session.dense import DenseNetwork, ExportedDense, RunData, latency_of
from edgeprune.session.exporting import BATCH
from edgeprune.session.latency_model import TAIL_SECONDS
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.surgery.cut import cut

MEDIAN, TAIL = 50, 99  # percentiles
TIMING_SECONDS = 3.0  # at most, and no longer than the final bench


@dataclass(frozen=True)
class ScoredNetwork:
    """A network on its way down with its scores; statistics are None without data."""

    state: SearchState
    scores: Scores
    statistics: Statistics | None


@dataclass(frozen=True)
class Plan:
    """`removed` components of a network, the loss curves by group, and the whole files that were timed."""

    removed: BoolArray
    curves: dict[int, Curve] = field(default_factory=dict)
    timed: tuple[TimedShare, ...] = ()


def plan(
    dense: DenseNetwork,
    scored: ScoredNetwork,
    goals: Goals,
    options: Options,
    clock: Clock,
    *,
    correct: bool = False,
) -> Plan:
    """Components to remove so that a network reaches its goals.

    Args:
        correct: time whole models and correct the prediction, where there is a target to time on.
    """
    state = scored.state
    cost = joint(dense, state.trace, state.couplings, goals) if goals else None
    if cost is None or cost(_none(state)) <= 1:
        return Plan(_none(state))
    if state.mask is not None:
        return Plan(by_evidence(state, scored.scores, cost, 1.0))
    curves = _curves(dense, scored, options, clock)

    def choose(wanted: Goals, held: BoolArray | None = None) -> BoolArray:
        return _choose(dense, scored, curves, wanted, options, held)

    model = latency_of(dense)
    if not correct or model is None or model.timer is None or all(g.kind != "ms" for g in goals):
        return Plan(choose(goals), curves)
    return _corrected(dense, state, goals, curves, choose, options, clock)


def _curves(dense: DenseNetwork, scored: ScoredNetwork, options: Options, clock: Clock) -> dict[int, Curve]:
    """Loss by removed share of each group; empty for uniform allocation."""
    if scored.statistics is None or dense.data is None:
        return score_curves(scored.state, scored.scores)
    if options.allocation == "uniform":
        return {}
    state, rank = scored.state, scored.scores.rank
    earlier = {name: c.correction for name, c in state.record.curves.items() if c.correction is not None}
    return sensitivity(
        state.trace,
        state.couplings,
        scored.statistics,
        rank,
        measuring_batches(dense.data),
        dense.data.task,
        known=earlier,
        compute=open_compute(options.accelerator),
        progress=clock.progress.step,
    )


def measuring_batches(data: RunData) -> list[tuple[torch.Tensor, ...]]:
    """Calibration images that the statistics were not captured on."""
    return [x for x, _ in batches(data.dataset, split_images(data.splits.calibration)[1], BATCH)]


def _corrected(
    dense: DenseNetwork,
    state: SearchState,
    goals: Goals,
    curves: dict[int, Curve],
    choose: Callable[[Goals, BoolArray | None], BoolArray],
    options: Options,
    clock: Clock,
) -> Plan:
    """The plan whose whole file was measured to meet the latency goal."""
    goal = next(g for g in goals if g.kind == "ms")
    predicted = joint(dense, state.trace, state.couplings, (Goal("ms", 1.0),))
    seconds = TAIL_SECONDS if goal.tail else min(TIMING_SECONDS, options.bench_seconds)
    percentiles: list[int] = []

    def aimed(share: float, held: BoolArray | None) -> BoolArray:
        return choose(tuple(Goal("ms", share) if g.kind == "ms" else g for g in goals), held)

    def measured(removed: BoolArray, turn: int) -> TimedPlan:
        share, percentile = timed_share(dense, state, removed, seconds, clock, tail=goal.tail)
        percentiles.append(percentile)
        clock.progress.step(turn, TIMINGS, f"{share:.3f} of the dense latency, {goal.share:.3f} asked")
        return TimedPlan(share, predicted(removed), removed)

    others = tuple(g for g in goals if g.kind != "ms")
    rest = joint(dense, state.trace, state.couplings, others) if others else lambda _: 0.0
    group = None if options.allocation == "uniform" else state.couplings.group
    best, tried = correct_plan(goal.share, aimed, measured, group, lambda removed: rest(removed) <= 1)
    timed = tuple(
        TimedShare(goal.share, t.predicted, t.measured, percentile)
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
    dense: DenseNetwork,
    scored: ScoredNetwork,
    curves: dict[int, Curve],
    goals: Goals,
    options: Options,
    held: BoolArray | None,
) -> BoolArray:
    """Widths, aligned to the machine's block unless that misses the goals or the cost knows it."""
    state, rank = scored.state, scored.scores.rank
    cost = joint(dense, state.trace, state.couplings, goals)
    align = 1 if any(g.kind == "ms" for g in goals) else dense.align
    removed = _none(state)
    for block in dict.fromkeys((align, 1)):
        if options.allocation == "uniform":
            removed = uniform(state.couplings, rank, cost, 1.0, align=block)
        else:
            removed = allocate(state.couplings, rank, curves, cost, 1.0, align=block, held=held)
            removed = _better(dense, scored, removed, uniform(state.couplings, rank, cost, 1.0, align=block),
                              cost, held, open_compute(options.accelerator))  # fmt: skip
        if cost(removed) <= 1:
            break
    return removed


def _better(
    dense: DenseNetwork,
    scored: ScoredNetwork,
    removed: BoolArray,
    control: BoolArray,
    cost: RemovalCost,
    held: BoolArray | None,
    compute: Compute,
) -> BoolArray:
    """The plan by curves, unless the same share of every group loses less when all of it goes together.

    Curves add up the losses of groups that were measured alone; in a deep network they do not quite.
    """
    reaches = cost(control) <= 1 and (held is None or not (held & ~control).any())
    if scored.statistics is None or dense.data is None or not reaches or cost(removed) > 1:
        return removed
    state = scored.state
    best, _ = least_joint_loss(
        state.trace, state.couplings, scored.statistics, [removed, control],
        measuring_batches(dense.data), dense.data.task, compute=compute,
    )  # fmt: skip
    return (removed, control)[best]


def by_evidence(state: SearchState, scores: Scores, cost: RemovalCost, goal: float) -> BoolArray:
    """Components in order of score mass that the mask keeps, per cost saved, until `cost` is `goal`.

    The mass of a layer counts as a share of the whole layer's: scores rank within a layer only. One
    component of every group, and one index of every dimension, stays.
    """
    couplings = state.couplings
    removed = _none(state)
    if state.mask is None:
        return removed
    mask_evidence = evidence(state.mask, scores.connections, couplings, scale="share")
    left = np.bincount(couplings.group, minlength=len(couplings.group_names))
    for c in order(mask_evidence, savings(cost, couplings.count)):
        if cost(removed) <= goal:
            break
        removed[c] = True
        left[couplings.group[c]] -= 1
        if left[couplings.group[c]] < 1 or couplings.emptied(removed):
            removed[c] = False
            left[couplings.group[c]] += 1
    return removed


def savings(cost: RemovalCost, count: int) -> npt.NDArray[np.float64]:
    """What removing each component alone saves, in the cost's unit, shape (count,)."""
    full = cost(np.zeros(count, bool))
    saved = np.zeros(count)
    for c in range(count):
        alone = np.zeros(count, bool)
        alone[c] = True
        saved[c] = full - cost(alone)
    return saved


def timed_share(
    dense: DenseNetwork,
    state: SearchState,
    removed: BoolArray,
    seconds: float,
    clock: Clock,
    *,
    tail: bool = False,
) -> tuple[float, int]:
    """Time of the network without `removed` over the dense file's, in paired rounds, and its percentile.

    Args:
        tail: compare 99th percentiles if there are enough inferences for them, not medians.

    Raises:
        BenchError, DeviceError: the files cannot be timed.
    """
    model = latency_of(dense)
    if model is None or model.timer is None or not isinstance(dense, ExportedDense):
        raise BenchError("no target to time on")
    small = cut(state.trace, state.couplings, removed)
    note = clock.progress.note
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "small.onnx"
        export_onnx(reexport(small.graph, small.inputs, small.dynamic), path)
        paths, time = [dense.artifact.path, path], model.timer.time
        result = time_tail(time, paths, seconds, note) if tail else time(paths, seconds)
    share, percentile = share_of(result, tail=tail)
    if tail and percentile != TAIL:
        note("too few inferences for 99th percentiles: this plan is corrected by its median")
    return share, percentile


def share_of(result: BenchResult, *, tail: bool) -> tuple[float, int]:
    """Time of the second file by that of the first, and the percentile that was compared."""
    dense, shipped = (m.p99_ms for m in result.models)
    if tail and dense is not None and shipped is not None:
        return shipped.value / dense.value, TAIL
    return result.ratios[0].ratio.value, MEDIAN


def _none(state: SearchState) -> BoolArray:
    return np.zeros(state.couplings.count, bool)
