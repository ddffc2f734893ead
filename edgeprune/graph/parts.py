"""The largest exportable parts of a model that torch.export refuses as a whole.

A detector's post-processing depends on the data, its backbone and heads do not. One run
records what every submodule is given; from the top down, a module that exports is a part
and its children are left alone. A head that is called on every level of a pyramid is one
part, traced in every shape that it was given.

Guarantee: parts do not overlap, each has parameters, and exports in all ways in which it was called.
`describe_parts` puts them into words, `put_back` replaces one.
Elsewhere: what modules are called with (calls), pruning the parts (pipeline.parts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeprune.errors import TraceError
from edgeprune.graph.calls import ModuleCall, Way, recorded, ways
from edgeprune.graph.determinism import require_function
from edgeprune.graph.trace import Trace, trace

pytree = torch.utils._pytree
SHOWN = 3
SHAPES = 8  # each is traced; a pyramid has about five levels


@dataclass(frozen=True)
class Part:
    """A submodule by its path, the ways in which it was called, its trace on two samples of each.

    The first way, with the largest tensors, is what `inputs`, `trace` and `rows` speak of.
    """

    path: str
    ways: tuple[Way, ...]
    traces: tuple[Trace, ...]

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Arguments as recorded; noise where there were fewer than two samples (no detection, no mask)."""
        return self.ways[0].inputs

    @property
    def trace(self) -> Trace:
        return self.traces[0]

    @property
    def rows(self) -> int:
        """Samples in dimension 0 that came in this way in the recorded run."""
        return self.ways[0].rows


def exportable_parts(
    model: nn.Module,
    run: Callable[[nn.Module], Any],
    *,
    samples: int = 8,
    refused: Mapping[str, str] | None = None,
) -> tuple[list[Part], dict[str, str]]:
    """Find the parts of `model`; `run` calls it once on an example.

    Args:
        refused: modules that the caller cannot use as a part, with the reason; their children are looked at.

    Returns the parts and, for every module with parameters of its own that is in none, the reason.
    """
    calls = recorded(model, run)
    parts: list[Part] = []
    missed: dict[str, str] = {}
    seen: set[int] = set()  # a module that stands in two places is one part

    def descend(path: str, module: nn.Module) -> None:
        if id(module) in seen or not any(True for _ in module.parameters()):
            return
        seen.add(id(module))
        part_or_reason = (refused or {}).get(path) or _part(path, module, calls.get(path, []), samples)
        if isinstance(part_or_reason, Part):
            parts.append(part_or_reason)
            seen.update(map(id, module.modules()))
            return
        children = list(module.named_children())
        if not children or any(True for _ in module.parameters(recurse=False)):
            missed[path] = part_or_reason
        for name, child in children:
            descend(f"{path}.{name}" if path else name, child)

    for name, child in model.named_children():
        descend(name, child)
    return parts, missed


@dataclass(frozen=True)
class Told:
    """Which parts of a refused model export, in words, and how to go on with one of several layers."""

    summary: str
    tip: str


def describe_parts(model: nn.Module, inputs: tuple[Any, ...]) -> Told | None:
    """Say which parts of a model export and which do not; None where it does not run or none does."""
    try:
        parts, missed = exportable_parts(model, lambda m: m(*inputs), samples=2)
    except Exception:  # its forward raises, which is what was said already
        return None
    if not parts:
        return None
    total = _weight(model)
    sizes = {part.path: _weight(model.get_submodule(part.path)) for part in parts}
    taken = ", ".join(f"{path} ({100 * size / total:.0f}%)" for path, size in _largest(sizes))
    summary = f"of its parts (with their share of the parameters) {taken} can be exported"
    if missed:
        left = ", ".join(f"{path} ({why})" for path, why in list(missed.items())[:SHOWN])
        summary += f", {left} cannot"
    several = [part for part in parts if _layers(model.get_submodule(part.path)) > 1]
    if not several:  # a layer alone has nothing between its inputs and its outputs
        return Told(summary, "")
    tip = (
        "; or prune these parts where they are, from Python: edgeprune.prune_parts(model, example_inputs,"
        " macs=0.5)"
    )
    first = max(several, key=lambda part: sizes[part.path])
    if first.ways[0].fixed is None:  # takes tensors alone
        arguments = ", ".join(_as_code(x) for x in pytree.tree_leaves(first.inputs))
        tip += (
            f"; or take a part alone:"
            f" torch.export.save(torch.export.export(model.{first.path}, ({arguments},)),"
            f" '{first.path}.pt2')"
        )
    return Told(summary, tip)


def _largest(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]


def _layers(module: nn.Module) -> int:
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())


def _weight(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _as_code(x: torch.Tensor) -> str:
    shape = ", ".join(map(str, x.shape))
    if x.is_floating_point():
        return f"torch.randn({shape})"
    return f"torch.zeros({shape}, dtype={x.dtype})"


def put_back(model: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the submodule at `path`, in every place where it stands."""
    old = model.get_submodule(path)
    for owner in list(model.modules()):
        for name, child in owner._modules.items():
            if child is old:
                owner._modules[name] = module


def _part(path: str, module: nn.Module, calls: list[ModuleCall], samples: int) -> Part | str:
    """The part, or why the module is none."""
    call_ways = ways(calls, samples)
    if isinstance(call_ways, str):
        return call_ways
    if len(call_ways) > SHAPES:
        return f"called in {len(call_ways)} different shapes in one run"
    try:
        traces = [
            require_function(trace(way.around(module), pytree.tree_map(lambda x: x[:2], way.inputs)))
            for way in call_ways
        ]
    except TraceError as error:
        return error.message
    return Part(path, tuple(call_ways), tuple(traces))
