"""l2: magnitude, the norm of a component's filters (Li et al., ICLR 2017).

A component's norm is taken over everything that writes it, a connection's score is its
absolute weight. Needs no data.
"""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import Context, Scores, declares, magnitude, rank_in_groups


@declares(needs_data=False)
def l2(context: Context) -> Scores:
    """Magnitude: the norm of a component's filters; a connection's absolute weight (Li et al., ICLR 2017)."""
    component = magnitude(context)
    connections = {n: np.abs(w) for n, w in context.weights().items()}
    rank = rank_in_groups(context.couplings, component)
    return Scores("l2", {}, component, rank, connections, "1", "norm of the producing weights", 0)
