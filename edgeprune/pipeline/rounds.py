"""One prune-recover round: score, share the budget, remove, compensate, fine-tune, re-trace.

A round starts from a State (the dense network, or the result of the round before) and
gives the next one with its record. Components keep their dense numbers throughout, so
that a report can say what happened to each channel of the model that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from edgeprune.capture import Statistics, capture
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.label import label_information
from edgeprune.errors import TraceError
from edgeprune.masks import evidence, honoured, mask_from_scores
from edgeprune.model.load import load_model
from edgeprune.model.run import outputs
from edgeprune.model.trace import Trace, save, trace
from edgeprune.pipeline.costs import cost_of, parameters, whole
from edgeprune.pipeline.lossless import free_of_charge, summary
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import BATCH, Prepared
from edgeprune.planning import Curve, allocate, uniform
from edgeprune.recovery import FineTune, compensate, finetune, recalibrate
from edgeprune.recovery.sensitivity import sensitivity
from edgeprune.store import RunFolder
from edgeprune.surgery import analyse, cut, retrace

SENSITIVITY_SAMPLES = 512


@dataclass(frozen=True)
class State:
    """A network on its way down. `origin` maps its components to the dense ones, `scored` those of
    the network before it, which is what the scores in its record are about.
    """

    trace: Trace
    couplings: Couplings
    origin: npt.NDArray[np.int64]
    removed: BoolArray  # dense components, shape (dense count,)
    record: dict[str, Any]
    scored: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """What a round aims at: `cost` of a removal falls to `value` (in the cost's own unit)."""

    kind: str  # "macs" or "params"
    share: float  # of the dense network


def start(prepared: Prepared, options: Options, clock: Clock) -> State:
    """The dense network after the lossless rounds."""
    count = prepared.couplings.count
    found = free_of_charge(prepared, clock)
    record: dict[str, Any] = {"round": 0, "lossless": summary(found)}
    numbers = np.arange(count)
    dense = State(prepared.trace, prepared.couplings, numbers, np.zeros(count, bool), record, numbers)
    if not len(found.removed):
        return dense
    clock.progress.note(f"lossless: {len(found.removed)} channels removed, certified to {found.max_abs:.1e}")
    # The full-size network with folded biases couples as the dense one, plus the new biases.
    folded = State(found.full, found.couplings, dense.origin, dense.removed, record, numbers)
    return advance(prepared, folded, found.trace, found.removed_mask, record, options)


def run_round(
    prepared: Prepared,
    state: State,
    target: Target,
    number: int,
    options: Options,
    folder: RunFolder,
    clock: Clock,
) -> State:
    """Do round `number`, or take it from the run folder when it was finished before."""
    stage = f"rounds/{number}"
    found = folder.load(stage)
    asked = {"kind": target.kind, "share": target.share, "from": state.record.get("round", 0)}
    if found is not None and found["asked"] == asked:
        clock.progress.note(f"round {number}: taken from {folder.path}")
        arrays = folder.arrays(stage)
        loaded = load_model(folder.path / f"{stage}.pt2")
        return advance(prepared, state, trace(loaded.program), arrays["now"], found, options)
    label = f"round {number}"
    with clock.stage(f"{label}: capture"):
        statistics = capture_for(prepared, state, options, clock)
    with clock.stage(f"{label}: score"):
        context = Context(state.trace, state.couplings, statistics, options.seed, options.theta)
        scores = score(options.criterion, context)
    with clock.stage(f"{label}: plan"):
        removed, curves = plan(prepared, state, scores, statistics, target, options, clock)
    if not removed.any():
        return state
    with clock.stage(f"{label}: remove and compensate"):
        fits: tuple[Any, ...] = ()
        if prepared.dataset is None:
            pruned = cut(state.trace, state.couplings, removed)
        else:
            calibration = prepared.calibration()
            pruned, fits = compensate(state.trace, state.couplings, removed, calibration)
            pruned = recalibrate(pruned, calibration)
    history: tuple[Any, ...] = ()
    if prepared.dataset is not None and options.epochs > 0:
        with clock.stage(f"{label}: fine-tune"):
            pruned, history = _finetune(prepared, pruned, number, options, clock)
    with clock.stage(f"{label}: re-trace"):
        again = retrace(pruned)
    record: dict[str, Any] = {
        "round": number,
        "asked": asked,
        "macs": state.couplings.macs(removed),
        "params": parameters(again),
        "criterion": scores.criterion,
        "settings": scores.settings,
        "estimator": scores.estimator,
        "unit": scores.unit,
        "samples": scores.samples,
        "fits": fits,
        "epochs": history,
        "mask": _mask_report(scores, state, removed, target.share),
        "curves": {state.couplings.group_names[g]: c for g, c in curves.items()},
    }
    if prepared.splits is not None and prepared.dataset is not None:
        out = outputs(again.graph, prepared.dataset, prepared.splits.validation, BATCH)
        record["validation_drop"] = prepared.drop(out, "validation", level=0.8)
    arrays = {"now": removed, **_explanation(scores, context)}
    (folder.path / "rounds").mkdir(exist_ok=True)
    save(again, folder.path / f"{stage}.pt2")
    folder.save(stage, record, arrays=arrays, files=(f"{stage}.pt2",))
    return advance(prepared, state, again, removed, folder.load(stage) or {}, options)


def advance(
    prepared: Prepared, state: State, again: Trace, now: BoolArray, record: dict[str, Any], options: Options
) -> State:
    """The state after `now` (components of `state`) went and the rest was traced as `again`."""
    couplings = analyse(again, keep=options.keep, seed=options.seed)
    origin = _origins(state, couplings, now)
    removed = state.removed.copy()
    removed[state.origin[now]] = True
    return State(again, couplings, origin, removed, record, state.origin)


def _origins(state: State, couplings: Couplings, now: BoolArray) -> npt.NDArray[np.int64]:
    """Dense component of each new component, read off any tensor dimension that both share."""
    origin = np.full(couplings.count, -1, dtype=np.int64)
    old = state.couplings
    for name, dims in couplings.tensors.items():
        before = old.tensors.get(old.aliases.get(name, ""), ())
        for extent, previous in zip(dims, before, strict=False):
            if extent is None or previous is None:
                continue
            new_units = couplings.extents[extent]
            old_units = old.extents[previous][old.keep_mask(previous, now)]
            both = (new_units >= 0) & (old_units >= 0)
            origin[new_units[both]] = state.origin[old_units[both]]
    if (origin < 0).any():
        raise TraceError("a component of the re-traced network has no counterpart in the one before")
    return origin


def capture_for(prepared: Prepared, state: State, options: Options, clock: Clock) -> Statistics | None:
    """Statistics of a state on the calibration samples; None without data."""
    if prepared.dataset is None or prepared.splits is None:
        return None
    return capture(
        state.trace,
        state.couplings,
        prepared.dataset,
        prepared.splits.calibration,
        seed=options.seed,
        progress=clock.progress.step,
    )


def plan(
    prepared: Prepared,
    state: State,
    scores: Scores,
    statistics: Statistics | None,
    target: Target,
    options: Options,
    clock: Clock,
) -> tuple[BoolArray, dict[int, Curve]]:
    """Components to remove so that a state reaches a target, and the curves that decided it."""
    cost = cost_of(state.trace, state.couplings, target.kind)
    goal = target.share * whole(prepared.trace, prepared.couplings, target.kind)
    if cost(np.zeros(state.couplings.count, bool)) <= goal:
        return np.zeros(state.couplings.count, bool), {}
    if statistics is None or options.allocation == "uniform":
        removed = uniform(state.couplings, scores.rank, cost, goal, align=prepared.align)
        if cost(removed) > goal:  # the budget comes before widths that suit the machine
            removed = uniform(state.couplings, scores.rank, cost, goal)
        return removed, {}
    samples = prepared.calibration()[: max(1, SENSITIVITY_SAMPLES // BATCH)]
    curves = sensitivity(
        state.trace, state.couplings, statistics, scores.rank, samples, progress=clock.progress.step
    )
    removed = allocate(state.couplings, scores.rank, curves, cost, goal, align=prepared.align)
    if cost(removed) > goal:
        removed = allocate(state.couplings, scores.rank, curves, cost, goal)
    return removed, curves


def _finetune(
    prepared: Prepared, pruned: Trace, number: int, options: Options, clock: Clock
) -> tuple[Trace, tuple[Any, ...]]:
    assert prepared.dataset is not None and prepared.splits is not None
    dataset, splits = prepared.dataset, prepared.splits

    def validate(graph: fx.GraphModule) -> float:
        out = outputs(graph, dataset, splits.validation, BATCH)
        return -prepared.drop(out, "validation").value

    settings = FineTune(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        distil=options.distil,
        seed=options.seed + number,
    )
    return finetune(
        pruned,
        dataset,
        splits.train,
        prepared.dense["train"],
        validate,
        settings,
        progress=lambda step, steps, loss: clock.progress.step(step, steps, f"loss {loss:.3f}"),
    )


def _mask_report(scores: Scores, state: State, removed: BoolArray, density: float) -> dict[str, Any]:
    """What an unstructured mask of the same density would keep, and what became real removal."""
    mask = mask_from_scores(scores.connections, min(max(density, 0.01), 0.99))
    found = honoured(mask, state.couplings, removed)
    share = evidence(mask, scores.connections, state.couplings).kept_share
    kept, gone = share[~removed], share[removed]
    return {
        "density": density,
        "masked": found.masked,
        "removed": found.removed,
        "given_up": found.given_up,
        "live_removed": found.live_removed,
        "honoured_share": found.share,
        "share_kept_in_removed": float(gone.mean()) if len(gone) else None,
        "share_kept_in_kept": float(kept.mean()) if len(kept) else None,
    }


def _explanation(scores: Scores, context: Context) -> dict[str, np.ndarray]:
    """Arrays that `explain` reads: score, rank, and what the channel says of the label alone."""
    arrays = {"score": scores.component, "rank": scores.rank}
    if context.statistics is not None:
        nats, p_value = label_information(context)
        arrays |= {"label_nats": nats, "p_value": p_value}
    return {**arrays, **{f"detail_{k}": v for k, v in scores.details.items()}}
