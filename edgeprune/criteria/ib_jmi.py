"""ib-jmi: channels that together say most of the label.

Forward selection of mean_{j∈A} I(T_i,T_j;Y) + θ·H(T_i|Y), beginning with the channel of
largest I(T_i;Y) + θ·H(T_i|Y): the joint mutual information of Brown et al. (JMLR 2012),
with the article's θ. Pairs are counted on a few quantile bins; H(T|Y) on bins of equal
width, because on quantile bins every channel has the same entropy and θ would do nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune import information
from edgeprune.criteria.base import (
    Context,
    FloatArray,
    Scores,
    broadcast,
    classes,
    complete,
    declares,
    rank_in_groups,
)
from edgeprune.criteria.values import Values, by_pick, group_values, silent

BINS = 6  # and the atom at zero: 49 cells per pair and class
WIDTHS = 32


@declares(takes_theta=True)
def ib_jmi(context: Context) -> Scores:
    """Greedy per group; a group with several sources takes the mean over them."""
    assert context.statistics is not None
    couplings, labels = context.couplings, classes(context, "ib-jmi")
    component = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        values = group_values(context, group)
        if not values:
            continue
        members = np.flatnonzero(couplings.group == group)
        dead = silent(values)
        codes = [information.quantize(x, bins=BINS) for x in values]
        spare = context.theta * np.mean([_entropy_given_label(x, labels) for x in values], axis=0)
        picked = information.jmi_selection(codes, labels, int((~dead).sum()), bonus=spare, candidates=~dead)
        component[members] = by_pick(picked.order.tolist(), picked.score_nats.tolist(), dead)
    component = complete(context, component)
    return Scores(
        "ib-jmi",
        {"theta": context.theta, "bins": BINS},
        component,
        rank_in_groups(couplings, component),
        broadcast(context, component),
        "nats",
        "joint counts of pairs on quantile bins, Miller-Madow, forward selection",
        context.statistics.samples,
    )


def _entropy_given_label(values: Values, labels: npt.NDArray[np.int64]) -> FloatArray:
    low, high = values.min(0).astype(float), values.max(0).astype(float)
    edges = information.fixed_edges(low, np.where(high > low, high, low + 1.0), WIDTHS)
    return information.conditional_entropy(information.encode(values, edges), labels)
