"""mrmr: what a channel says of the label, less what the chosen channels say of it.

Forward selection of I(T_i;Y) − mean_{j∈A} I(T_i;T_j), with I_ij of the Gaussian copula
(−½·log(1−ρ_ij²) on ranks made normal). Peng, Long & Ding, PAMI 2005.
"""

from __future__ import annotations

import numpy as np

from edgeprune import information
from edgeprune.criteria.base import Context, FloatArray, Scores, broadcast, classes, complete, rank_in_groups
from edgeprune.criteria.values import Values, by_pick, group_values, label_nats, silent

BINS = 16
TWIN_NATS = -0.5 * np.log1p(-((1 - 1e-9) ** 2))  # a correlation of 1 would cost infinity: twins cost ten nats


def mrmr(context: Context) -> Scores:
    """Greedy per group; relevance and redundancy are means over the sources of the group."""
    assert context.statistics is not None
    couplings, labels = context.couplings, classes(context, "mrmr")
    component, relevance = np.zeros(couplings.count), np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        values = group_values(context, group)
        if not values:
            continue
        members = np.flatnonzero(couplings.group == group)
        known = np.mean([label_nats(x, labels, BINS) for x in values], axis=0)
        shared = np.mean([redundancy(x) for x in values], axis=0)
        dead = silent(values)
        component[members] = by_pick(*select(known, shared, ~dead), dead)
        relevance[members] = known
    component = complete(context, component)
    return Scores(
        "mrmr",
        {"bins": BINS},
        component,
        rank_in_groups(couplings, component),
        broadcast(context, component),
        "nats",
        "I(T;Y) on quantile bins, Miller-Madow; redundancy by Gaussian copula",
        context.statistics.samples,
        {"label_information": relevance},
    )


def redundancy(values: Values) -> FloatArray:
    """I(T_i;T_j), uncorrected, shape (members, members); 0 on the diagonal, TWIN_NATS at most."""
    nats = information.copula_information(values, correction="none", offset=0.5)
    np.fill_diagonal(nats, 0.0)
    return np.asarray(np.minimum(nats, TWIN_NATS))


def select(relevance: FloatArray, shared: FloatArray, free: np.ndarray) -> tuple[list[int], list[float]]:
    """Picks in order, and what each was worth."""
    left = free.copy()
    total = np.zeros(len(relevance))
    picked: list[int] = []
    worth: list[float] = []
    while left.any():
        value = np.where(left, relevance - total / max(1, len(picked)), -np.inf)
        best = int(np.argmax(value))
        picked.append(best)
        worth.append(float(value[best]))
        left[best] = False
        total += shared[best]
    return picked, worth
