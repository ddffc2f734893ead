"""fpgm: distance of a filter to all others of its group (He et al., CVPR 2019).

What lies near the geometric median of the filters can be made up for by the others. A
component's filter is everything that writes it, over all producing layers.
"""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import Context, Scores, broadcast, rank_in_groups


def fpgm(context: Context) -> Scores:
    """Sum of distances within the group."""
    couplings, weights = context.couplings, context.weights()
    component = np.zeros(couplings.count)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        squared = np.zeros((len(members), len(members)))
        seen: set[tuple[str, int]] = set()
        for layer in couplings.layers:
            if layer.weight is None or (couplings.aliases[layer.weight], layer.out_dim) in seen:
                continue
            vector = couplings.extents[layer.outputs]
            mine = np.flatnonzero((vector >= 0) & np.isin(vector, members))
            if len(mine) % len(members) or not len(mine):
                continue
            seen.add((couplings.aliases[layer.weight], layer.out_dim))
            weight = np.moveaxis(weights[layer.weight], layer.out_dim, 0).astype(np.float64)
            order = mine[np.argsort(vector[mine], kind="stable")]
            filters = weight[order].reshape(len(members), -1)
            norms = (filters**2).sum(1)
            squared += np.maximum(norms[:, None] + norms[None] - 2 * filters @ filters.T, 0.0)
        component[members] = np.sqrt(squared).sum(1)
    rank = rank_in_groups(couplings, component)
    return Scores(
        "fpgm", {}, component, rank, broadcast(context, component), "1", "distance to the group's filters", 0
    )
