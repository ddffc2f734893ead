"""Criteria by name: the built-in ones, and those of installed packages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import entry_points

from edgeprune.criteria.base import Context, Scores
from edgeprune.criteria.finite import require_finite_inputs, require_finite_scores
from edgeprune.errors import CriterionError

BUILT_IN = {
    "ib-gauss": "edgeprune.criteria.ib_gauss:ib_gauss",
    "ib-edge": "edgeprune.criteria.ib_edge:ib_edge",
    "ib-jmi": "edgeprune.criteria.ib_jmi:ib_jmi",
    "mrmr": "edgeprune.criteria.mrmr:mrmr",
    "hsic-lasso": "edgeprune.criteria.hsic_lasso:hsic_lasso",
    "vib": "edgeprune.criteria.vib:vib",
    "random": "edgeprune.criteria.random:random",
    "l2": "edgeprune.criteria.l2:l2",
    "taylor": "edgeprune.criteria.taylor:taylor",
    "fpgm": "edgeprune.criteria.fpgm:fpgm",
}
Criterion = Callable[[Context], Scores]


def find(name: str) -> Criterion:
    """The criterion of this name.

    Raises:
        CriterionError: unknown; the nearest names are offered.
    """
    if name in BUILT_IN:
        module, function = BUILT_IN[name].split(":")
        criterion: Criterion = getattr(importlib.import_module(module), function)
        return criterion
    others = {e.name: e for e in entry_points(group="edgeprune.criteria")}
    if name in others:
        loaded: Criterion = others[name].load()
        return loaded
    known = [*BUILT_IN, *others]
    near = difflib.get_close_matches(name, known, 2) or known
    raise CriterionError(f"--criterion {name}: no such criterion", tip=f"did you mean {' or '.join(near)}?")


def needs_data(name: str) -> bool:
    """Whether a criterion needs data: all do but those that declare otherwise.

    Raises:
        CriterionError: unknown name.
    """
    return bool(getattr(find(name), "needs_data", True))


def check_theta(name: str, theta: float) -> None:
    """Refuse a θ that would be ignored.

    Raises:
        CriterionError: unknown name, or a criterion of this package, or one that says so, without a θ.
    """
    criterion = find(name)
    if theta and not getattr(criterion, "takes_theta", name not in BUILT_IN):
        raise CriterionError(
            f"--theta {theta:g}: --criterion {name} has no θ", tip="drop --theta, or use ib-edge or ib-jmi"
        )


def score(name: str, context: Context) -> Scores:
    """Score every component and connection; every score is finite.

    Raises:
        CriterionError: unknown name, a θ that it does not use, a criterion that needs data without data,
            NaN or infinity in weights, statistics or scores.
    """
    criterion = find(name)
    check_theta(name, context.theta)
    if context.statistics is None and needs_data(name):
        raise CriterionError(f"--criterion {name}: needs data", tip="give --data, or use --criterion l2")
    require_finite_inputs(name, context)
    scores = criterion(context)
    require_finite_scores(name, context, scores)
    return scores
