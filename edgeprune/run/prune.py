"""Removal by itself: a mask or a criterion in, a smaller network out, without fine-tuning.

Lossless rounds first: what a mask makes dead, constant or doubled goes without changing an output. Then, if
a budget asks for more, components go: by the evidence of the mask (score mass lost per cost saved), or as
the rounds of `compress` would, by the criterion's rank and measured sensitivity. With data the layers that
lost inputs are refitted in closed form.

Guarantee: without a budget the result computes what the masked network computes.
Elsewhere: training (recovery.finetune), the search over budgets (search).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.coupling.components import BoolArray
from edgeprune.criteria.registry import check_theta, needs_data
from edgeprune.data import Dataset
from edgeprune.errors import DataError, OutputError
from edgeprune.graph.execution import outputs
from edgeprune.graph.features import drop_identity_selections
from edgeprune.graph.trace import Trace, save
from edgeprune.masks import Mask, MaskCoverage, mask_coverage
from edgeprune.paths import require_replaceable
from edgeprune.records import Interval
from edgeprune.run.analysis import Analysis, open_run_data
from edgeprune.search.costs import parameters, refuse_unreachable
from edgeprune.search.goals import Goal, goals_of, shares
from edgeprune.search.lossless_round import start
from edgeprune.search.rounds import remove
from edgeprune.search.state import LosslessCounts, SearchState, advance
from edgeprune.session.dense import DenseNetwork, RunData
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.simplify.lossless import apply_mask
from edgeprune.store import write_json
from edgeprune.surgery.cut import retrace
from edgeprune.surgery.recipe import recipe


@dataclass(frozen=True)
class Validation:
    """The task's measure on the validation part, of the model given, masked and pruned; the paired loss."""

    measured_as: str
    unit: str
    samples: int
    given: float
    pruned: float
    drop: Interval
    masked: float | None = None


@dataclass(frozen=True)
class Pruned:
    """The smaller network and what became of each component of the one given (`removed`).

    macs, params: before and after. validation is None without data, coverage without a mask. criterion is
    None where nothing was scored.
    """

    trace: Trace
    removed: BoolArray
    macs: tuple[int, int]
    params: tuple[int, int]
    lossless: LosslessCounts
    criterion: str | None
    recovered: bool
    coverage: MaskCoverage | None
    mask_density: float | None
    validation: Validation | None
    recipe: dict[str, Any]
    notes: tuple[str, ...] = ()


def prune_model(
    analysis: Analysis,
    dataset: Dataset | None,
    mask: Mask | None,
    options: Options,
    *,
    recover: bool = True,
    clock: Clock | None = None,
) -> Pruned:
    """Remove what the mask makes dead, then as much as the budget asks for.

    Args:
        options: its budget holds macs and params only. recover: refit what stays, where there are data.

    Raises:
        MaskError: the mask does not fit the model.
        DataError: a criterion that needs data without any.
        BudgetError: the budget lies below what structure allows.
    """
    clock = clock or Clock()
    _check(dataset, options)
    data = None if dataset is None else open_run_data(analysis.trace, dataset, options)
    dense = DenseNetwork(analysis.trace, analysis.couplings, data)
    refuse_unreachable(analysis.trace, analysis.couplings, options.budget)
    goals = goals_of(dense, options.budget)
    state = start(dense, options, clock, mask=mask)
    lossless = state.record.lossless or LosslessCounts()
    for goal in goals:
        state = _down_to(dense, state, goal, options, recover, clock)
    return Pruned(
        state.trace,
        state.removed,
        (round(analysis.couplings.macs()), round(state.couplings.macs())),
        (parameters(analysis.trace), parameters(state.trace)),
        lossless,
        options.criterion if goals else None,
        recover and data is not None and bool(goals),
        None if mask is None else mask_coverage(mask, analysis.couplings, state.removed),
        None if mask is None else mask.density,
        None if data is None else _validation(analysis, data, mask, state.trace, clock),
        recipe(analysis.trace, analysis.couplings, state.removed),
        () if data is None or not data.task_note else (data.task_note,),
    )


def default_criterion(dataset: Dataset | None, mask: Mask | None) -> str:
    """ib-gauss, or l2 for a mask without data."""
    return "l2" if dataset is None and mask is not None else "ib-gauss"


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


def _check(dataset: Dataset | None, options: Options) -> None:
    """Refuse a criterion that needs data without any, if something will be scored."""
    if not options.budget.sized:
        return
    check_theta(options.criterion, options.theta)
    if dataset is None and needs_data(options.criterion):
        raise DataError(
            f"no data: --criterion {options.criterion} with {options.budget.asked()} needs some",
            tip="give --data, or prune by weights alone with --criterion l2 --macs 0.5",
        )


def _down_to(
    dense: DenseNetwork, state: SearchState, goal: Goal, options: Options, recover: bool, clock: Clock
) -> SearchState:
    """Bring a network down to one goal."""
    if shares(dense, state.trace, state.couplings, (goal,))[goal.kind] <= goal.share:
        return state
    removal = remove(dense, state, (goal,), options, clock, recover=recover)
    if removal is None:
        return state
    with clock.stage("re-trace"):
        return advance(state, retrace(removal.smaller), removal.removed, state.record, options)


def _validation(
    analysis: Analysis, data: RunData, mask: Mask | None, smaller: Trace, clock: Clock
) -> Validation:
    """The task's measure on the validation part: of the model given, of the masked one, and of the result."""
    steps = {"given": analysis.trace, "pruned": smaller}
    if mask is not None:
        steps["masked"] = apply_mask(analysis.trace, analysis.couplings, mask)
    with clock.stage("validation"):
        step_outputs = {
            k: outputs(t.graph, data.dataset, data.splits.validation, BATCH) for k, t in steps.items()
        }
    judged = replace(data, dense={"validation": step_outputs["given"]})
    values = {k: judged.measured(out, "validation")[0][1].value for k, out in step_outputs.items()}
    loss = judged.loss(step_outputs["pruned"], "validation")
    return Validation(
        loss.deciding.measure, loss.unit, len(data.splits.validation), values["given"], values["pruned"],
        loss.drop, values.get("masked"),
    )  # fmt: skip
