"""What can be removed from a model, and what cannot: layers, groups, floors and pins.

Guarantee: needs no data and changes nothing; the floors are those that a budget is held
against. Elsewhere: tracing and coupling (stages), what a channel is worth (criteria).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgeprune.coupling.components import BoolArray, Couplings, Pin
from edgeprune.run.analysis import Analysis
from edgeprune.search.costs import parameters, size_cost
from edgeprune.search.groups import largest


@dataclass(frozen=True)
class LayerRow:
    """A weighted layer: channels in and out, how many of the latter are free, MACs per sample."""

    name: str
    kind: str
    inputs: int
    outputs: int
    free: int
    groups: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class GroupRow:
    """Components that touch the same dimensions; `macs_removable` if all of them but one went."""

    name: str
    components: int
    exact: int
    layers: tuple[str, ...]
    macs_removable: int


@dataclass(frozen=True)
class Inspection:
    """What can be removed from a model. The floors are what stays when everything removable is gone."""

    model: dict[str, Any]
    inputs: tuple[dict[str, Any], ...]
    macs: int
    params: int
    components: int
    free_share: float
    floor_macs: int
    floor_params: int
    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...]
    pinned: tuple[Pin, ...]
    inexact: int
    inexact_reasons: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_model(analysis: Analysis) -> Inspection:
    """Layers, groups, MACs, floors and pins of an analysed model."""
    couplings, traced = analysis.couplings, analysis.trace
    nothing = np.zeros(couplings.count, bool)
    everything = largest(couplings, np.arange(couplings.count))
    macs = {cost.node: 0.0 for cost in couplings.costs}
    kept = couplings.kept(nothing)
    for cost in couplings.costs:
        macs[cost.node] += cost.coefficient * float(np.prod(kept[list(cost.factors)]))
    layers = tuple(
        LayerRow(
            layer.name,
            "depthwise" if layer.groups > 1 else layer.kind,
            len(couplings.channel_maps[layer.inputs]),
            len(couplings.channel_maps[layer.outputs]),
            int((couplings.channel_maps[layer.outputs] >= 0).sum()),
            _groups_of(couplings, layer.outputs),
            round(macs.get(layer.node, 0.0)),
        )
        for layer in couplings.layers
    )
    inputs = tuple(
        {"shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch."), "batch": _batch(x, d)}
        for x, d in zip(traced.inputs, traced.dynamic, strict=True)
    )
    return Inspection(
        {"path": analysis.loaded.source, "sha256": analysis.loaded.sha256, "kind": analysis.loaded.kind},
        inputs, round(couplings.macs()), parameters(traced), couplings.count, couplings.share_free(),
        round(couplings.macs(everything)), round(size_cost(traced, couplings, "params")(everything)), layers,
        _group_rows(couplings, layers), couplings.pins, int((~couplings.exact).sum()),
        couplings.inexact_reasons, analysis.loaded.notes,
    )  # fmt: skip


def _batch(example: torch.Tensor, dynamic: bool) -> int | None:
    """The fixed batch of an input; None where it is free."""
    return None if dynamic or not example.dim() else len(example)


def _groups_of(couplings: Couplings, channel_map: int) -> tuple[str, ...]:
    vector = couplings.channel_maps[channel_map]
    groups = np.unique(couplings.group[vector[vector >= 0]])
    return tuple(couplings.group_names[g] for g in groups)


def _group_rows(couplings: Couplings, layers: tuple[LayerRow, ...]) -> tuple[GroupRow, ...]:
    rows = []
    dense_macs = couplings.macs()
    for g, name in enumerate(couplings.group_names):
        members = np.flatnonzero(couplings.group == g)
        gone: BoolArray = np.zeros(couplings.count, bool)
        gone[members[1:]] = True
        rows.append(
            GroupRow(
                name,
                len(members),
                int(couplings.exact[members].sum()),
                tuple(layer.name for layer in layers if name in layer.groups),
                round(dense_macs - couplings.macs(gone)),
            )
        )
    return tuple(rows)
