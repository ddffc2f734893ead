"""fpgm: distance of a filter to all others of its group (He et al., CVPR 2019).

What lies near the geometric median of the filters can be made up for by the others. A
component's filter is everything that writes it, over all producing layers; a feature of an
input, which nothing writes, has the weights that read it.
"""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import Context, Scores, broadcast, declares, filters, rank_in_groups


@declares(needs_data=False)
def fpgm(context: Context) -> Scores:
    """Sum of distances within the group."""
    couplings, known = context.couplings, filters(context)
    component = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        squared = np.zeros((len(members), len(members)))
        for weight, vector in known:
            mine = np.flatnonzero((vector >= 0) & np.isin(vector, members))
            if len(mine) % len(members) or not len(mine):
                continue
            order = mine[np.argsort(vector[mine], kind="stable")]
            rows = weight[order].reshape(len(members), -1)
            norms = (rows**2).sum(1)
            squared += np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0.0)
        component[members] = np.sqrt(squared).sum(1)
    rank = rank_in_groups(couplings, component)
    return Scores(
        "fpgm", {}, component, rank, broadcast(context, component), "1", "distance to the group's filters", 0
    )
