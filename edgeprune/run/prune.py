"""Removal by itself: a mask or a criterion in, a smaller network out, without fine-tuning.

Lossless rounds first: what a mask makes dead, constant or doubled goes without changing
an output. Then, if a budget asks for more, components go: by the evidence of the mask
where one was given (score mass lost per cost saved), else as the rounds of `compress`
would, by the criterion's rank and measured sensitivity. With data the layers that lost
inputs are refitted in closed form and batch norm is recalibrated.

Guarantee: without a budget the result computes what the masked network computes.
Elsewhere: training (recovery.finetune), the search over budgets (search).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import BoolArray, Couplings, RemovalCost
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.registry import check_theta, needs_data
from edgeprune.data import Dataset
from edgeprune.errors import DataError, OutputError
from edgeprune.graph.execution import outputs
from edgeprune.graph.features import drop_identity_selections
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace, run, save
from edgeprune.masks import Mask, MaskCoverage, evidence, mask_coverage, mask_from_zeros, order
from edgeprune.records import Interval
from edgeprune.paths import require_replaceable
from edgeprune.recovery import compensate, recalibrate
from edgeprune.run.stages import Analysis, checked_split
from edgeprune.search.costs import parameters, refuse_unreachable, size_cost
from edgeprune.search.goals import Goal, dense_price, goals_of
from edgeprune.search.plans import plan
from edgeprune.search.rounds import capture_for
from edgeprune.search.state import SearchState, advance, start
from edgeprune.session.budget import Budget
from edgeprune.session.dense import Measure, Prepared
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Clock, Options, Progress
from edgeprune.simplify.lossless import apply_mask
from edgeprune.store import write_json
from edgeprune.surgery.cut import cut, retrace
from edgeprune.surgery.recipe import recipe
from edgeprune.tasks.metrics import resolve_metric


@dataclass(frozen=True)
class PruneSettings:
    """How to prune once. `criterion` None means ib-gauss, or l2 for a mask without data."""

    macs: float | None = None
    params: float | None = None
    criterion: str | None = None
    theta: float = 0.0
    allocation: str = "sensitivity"
    recover: bool = True
    calibration: int = 1024
    validation: float = 0.15
    metric: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Pruned:
    """The smaller network and what became of each component of the one given (`removed`).

    `validation` holds the measure before, masked, and after, with the paired loss in points;
    None without data. `honoured` is None without a mask. `lossless` counts what went unnoticed.
    """

    trace: Trace
    removed: BoolArray
    macs: tuple[int, int]
    params: tuple[int, int]
    lossless: dict[str, Any]
    criterion: str | None
    recovered: bool
    honoured: MaskCoverage | None
    mask_density: float | None
    validation: dict[str, Any] | None
    recipe: dict[str, Any]


def prune_model(
    found: Analysis,
    dataset: Dataset | None,
    mask: Mask | None,
    settings: PruneSettings,
    *,
    clock: Clock | None = None,
) -> Pruned:
    """Remove what the mask makes dead, then as much as the budget asks for.

    Raises:
        MaskError: the mask does not fit the model.
        DataError: a criterion that needs data without any.
        BudgetError: the budget lies below what structure allows.
    """
    clock = clock or Clock(Progress())
    criterion = _criterion(dataset, mask, settings)
    sparse = found.trace if mask is None else apply_mask(found.trace, found.couplings, mask)
    prepared = _prepared(found, sparse, dataset, settings)
    options = Options(
        criterion=criterion or "l2", theta=settings.theta, allocation=settings.allocation,
        seed=settings.seed, calibration=settings.calibration, keep=found.keep, epochs=0,
    )  # fmt: skip
    budget = Budget(None, settings.macs, settings.params)
    refuse_unreachable(found.trace, found.couplings, budget)
    targets = goals_of(prepared, budget)
    state = start(prepared, options, clock)
    lossless = dict(state.record["lossless"])
    for target in targets:
        state = _step(prepared, state, target, options, settings.recover, mask is not None, clock)
    recovered = settings.recover and dataset is not None and bool(targets)
    return Pruned(
        state.trace,
        state.removed,
        (round(found.couplings.macs()), round(state.couplings.macs())),
        (parameters(found.trace), parameters(state.trace)),
        lossless,
        criterion if targets else None,
        recovered,
        None if mask is None else mask_coverage(mask, found.couplings, state.removed),
        None if mask is None else mask.density,
        _validation(found, prepared, sparse if mask is not None else None, state.trace, clock),
        recipe(found.trace, found.couplings, state.removed),
    )


def write_pruned(pruned: Pruned, path: Path) -> Path:
    """Write the network as .pt2 and the recipe beside it (NAME.recipe.json, returned).

    Raises:
        OutputError: one of them cannot be written; then neither is left.
    """
    beside = path.with_name(f"{path.stem}.recipe.json")
    require_replaceable(path)
    try:
        write_json(beside, pruned.recipe)
        save(drop_identity_selections(pruned.trace), path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}", tip="free some space") from error
    return beside


def _criterion(dataset: Dataset | None, mask: Mask | None, settings: PruneSettings) -> str | None:
    """The criterion to use; None where nothing is scored."""
    if settings.macs is None and settings.params is None:
        return None
    if settings.criterion is None and dataset is None and mask is not None:
        return "l2"
    name = settings.criterion or "ib-gauss"
    check_theta(name, settings.theta)
    if dataset is None and needs_data(name):
        asked = " ".join(
            f"--{k} {v:g}" for k, v in (("macs", settings.macs), ("params", settings.params)) if v
        )
        raise DataError(
            f"no data: --criterion {name} with {asked} needs some",
            tip="give --data, or prune by weights alone with --criterion l2 --macs 0.5",
        )
    return name


def _prepared(found: Analysis, sparse: Trace, dataset: Dataset | None, settings: PruneSettings) -> Prepared:
    splits = None
    if dataset is not None:
        splits = checked_split(
            found.trace, dataset, calibration=settings.calibration, validation=settings.validation,
            seed=settings.seed,
        )  # fmt: skip
    labelled = dataset is not None and dataset.labels is not None
    metric = resolve_metric(settings.metric or "accuracy") if labelled else None
    measure = Measure(metric.name if metric else "agreement with the model given", metric)
    return Prepared(sparse, found.couplings, dataset, splits, measure, (), {}, {}, align=1)


def _step(
    prepared: Prepared,
    state: SearchState,
    target: Goal,
    options: Options,
    recover: bool,
    by_mask: bool,
    clock: Clock,
) -> SearchState:
    """Down to one target."""
    cost = size_cost(state.trace, state.couplings, target.kind)
    goal = target.share * dense_price(prepared, target.kind)
    if cost(_none(state.couplings)) <= goal:
        return state
    with clock.stage("capture"):
        statistics = capture_for(prepared, state, options, clock)
    with clock.stage("score"):
        scores = score(
            options.criterion, Context(state.trace, state.couplings, statistics, options.seed, options.theta)
        )
    with clock.stage("plan"):
        if by_mask:
            removed = by_evidence(state, scores, cost, goal)
        else:
            removed = plan(prepared, state, scores, statistics, (target,), options, clock).removed
    with clock.stage("remove"):
        if recover and prepared.dataset is not None:
            calibration = prepared.calibration()
            smaller, _ = compensate(state.trace, state.couplings, removed, calibration)
            smaller = recalibrate(smaller, calibration)
        else:
            smaller = cut(state.trace, state.couplings, removed)
    with clock.stage("re-trace"):
        return advance(state, retrace(smaller), removed, state.record, options)


def by_evidence(state: SearchState, scores: Scores, cost: RemovalCost, goal: float) -> BoolArray:
    """Components in order of score mass that the mask keeps, per cost saved, until `cost` is `goal`.

    The mask is read off the zeros in the weights, where the lossless rounds left it. The mass
    of a layer counts as a share of the layer's whole: scores rank within a layer only. One
    component of every group, and one index of every dimension, stays.
    """
    couplings = state.couplings
    weights = {
        name: t
        for name, t in state_tensors(state.trace.graph).items()
        if name in couplings.tensors and t.is_floating_point()
    }
    found = evidence(mask_from_zeros(weights), scores.connections, couplings, scale="share")
    removed = _none(couplings)
    left = np.bincount(couplings.group, minlength=len(couplings.group_names))
    for c in order(found, savings(cost, couplings.count)):
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
    whole = cost(np.zeros(count, bool))
    found = np.zeros(count)
    for c in range(count):
        alone = np.zeros(count, bool)
        alone[c] = True
        found[c] = whole - cost(alone)
    return found


def _validation(
    found: Analysis, prepared: Prepared, sparse: Trace | None, small: Trace, clock: Clock
) -> dict[str, Any] | None:
    """The measure on the validation part: of the model given, of the masked one, and of the result."""
    if prepared.dataset is None or prepared.splits is None:
        return None
    with torch.no_grad():
        if run(found.trace.graph, found.trace.inputs)[0].dim() != 2 and prepared.measure.metric is None:
            return None
    at, dataset = prepared.splits.validation, prepared.dataset
    labels = None if dataset.labels is None else dataset.labels[at]
    steps: Mapping[str, Trace | None] = {"given": found.trace, "masked": sparse, "pruned": small}
    with clock.stage("validation"):
        made = {k: outputs(t.graph, dataset, at, BATCH) for k, t in steps.items() if t is not None}
    values = {k: prepared.measure.scores(v, made["given"], labels)[0] for k, v in made.items()}
    prepared.dense["validation"] = made["given"]
    drop: Interval = prepared.drop(made["pruned"], "validation")
    return {"measured_as": prepared.measure.name, "samples": len(at), **values, "drop": drop}


def _none(couplings: Couplings) -> BoolArray:
    return np.zeros(couplings.count, dtype=bool)
