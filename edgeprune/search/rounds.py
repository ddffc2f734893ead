"""One prune-recover round: score, share the budget, remove, compensate, fine-tune, re-trace.

A round starts from a SearchState (the dense network, or the result of the round before) and
gives the next one with its record, kept in the run folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.components import BoolArray
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.label import channel_label_information
from edgeprune.frontend.load import load_model
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace, save, trace
from edgeprune.masks import evidence, mask_coverage, mask_from_scores
from edgeprune.recovery import FineTune, compensate, finetune, recalibrate
from edgeprune.recovery.finetune import penultimate
from edgeprune.search.costs import parameters
from edgeprune.search.goals import Goals
from edgeprune.search.plans import plan
from edgeprune.search.state import SearchState, advance
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder
from edgeprune.surgery.cut import cut, retrace


def run_round(
    prepared: Prepared,
    state: SearchState,
    goals: Goals,
    number: int,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    *,
    last: bool = False,
) -> SearchState:
    """Do round `number`, or take it from the run folder when it was finished before.

    Args:
        last: no round follows that could make up for a prediction that was off, so whole models are timed.
    """
    stage = f"rounds/{number}"
    found = folder.load(stage)
    asked = {"goals": {g.kind: g.share for g in goals}, "from": state.record.get("round", 0)}
    if found is not None and found["asked"] == asked:
        clock.progress.note(f"round {number}: taken from {folder.path}")
        arrays = folder.arrays(stage)
        loaded = load_model(folder.path / f"{stage}.pt2")
        return advance(state, trace(loaded.program), arrays["now"], found, options)
    label = f"round {number}"
    with clock.stage(f"{label}: capture"):
        statistics = capture_for(prepared, state, options, clock)
    with clock.stage(f"{label}: score"):
        context = Context(state.trace, state.couplings, statistics, options.seed, options.theta)
        scores = score(options.criterion, context)
    with clock.stage(f"{label}: plan"):
        chosen = plan(prepared, state, scores, statistics, goals, options, clock, correct=last)
        removed, curves = chosen.removed, chosen.curves
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
        "mask": _mask_report(scores, state, removed, state.couplings.macs(removed) / state.couplings.macs()),
        "timed": chosen.timed,
        "curves": {state.couplings.group_names[g]: c for g, c in curves.items()},
    }
    if prepared.splits is not None and prepared.dataset is not None:
        out = outputs(again.graph, prepared.dataset, prepared.splits.validation, BATCH)
        record["validation_drop"] = prepared.drop(out, "validation", level=0.8)
    arrays = {"now": removed, **_explanation(scores, context)}
    (folder.path / "rounds").mkdir(exist_ok=True)
    save(again, folder.path / f"{stage}.pt2")
    folder.save(stage, record, arrays=arrays, files=(f"{stage}.pt2",))
    return advance(state, again, removed, folder.load(stage) or {}, options)


def capture_for(prepared: Prepared, state: SearchState, options: Options, clock: Clock) -> Statistics | None:
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
        features=options.features,
        ib_beta=options.ib_beta,
        seed=options.seed + number,
    )
    features = penultimate(prepared.trace.graph, dataset, splits.train) if options.features else None
    return finetune(
        pruned,
        dataset,
        splits.train,
        prepared.dense["train"],
        validate,
        settings,
        teacher_features=features,
        progress=lambda step, steps, loss: clock.progress.step(step, steps, f"loss {loss:.3f}"),
    )


def _mask_report(scores: Scores, state: SearchState, removed: BoolArray, density: float) -> dict[str, Any]:
    """What an unstructured mask of the same density would keep, and what became real removal."""
    mask = mask_from_scores(scores.connections, min(max(density, 0.01), 0.99))
    found = mask_coverage(mask, state.couplings, removed)
    share = evidence(mask, scores.connections, state.couplings).kept_share
    kept, gone = share[~removed], share[removed]
    return {
        "density": density,
        "masked": found.masked,
        "removed": found.removed,
        "given_up": found.given_up,
        "live_removed": found.live_removed,
        "coverage_share": found.share,
        "share_kept_in_removed": float(gone.mean()) if len(gone) else None,
        "share_kept_in_kept": float(kept.mean()) if len(kept) else None,
    }


def _explanation(scores: Scores, context: Context) -> dict[str, np.ndarray]:
    """Arrays that `explain` reads: score, rank, and what the channel says of the label alone."""
    arrays = {"score": scores.component, "rank": scores.rank}
    known = channel_label_information(context)
    if known is not None:
        arrays |= {"label_nats": known[0], "p_value": known[1]}
    return {**arrays, **{f"detail_{k}": v for k, v in scores.details.items()}}
