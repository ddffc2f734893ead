"""What a network costs, in MACs or parameters, how wide it is, and whether a budget lies within reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edgeprune.coupling.components import BoolArray, Couplings, Pin
from edgeprune.errors import PinnedError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.search.allocate import cheapest
from edgeprune.search.budget import Budget, refuse_impossible
from edgeprune.search.groups import Cost, largest

CONSEQUENCE = "reads channels that are not free"
NAMES = {"macs": "MACs", "params": "parameters", "ms": "latency"}


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


def refuse_unreachable(traced: Trace, couplings: Couplings, budget: Budget) -> None:
    """Raise PinnedError when nothing can be removed, BudgetError when a share lies below the structure's."""
    refuse_pinned(couplings)
    for kind, share in (("macs", budget.macs), ("params", budget.params)):
        if share is not None:
            refuse_below_floor(
                cost_of(traced, couplings, kind), couplings, share, f"--{kind} {share:.3g}", kind
            )


def refuse_pinned(couplings: Couplings) -> None:
    """Raise PinnedError when nothing can be removed, with what pins the most channels and where."""
    if not couplings.count:
        raise PinnedError(
            f"nothing can be removed from this model: {what_pins(couplings.pins)}",
            tip="`edgeprune export` and `quantise` take it as it is; for fewer channels, rewrite those lines",
        )


def what_pins(pins: Sequence[Pin]) -> str:
    """The three reasons that pin most channels, those first that are no consequence of others."""
    causes = sorted(pins, key=lambda p: (p.reason.endswith(CONSEQUENCE), -p.channels))[:3]
    return ", ".join(f"{p.reason} ({p.channels})" for p in causes) or "it has no layer with weights"


def refuse_below_floor(cost: Cost, couplings: Couplings, share: float, asked: str, kind: str) -> None:
    """Raise BudgetError when what costs least of all removals keeps more than a share of this cost."""
    rank, whole = np.arange(couplings.count), cost(np.zeros(couplings.count, bool))
    floor = cost(largest(couplings, rank)) / whole
    if floor > share and kind == "ms":  # one channel may take longer than eight
        floor = cost(cheapest(couplings, rank, cost)) / whole
    refuse_impossible(couplings, floor, share, asked, NAMES[kind])


def widths(couplings: Couplings, removed: BoolArray) -> list[dict[str, Any]]:
    """Output channels of every layer before and after."""
    kept = couplings.kept(removed)
    return [
        {
            "name": (layer.weight or layer.node).removesuffix(".weight"),
            "kind": "depthwise" if layer.groups > 1 else layer.kind,
            "before": len(couplings.extents[layer.outputs]),
            "after": int(kept[layer.outputs]),
        }
        for layer in couplings.layers
    ]


def pinned(couplings: Couplings) -> list[dict[str, Any]]:
    """Channels that stay whatever is planned, with the reason; not told apart by layer."""
    return [{"name": "", "channels": p.channels, "reason": p.reason} for p in couplings.pins]
