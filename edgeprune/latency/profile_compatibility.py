"""Whether a profile may be used: of the network at hand, for the machine and the threads that will run it.

    fingerprint(traced, couplings)               what a profile stores of its network
    require_network(profile, traced, couplings)  refuse a profile of another one
    check(profile, target=target, threads=4)     another machine or runtime: refused or warned

Layers that a profile does not know would cost nothing, and a plan would look faster than it is. So the
dense network has to be the profile's own; the smaller ones of later rounds are so by descent. Files from
before fingerprints were stored are held to the names and widths in them.
Guarantee: none from elsewhere passes in silence, and nothing is timed. Elsewhere: the file (profiles).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune.coupling.components import Couplings
from edgeprune.errors import BenchError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.latency.profiles import Profile
from edgeprune.records import Target
from edgeprune.targets.matching import match

UNSTEADY = 1.25  # slowest over fastest dense p50 from which a run says so
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
    difference = next(_differences(profile, traced, couplings), None)
    if profile.network is None and difference is None:
        return
    raise BenchError(
        f"the profile is of another network, {profile.model}:"
        f" {difference or 'a layer here has another kind, weight shape or input size'}",
        tip="measure this one: edgeprune profile",
    )


def check_compatibility(
    profile: Profile,
    *,
    target: Target | None = None,
    threads: int | None = None,
    machine: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Refuse a profile that was measured for something else; give the warnings of one that may do.

    Args:
        target: what is compressed for; another architecture, instruction set or board is refused, another
            name of the same kind is warned about.
        threads: what the network will run with; another count is refused.
        machine: facts of the machine that will run it, as the runner gives them; another processor is
            refused, another version of onnxruntime warned about.

    Raises:
        BenchError: the profile's numbers do not hold there.
    """
    said = list(profile.warnings)
    again = "measure one: edgeprune profile"
    if threads is not None and threads != profile.threads:
        raise BenchError(
            f"the profile was measured with {profile.threads} thread(s), asked for {threads}", tip=again
        )
    profiled = profile.machine
    if target is not None:
        arch = profiled.get("architecture")
        if target.arch != arch:
            raise BenchError(
                f"the profile is of a {arch} machine, target {target.name} is {target.arch}", tip=again
            )
        kind = match(target, profiled)
        if kind.refused:
            raise BenchError(
                f"the profile's machine is not {target.name}: {'; '.join(kind.refused)}", tip=again
            )
        said += [f"as {target.name}: {doubt}" for doubt in kind.doubts]
        if "flags" not in profiled and not target.local:
            said.append(f"the profile does not say the instruction set of its machine: is it {target.name}?")
        if target.name != profile.target:
            said.append(f"the profile was measured for target {profile.target}, not {target.name}")
    if machine is not None:
        for name in ("architecture", "processor", "board"):
            if machine.get(name) != profiled.get(name):
                raise BenchError(
                    f"the profile was measured on {name} {profiled.get(name)!r},"
                    f" this is {machine.get(name)!r}",
                    tip=again,
                )
        if machine.get("onnxruntime") != profiled.get("onnxruntime"):
            said.append(
                f"the profile was measured with onnxruntime {profiled.get('onnxruntime')}, "
                f"this is {machine.get('onnxruntime')}: times may differ"
            )
    dense = profile.dense_ms
    if dense.high > UNSTEADY * dense.low:
        said.append(
            f"the machine was unsteady: the dense network took {dense.low:.3g} to {dense.high:.3g} ms"
        )
    if not profile.complete:
        said.append(
            f"the profile is unfinished: {len(profile.wholes)} of {profile.planned} networks were run"
        )
    return tuple(dict.fromkeys(said))


def _layers(traced: Trace, couplings: Couplings) -> list[Facts]:
    tensors = state_tensors(traced.graph)
    sizes = [len(e) for e in couplings.channel_maps]
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
        channel_map = dims[width.dim] if width.dim < len(dims) else None
        if channel_map is not None:
            priced.add(channel_map)
    for layer in couplings.layers:
        if (couplings.channel_maps[layer.outputs] >= 0).any() and layer.outputs not in priced:
            yield f"it has no layer {(layer.weight or layer.node).removesuffix('.weight')}"
