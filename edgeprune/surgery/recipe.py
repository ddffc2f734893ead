"""The recipe: which indices of the user's own parameters stay, and which attributes change."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.model.graph import attribute
from edgeprune.model.trace import Trace
from edgeprune.surgery.sizes import Sizes

MADE = ("_folded_", "lifted_tensor_", "_tensor_constant")  # by export and by folding constants


def owned(couplings: Couplings) -> list[str]:
    """Tensors that the user's module has; others were computed on the way to the graph."""
    return [name for name in couplings.aliases if not name.startswith(MADE)]


def recipe(traced: Trace, couplings: Couplings, removed: BoolArray) -> dict[str, Any]:
    """State tensor name -> kept indices of each dimension that shrinks, with shapes before and after."""
    sizes = Sizes(couplings, removed)
    tensors = {}
    for name in owned(couplings):
        tensor = attribute(traced.graph, name)
        masks = sizes.tensor_masks(name)
        if masks:
            tensors[name] = {
                "shape": list(tensor.shape),
                "keep": {str(d): np.flatnonzero(m).tolist() for d, m in masks.items()},
            }
    return {"schema": 1, "tensors": tensors}
