"""What a network costs, in MACs or parameters, how wide it is, and whether a budget lies within reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgeprune.coupling.components import BoolArray, Couplings, Pin, RemovalCost
from edgeprune.errors import BudgetError, PinnedError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.records.report import LayerWidth, PinnedChannels
from edgeprune.search.allocate import cheapest
from edgeprune.search.groups import largest
from edgeprune.session.budget import Budget

CONSEQUENCE = "reads channels that are not free"
NAMES = {"macs": "MACs", "params": "parameters", "ms": "latency"}


def parameters(traced: Trace) -> int:
    """Number of parameters; tied ones count once."""
    tensors = state_tensors(traced.graph).values()
    unique = {id(t): t for t in tensors if isinstance(t, torch.nn.Parameter)}
    return sum(t.numel() for t in unique.values())


def size_cost(traced: Trace, couplings: Couplings, kind: str) -> RemovalCost:
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
            for d, channel_map in zip(sizes[name].shape, dims, strict=True):
                small *= d if channel_map is None else int(kept[channel_map])
            total += small - size
        return float(total)

    return count


def refuse_unreachable(traced: Trace, couplings: Couplings, budget: Budget) -> None:
    """Raise PinnedError when nothing can be removed, BudgetError when a share lies below the structure's."""
    refuse_pinned(couplings)
    for kind, share in (("macs", budget.macs), ("params", budget.params)):
        if share is not None:
            refuse_below_floor(
                size_cost(traced, couplings, kind), couplings, share, f"--{kind} {share:.3g}", kind
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


def refuse_below_floor(cost: RemovalCost, couplings: Couplings, share: float, asked: str, kind: str) -> None:
    """Raise BudgetError when what costs least of all removals keeps more than a share of this cost."""
    rank, dense_cost = np.arange(couplings.count), cost(np.zeros(couplings.count, bool))
    floor = cost(largest(couplings, rank)) / dense_cost
    if floor > share and kind == "ms":  # one channel may take longer than eight
        floor = cost(cheapest(couplings, rank, cost)) / dense_cost
    refuse_impossible(couplings, floor, share, asked, NAMES[kind])


def widths(couplings: Couplings, removed: BoolArray) -> tuple[LayerWidth, ...]:
    """Output channels of every layer before and after."""
    kept = couplings.kept(removed)
    return tuple(
        LayerWidth(
            layer.name,
            "depthwise" if layer.groups > 1 else layer.kind,
            len(couplings.channel_maps[layer.outputs]),
            int(kept[layer.outputs]),
        )
        for layer in couplings.layers
    )


def pinned(couplings: Couplings) -> tuple[PinnedChannels, ...]:
    """Channels that stay whatever is planned, with the reason; not told apart by layer."""
    return tuple(PinnedChannels(p.channels, p.reason) for p in couplings.pins)


def refuse_impossible(couplings: Couplings, floor: float, share: float, asked: str, what: str) -> None:
    """Raise when even removing everything removable keeps more than a share of `what`."""
    if floor <= share:
        return
    reasons = sorted(couplings.pins, key=lambda p: -p.channels)[:3]
    listed = ", ".join(f"{p.reason} {p.channels}" for p in reasons)
    name, _, value = asked.partition(" ")
    least = _least(name, float(value), share, floor)
    raise BudgetError(
        f"{asked} keeps {share:.1%} of the {what}; at least {floor:.1%} has to stay"
        + (f" (pinned: {listed})" if listed else ""),
        tip=f"use {name} {least}, or see `edgeprune inspect` for what is pinned",
    )


def _least(name: str, value: float, share: float, floor: float) -> str:
    """The least that can be asked, in the option's own unit."""
    if name in ("--macs", "--params"):
        return f"{floor + 0.005:.2f} or more"
    if name == "--speedup":
        return f"{1 / (floor * 1.005):.2f} or less"
    return f"{value * floor / share * 1.005:.3g} or more"
