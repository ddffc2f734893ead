"""random: chance, the control that any criterion has to beat.

Uniform numbers from the seed, for components and for connections.
"""

from __future__ import annotations

import numpy as np

from edgeprune.criteria.base import Context, Scores, declares, rank_in_groups


@declares(needs_data=False)
def random(context: Context) -> Scores:
    """Uniform numbers from the seed."""
    rng = np.random.default_rng(context.seed)
    component = rng.random(context.couplings.count)
    noise = {n: rng.random(w.shape, dtype=np.float32) for n, w in context.weights().items()}
    rank = rank_in_groups(context.couplings, component)
    return Scores("random", {"seed": context.seed}, component, rank, noise, "1", "uniform", 0)
