"""Whether a profile is of the network at hand: its layers, their kinds, widths and work, not its weights.

    fingerprint(traced, couplings)              what a profile stores of its network
    require_network(profile, traced, couplings) refuse a profile of another one

Layers that a profile does not know would cost nothing, and a plan would look faster than it is.
Guarantee: asked of the dense network; the smaller ones of later rounds are the profile's by descent.
Files from before fingerprints were stored are held to the names and widths that they hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from edgeprune.coupling.components import Couplings
from edgeprune.errors import BenchError
from edgeprune.latency.profiles import Profile
from edgeprune.model.graph import state_tensors
from edgeprune.model.trace import Trace

Facts = tuple[str, str, int, tuple[int, ...], int]


def fingerprint(traced: Trace, couplings: Couplings) -> str:
    """SHA-256 over every weighted layer's name, kind, groups, weight shape and multiply-adds per sample.

    The multiply-adds tell one size of the input from another.
    """
    return hashlib.sha256(json.dumps(_layers(traced, couplings)).encode()).hexdigest()


def require_network(profile: Profile, traced: Trace, couplings: Couplings) -> None:
    """Refuse a profile that was measured of another network than this dense one.

    Raises:
        BenchError: with the first thing that differs.
    """
    if profile.network == fingerprint(traced, couplings):
        return
    found = next(_differences(profile, traced, couplings), None)
    if profile.network is None and found is None:
        return
    raise BenchError(
        f"the profile is of another network, {profile.model}:"
        f" {found or 'a layer here has another kind, weight shape or input size'}",
        tip="measure this one: edgeprune profile",
    )


def _layers(traced: Trace, couplings: Couplings) -> list[Facts]:
    tensors = state_tensors(traced.graph)
    sizes = [len(e) for e in couplings.extents]
    macs: dict[str, float] = {}
    for cost in couplings.costs:
        product = cost.coefficient * float(np.prod([sizes[e] for e in cost.factors]))
        macs[cost.node] = macs.get(cost.node, 0.0) + product
    return [
        (
            layer.weight or layer.node,
            layer.kind,
            layer.groups,
            tuple(tensors[layer.weight].shape) if layer.weight in tensors else (),
            round(macs.get(layer.node, 0.0)),
        )
        for layer in couplings.layers
    ]


def _differences(profile: Profile, traced: Trace, couplings: Couplings) -> Iterator[str]:
    """What the names and widths of a profile's layers, all that an old file holds, show to be different."""
    tensors = state_tensors(traced.graph)
    widths = [width for layer in profile.layers for width in (layer.inputs, layer.outputs)]
    priced = set[int]()
    for width in widths:
        if width.tensor is None:
            continue
        if width.tensor not in tensors:
            yield f"{width.tensor} is not here"
            continue
        shape = tensors[width.tensor].shape
        size = shape[width.dim] * width.times if width.dim < len(shape) else 0
        if size != width.dense:
            yield f"{width.tensor} has {width.dense} there and {size} here"
        dims = couplings.tensors.get(couplings.aliases.get(width.tensor, width.tensor), ())
        extent = dims[width.dim] if width.dim < len(dims) else None
        if extent is not None:
            priced.add(extent)
    for layer in couplings.layers:
        if (couplings.extents[layer.outputs] >= 0).any() and layer.outputs not in priced:
            yield f"it has no layer {(layer.weight or layer.node).removesuffix('.weight')}"
