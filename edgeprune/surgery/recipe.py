"""The recipe: which indices of the user's own parameters stay, and which attributes change."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.model.trace import Trace
from edgeprune.surgery.sizes import Sizes


def recipe(traced: Trace, couplings: Couplings, removed: BoolArray) -> dict[str, Any]:
    """State tensor name -> kept indices of each dimension that shrinks, with shapes before and after."""
    sizes = Sizes(couplings, removed)
    tensors = {}
    for name, tensor in traced.graph.state_dict().items():
        if name not in couplings.aliases:
            continue
        masks = sizes.tensor_masks(name)
        if masks:
            tensors[name] = {
                "shape": list(tensor.shape),
                "keep": {str(d): np.flatnonzero(m).tolist() for d, m in masks.items()},
            }
    return {"schema": 1, "tensors": tensors}
