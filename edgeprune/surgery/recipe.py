"""The recipe: which indices of the user's own parameters stay, and which attributes change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings, FactorChoice
from edgeprune.coupling.sizes import Sizes
from edgeprune.graph.features import FIXED, SELECTION, kept_features
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace

# By export, by folding constants, by --prune-inputs.
MADE = ("_folded_", "lifted_tensor_", "_tensor_constant", SELECTION, FIXED)


def owned(couplings: Couplings) -> list[str]:
    """Tensors that the user's module has; others were computed on the way to the graph."""
    return [name for name in couplings.aliases if not name.startswith(MADE)]


def recipe(traced: Trace, couplings: Couplings, removed: BoolArray) -> dict[str, Any]:
    """State tensor name -> kept indices of each dimension that shrinks; the features that inputs keep.

    `inputs` is there only where features could go: entries of `kept_features`. `choice` is there only
    where head width or positions within groups were free.
    """
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
    record: dict[str, Any] = {"schema": 1, "tensors": tensors}
    if couplings.choice != FactorChoice():
        record["choice"] = asdict(couplings.choice)
    inputs = kept_inputs(traced, sizes)
    return record | {"inputs": inputs} if inputs else record


def kept_inputs(traced: Trace, sizes: Sizes) -> list[dict[str, Any]]:
    """`kept_features` of a trace under a removal; empty where inputs are pinned."""
    entries = kept_features(traced.graph)
    for entry in entries:
        name = f"{SELECTION}{entry['input']}"
        mask = sizes.tensor_masks(name).get(0) if name in sizes.couplings.aliases else None
        if mask is not None:
            entry["kept"] = [k for k, stays in zip(entry["kept"], mask, strict=True) if stays]
    return entries
