"""One prune-recover round: score, plan, remove, refit, fine-tune, re-trace.

remove(...)      score, plan, remove and refit: all of a round for `prune`
run_round(...)   the same with fine-tuning and validation, stored in the run folder: for `compress`

Both start from a SearchState (the dense network, or the result of the round before) and give the next.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.components import BoolArray
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.label import channel_label_information
from edgeprune.frontend.load import load_model
from edgeprune.graph.compute import open_compute
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace, save, trace
from edgeprune.masks import evidence, mask_coverage, mask_from_scores
from edgeprune.records.schema import read_as
from edgeprune.recovery import recover_closed_form
from edgeprune.recovery.finetune import Epoch
from edgeprune.search.costs import parameters
from edgeprune.search.goals import Goals
from edgeprune.search.plans import Plan, ScoredNetwork, plan
from edgeprune.search.sensitivity import split_images
from edgeprune.search.state import Asked, MaskOutcome, RoundRecord, RoundScores, SearchState, advance
from edgeprune.search.training import fine_tune
from edgeprune.session.context import RunContext
from edgeprune.session.dense import DenseNetwork
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.session.user_training import train_by_user
from edgeprune.surgery.cut import cut, retrace


@dataclass(frozen=True)
class Removal:
    """What a round removed, and the network without it (not exported again yet); `fits` of its refit."""

    plan: Plan
    scores: Scores
    context: Context
    smaller: Trace
    fits: tuple[dict[str, Any], ...] = ()

    @property
    def removed(self) -> BoolArray:
        return self.plan.removed


def remove(
    dense: DenseNetwork,
    state: SearchState,
    goals: Goals,
    options: Options,
    clock: Clock,
    *,
    label: str = "",
    recover: bool = True,
    correct: bool = False,
) -> Removal | None:
    """Bring a network down to its goals; None where nothing has to go or can go.

    Args:
        label: prefix of the stages' names. recover: refit what stays, where there are data.
        correct: time whole models and correct the plan by them.
    """
    prefix = f"{label}: " if label else ""
    statistics = None
    if dense.data is not None:
        with clock.stage(f"{prefix}capture"):
            statistics = capture_for(dense, state, options, clock)
    with clock.stage(f"{prefix}score"):
        context = Context(state.trace, state.couplings, statistics, options.seed, options.theta)
        scores = score(options.criterion, context)
    with clock.stage(f"{prefix}plan"):
        chosen = plan(dense, ScoredNetwork(state, scores, statistics), goals, options, clock, correct=correct)
    if not chosen.removed.any():
        return None
    refit = recover and dense.data is not None
    with clock.stage(f"{prefix}remove and refit" if refit else f"{prefix}remove"):
        if dense.data is None or not recover:
            smaller = cut(state.trace, state.couplings, chosen.removed)
            return Removal(chosen, scores, context, smaller)
        smaller, fits = recover_closed_form(
            state.trace,
            state.couplings,
            chosen.removed,
            dense.data.calibration(),
            compute=open_compute(options.accelerator),
        )
    return Removal(chosen, scores, context, smaller, tuple(asdict(fit) for fit in fits))


def run_round(
    dense: DenseNetwork,
    state: SearchState,
    goals: Goals,
    number: int,
    run: RunContext,
    *,
    last: bool = False,
    level: float = 0.8,
) -> SearchState:
    """Do round `number`, or take it from the run folder when it was finished before.

    Args:
        last: no later round can correct the prediction, so whole models are timed.
        level: two-sided coverage of the loss on validation.
    """
    options, clock, folder = run.options, run.clock, run.folder
    asked = Asked({g.kind: g.share for g in goals}, state.record.round)
    stored = stored_round(run, number)
    if stored is not None and stored[0].asked == asked:
        run.progress.note(f"round {number}: taken from {folder.path}")
        record, arrays = stored
        loaded = load_model(folder.path / f"rounds/{number}.pt2")
        smaller = trace(loaded.program, interface=state.trace.interface)
        return advance(state, smaller, arrays.removed, record, options)
    label = f"round {number}"
    removal = remove(dense, state, goals, options, clock, label=label, correct=last)
    if removal is None:
        return state
    smaller = removal.smaller
    history: tuple[Epoch, ...] = ()
    if dense.data is not None and run.train is not None:
        with clock.stage(f"{label}: train"):
            smaller = train_by_user(run.train, smaller, dense.trace, dense.data)
    elif dense.data is not None and options.epochs > 0:
        with clock.stage(f"{label}: fine-tune"):
            smaller, history = fine_tune(dense, dense.data, smaller, number, options, clock)
    with clock.stage(f"{label}: re-trace"):
        again = retrace(smaller)
    record = _record(dense, state, removal, asked, number, again)
    record = replace(record, epochs=tuple(asdict(epoch) for epoch in history))
    if dense.data is not None:
        loss = dense.data.loss(
            outputs(
                again.graph, dense.data.dataset, dense.data.splits.validation, BATCH, compute=run.compute
            ),
            "validation",
            level=level,
        )
        record = replace(record, drop=loss.drop, unit=loss.unit)
    arrays = _scores_of(removal)
    store_round(run, number, record, arrays, again)
    return advance(state, again, removal.removed, record, options)


def stored_round(run: RunContext, number: int) -> tuple[RoundRecord, RoundScores] | None:
    """A finished round of the run folder: its record and arrays."""
    stage = f"rounds/{number}"
    plain = run.folder.load(stage)
    if plain is None:
        return None
    record = read_as(RoundRecord, plain, f"{run.folder.path / stage}.json")
    return record, RoundScores.from_arrays(run.folder.arrays(stage))


def store_round(
    run: RunContext, number: int, record: RoundRecord, arrays: RoundScores, network: Trace | None = None
) -> None:
    """Keep a round in the run folder, with its network where no other file holds it."""
    stage = f"rounds/{number}"
    files: tuple[str, ...] = ()
    if network is not None:
        (run.folder.path / "rounds").mkdir(exist_ok=True)
        save(network, run.folder.path / f"{stage}.pt2")
        files = (f"{stage}.pt2",)
    run.folder.save(stage, record, arrays=arrays.arrays(), files=files)


def capture_for(dense: DenseNetwork, state: SearchState, options: Options, clock: Clock) -> Statistics | None:
    """Statistics on the calibration samples that planning does not measure on; None without data."""
    if dense.data is None:
        return None
    return capture(
        state.trace,
        state.couplings,
        dense.data.dataset,
        split_images(dense.data.splits.calibration)[0],
        task=dense.data.task,
        seed=options.seed,
        compute=open_compute(options.accelerator),
        progress=clock.progress.step,
    )


def _record(
    dense: DenseNetwork, state: SearchState, removal: Removal, asked: Asked, number: int, again: Trace
) -> RoundRecord:
    scores, couplings = removal.scores, state.couplings
    macs = couplings.macs(removal.removed)
    return RoundRecord(
        round=number,
        asked=asked,
        macs=macs,
        params=parameters(again),
        criterion=scores.criterion,
        settings=dict(scores.settings),
        estimator=scores.estimator,
        score_unit=scores.unit,
        samples=scores.samples,
        fits=removal.fits,
        mask=_mask_outcome(scores, state, removal.removed, macs / couplings.macs()),
        timed=removal.plan.timed,
        curves={couplings.group_names[g]: curve for g, curve in removal.plan.curves.items()},
    )


def _mask_outcome(scores: Scores, state: SearchState, removed: BoolArray, density: float) -> MaskOutcome:
    """What an unstructured mask of the same density would keep, and what became real removal."""
    mask = state.mask or mask_from_scores(scores.connections, min(max(density, 0.01), 0.99))
    coverage = mask_coverage(mask, state.couplings, removed)
    share = evidence(mask, scores.connections, state.couplings).kept_share
    kept, gone = share[~removed], share[removed]
    return MaskOutcome(
        density, coverage.masked, coverage.removed, coverage.given_up, coverage.live_removed, coverage.share,
        float(gone.mean()) if len(gone) else None, float(kept.mean()) if len(kept) else None,
    )  # fmt: skip


def _scores_of(removal: Removal) -> RoundScores:
    """Arrays that `explain` reads."""
    nats, p_value = channel_label_information(removal.context) or (None, None)
    scores = removal.scores
    return RoundScores(removal.removed, scores.component, scores.rank, nats, p_value, dict(scores.details))
