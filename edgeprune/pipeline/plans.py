"""Which components a round removes: widths of least loss within the goals, corrected by timing.

A prediction of milliseconds adds up layers; the whole model is then built, timed beside the
dense one, and the goal in predicted terms is moved by what the prediction was off, until the
measured time keeps to what was asked. Elsewhere: the prediction (latencies), the loss curves
(recovery.sensitivity), the knapsack (planning).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeprune.capture import Statistics
from edgeprune.coupling.components import BoolArray
from edgeprune.criteria import Scores
from edgeprune.model.trace import reexport
from edgeprune.onnxfile import export_onnx
from edgeprune.pipeline.exporting import BATCH
from edgeprune.pipeline.goals import Goal, Goals, joint
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.state import State
from edgeprune.planning import Curve, allocate, uniform
from edgeprune.recovery.sensitivity import sensitivity
from edgeprune.surgery import cut

SENSITIVITY_SAMPLES = 512
CORRECTIONS, CLOSE = 4, 0.02  # timings of whole models at most; measured over asked that is good enough
TIMING_SECONDS = 3.0  # at most, and no longer than the final bench


@dataclass(frozen=True)
class Plan:
    """`removed` components of a state, the curves that decided, and what whole models showed.

    timed: per correction the share of the dense latency that was predicted and that was measured.
    """

    removed: BoolArray
    curves: dict[int, Curve] = field(default_factory=dict)
    timed: tuple[dict[str, float], ...] = ()


def plan(
    prepared: Prepared,
    state: State,
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

    def choose(wanted: Goals) -> BoolArray:
        return _choose(prepared, state, scores, curves, wanted, options)

    timer = None if prepared.latency is None else prepared.latency.timer
    if not correct or timer is None or all(g.kind != "ms" for g in goals):
        return Plan(choose(goals), curves)
    seconds = min(TIMING_SECONDS, options.bench_seconds)
    return _corrected(prepared, state, goals, choose, curves, seconds, clock)


def score_curves(state: State, scores: Scores) -> dict[int, Curve]:
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
    state: State,
    scores: Scores,
    curves: dict[int, Curve],
    goals: Goals,
    options: Options,
) -> BoolArray:
    """The widths; those that suit the machine unless that misses the goals or the cost knows them."""
    cost = joint(prepared, state.trace, state.couplings, goals)
    align = 1 if any(g.kind == "ms" for g in goals) else prepared.align
    removed = np.zeros(state.couplings.count, bool)
    for block in dict.fromkeys((align, 1)):
        if options.allocation == "uniform":
            removed = uniform(state.couplings, scores.rank, cost, 1.0, align=block)
        else:
            removed = allocate(state.couplings, scores.rank, curves, cost, 1.0, align=block)
        if cost(removed) <= 1:
            break
    return removed


def _corrected(
    prepared: Prepared,
    state: State,
    goals: Goals,
    choose: Callable[[Goals], BoolArray],
    curves: dict[int, Curve],
    seconds: float,
    clock: Clock,
) -> Plan:
    """Move the predicted goal until the measured one is met; the slowest plan that keeps to it wins."""
    asked = next(g.share for g in goals if g.kind == "ms")
    aim, timed = asked, []
    best: tuple[float, BoolArray] | None = None
    slow: list[tuple[float, float]] = []  # measured and predicted share of plans on either side
    fast: list[tuple[float, float]] = []
    for turn in range(CORRECTIONS):
        removed = choose(tuple(Goal("ms", aim) if g.kind == "ms" else g for g in goals))
        cost = joint(prepared, state.trace, state.couplings, (Goal("ms", 1.0),))
        predicted, measured = cost(removed), timed_share(prepared, state, removed, seconds)
        timed.append({"asked": asked, "predicted": predicted, "measured": measured})
        clock.progress.step(turn + 1, CORRECTIONS, f"{measured:.3f} of the dense latency, {asked:.3f} asked")
        fits, before = measured <= asked * (1 + CLOSE), best is not None and best[0] <= asked * (1 + CLOSE)
        better = (
            best is None
            or (fits and (not before or measured > best[0]))
            or (not fits and not before and measured < best[0])
        )
        if better:
            best = measured, removed
        if abs(measured / asked - 1) <= CLOSE:
            break
        (slow if measured > asked else fast).append((measured, predicted))
        again = _next_aim(asked, slow, fast)
        if abs(again / aim - 1) < CLOSE / 4:
            break
        aim = again
    assert best is not None
    return Plan(best[1], curves, tuple(timed))


def _next_aim(asked: float, slow: list[tuple[float, float]], fast: list[tuple[float, float]]) -> float:
    """What to aim at in predicted terms: between the nearest plans on both sides, else scaled by the error.

    Scaling alone swings from one side to the other where a step of the staircase lies at the goal.
    """
    if slow and fast:
        (above, high), (below, low) = min(slow), max(fast)
        return low + (high - low) * (asked - below) / (above - below)
    measured, predicted = min(slow) if slow else max(fast)
    return predicted * asked / measured


def timed_share(prepared: Prepared, state: State, removed: BoolArray, seconds: float) -> float:
    """Median time of the network without `removed` over the dense file's, in paired rounds.

    Raises:
        BenchError, DeviceError: the files cannot be timed.
    """
    assert prepared.latency is not None and prepared.latency.timer is not None and prepared.file is not None
    small = cut(state.trace, state.couplings, removed)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "small.onnx"
        export_onnx(reexport(small.graph, small.inputs, small.dynamic), path)
        found = prepared.latency.timer.time([prepared.file.path, path], seconds)
    return found.ratios[0].ratio.value
