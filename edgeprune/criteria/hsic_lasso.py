"""hsic-lasso: few channels whose kernels together look like the label's.

min_{β≥0} ½‖L̄ − Σβ_i·K̄_i‖² + λ‖β‖₁ with centred, normalised Gaussian kernels K̄_i of the
channels and the delta kernel L̄ of the label, over blocks of samples (Yamada et al. 2014;
Climente-González et al. 2019; APIB, Guo et al., ICCV 2023). A channel's score is the λ at
which it enters the solution; what never enters scores what is left of its correlation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune.criteria.base import Context, FloatArray, Scores, broadcast, classes, complete, rank_in_groups
from edgeprune.criteria.values import Values, group_values, silent

BLOCK = 32
LAMBDAS = np.geomspace(1.0, 1e-4, 200)  # of the largest correlation
SWEEPS = 30


def hsic_lasso(context: Context) -> Scores:
    """The path of the lasso per group; kernels of several sources are added up."""
    assert context.statistics is not None
    couplings, labels = context.couplings, classes(context, "hsic-lasso")
    order = np.random.default_rng(context.seed).permutation(len(labels))  # blocks should mix classes
    component = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        values = group_values(context, group)
        if not values:
            continue
        members = np.flatnonzero(couplings.group == group)
        gram, target = _problem([x[order] for x in values], labels[order])
        scores = entries(gram, target)
        scores[silent(values)] = scores.min(initial=0.0) - 1.0
        component[members] = scores
    component = complete(context, component)
    return Scores(
        "hsic-lasso",
        {"block": BLOCK},
        component,
        rank_in_groups(couplings, component),
        broadcast(context, component),
        "normalised HSIC",
        "block HSIC lasso, Gaussian kernels",
        context.statistics.samples,
    )


def _problem(values: list[Values], labels: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Gram matrix (members, members) of the stacked kernels, and their product with the label's."""
    members = values[0].shape[1]
    gram, target, scale = np.zeros((members, members)), np.zeros(members), np.zeros(members)
    standard = [(x - x.mean(0)) / np.maximum(x.std(0), 1e-12) for x in values]
    energy = 0.0
    for start in range(0, len(labels) // BLOCK * BLOCK or len(labels), BLOCK):
        part = slice(start, start + BLOCK)
        same = labels[part, None] == labels[None, part]
        wanted = _centre(same[None].astype(float)).reshape(-1)
        energy += float(wanted @ wanted)
        kernels = np.zeros((members, len(wanted)))
        for x in standard:
            gap = x[part].T[:, :, None].astype(float) - x[part].T[:, None, :]
            kernels += _centre(np.exp(-(gap**2) / 2)).reshape(members, -1)
        gram += kernels @ kernels.T
        target += kernels @ wanted
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-12))
    return gram / np.outer(scale, scale), target / (scale * np.sqrt(max(energy, 1e-12)))


def _centre(kernels: FloatArray) -> FloatArray:
    """Double centring of (…, n, n)."""
    rows = kernels - kernels.mean(-1, keepdims=True)
    return np.asarray(rows - rows.mean(-2, keepdims=True))


def entries(gram: FloatArray, target: FloatArray) -> FloatArray:
    """λ at which each member enters the non-negative lasso as λ falls, shape (members,)."""
    beta, product = np.zeros(len(target)), np.zeros(len(target))  # product = gram @ beta
    levels = np.full(len(target), -np.inf)
    for share in LAMBDAS:
        level = share * max(float(target.max(initial=0.0)), 1e-12)
        for _ in range(SWEEPS):
            moved = 0.0
            for i in np.flatnonzero((beta > 0) | (target - product > level)):
                new = max(0.0, beta[i] + (target[i] - product[i] - level) / gram[i, i])
                if new != beta[i]:
                    product += (new - beta[i]) * gram[:, i]
                    moved = max(moved, abs(new - beta[i]))
                    beta[i] = new
            if moved < 1e-7:
                break
        fresh = (beta > 0) & ~np.isfinite(levels)
        # Of those that enter in one step, the one that took more weight came earlier.
        levels[fresh] = level * (1 + 1e-3 * beta[fresh] / max(beta.max(), 1e-12))
    rest = ~np.isfinite(levels)
    levels[rest] = np.minimum((target - product)[rest], levels[~rest].min(initial=np.inf))
    return levels
