"""What a network costs, in MACs or parameters."""

from __future__ import annotations

import torch

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.errors import BudgetError
from edgeprune.model.graph import state_tensors
from edgeprune.model.trace import Trace
from edgeprune.planning.groups import Cost


def parameters(traced: Trace) -> int:
    """Number of parameters; tied ones count once."""
    tensors = state_tensors(traced.graph).values()
    unique = {id(t): t for t in tensors if isinstance(t, torch.nn.Parameter)}
    return sum(t.numel() for t in unique.values())


def cost_of(traced: Trace, couplings: Couplings, kind: str) -> Cost:
    """MACs per sample, or parameters, as a function of a removal from this network."""
    if kind == "macs":
        return couplings.macs
    everything = parameters(traced)
    sizes = dict(traced.graph.named_parameters())
    shapes = [(dims, n) for n, dims in couplings.tensors.items() if n in sizes]

    def count(removed: BoolArray) -> float:
        kept = couplings.kept(removed)
        total = everything
        for dims, name in shapes:
            size = sizes[name].numel()
            small = 1
            for d, extent in zip(sizes[name].shape, dims, strict=True):
                small *= d if extent is None else int(kept[extent])
            total += small - size
        return float(total)

    return count


def refuse_rigid(couplings: Couplings) -> None:
    """Raise BudgetError when nothing at all can be removed."""
    if not couplings.count:
        reasons = ", ".join(f"{p.reason} ({p.channels})" for p in couplings.pins[:3])
        raise BudgetError(
            f"nothing can be removed from this model: {reasons or 'no layer has free channels'}"
        )
