"""The largest exportable parts of a model that torch.export refuses as a whole.

A detector's post-processing depends on the data, its backbone and heads do not. One run
records what every submodule is given; from the top down, a module that exports is a part
and its children are left alone.

Guarantee: parts do not overlap, each has parameters, and none was called in two ways.
`describe_parts` puts them into words, `put_back` replaces one. Elsewhere: pruning them (pipeline.parts).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeprune.errors import TraceError
from edgeprune.model.trace import Trace, trace

pytree = torch.utils._pytree
Call = tuple[tuple[Any, ...], dict[str, Any]]
SHOWN = 3


@dataclass(frozen=True)
class Part:
    """A submodule by its path, its arguments as recorded, its trace on two samples of them.

    Where the example gave it fewer than two samples (no detection, no mask), `inputs` are noise.
    """

    path: str
    inputs: tuple[Any, ...]
    trace: Trace
    rows: int  # samples in dimension 0 when it was recorded


def exportable_parts(
    model: nn.Module, run: Callable[[nn.Module], Any], *, samples: int = 8
) -> tuple[list[Part], dict[str, str]]:
    """Find the parts of `model`; `run` calls it once on an example.

    Returns the parts and, for every module with parameters of its own that is in none, the reason.
    """
    calls = recorded(model, run)
    parts: list[Part] = []
    missed: dict[str, str] = {}

    def descend(path: str, module: nn.Module) -> None:
        if not any(True for _ in module.parameters()):
            return
        found = _part(path, module, calls.get(path, []), samples)
        if isinstance(found, Part):
            parts.append(found)
            return
        children = list(module.named_children())
        if not children or any(True for _ in module.parameters(recurse=False)):
            missed[path] = found
        for name, child in children:
            descend(f"{path}.{name}" if path else name, child)

    for name, child in model.named_children():
        descend(name, child)
    return parts, missed


@dataclass(frozen=True)
class Told:
    """Which parts of a refused model export, in words, and how to go on with one of several layers."""

    found: str
    tip: str


def describe_parts(model: nn.Module, inputs: tuple[Any, ...]) -> Told | None:
    """Say which parts of a model export and which do not; None where it does not run or none does."""
    try:
        parts, missed = exportable_parts(model, lambda m: m(*inputs), samples=2)
    except Exception:  # its forward raises, which is what was said already
        return None
    if not parts:
        return None
    whole = _weight(model)
    sizes = {part.path: _weight(model.get_submodule(part.path)) for part in parts}
    taken = ", ".join(f"{path} ({100 * size / whole:.0f}%)" for path, size in _largest(sizes))
    found = f"of its parts (with their share of the parameters) {taken} can be exported"
    if missed:
        left = ", ".join(f"{path} ({why})" for path, why in list(missed.items())[:SHOWN])
        found += f", {left} cannot"
    several = [part for part in parts if _layers(model.get_submodule(part.path)) > 1]
    if not several:  # a layer alone has nothing between its inputs and its outputs
        return Told(found, "")
    first = max(several, key=lambda part: sizes[part.path])
    given = ", ".join(_as_code(x) for x in pytree.tree_leaves(first.inputs))
    return Told(
        found,
        "; or prune these parts where they are, from Python: edgeprune.prune_parts(model, example_inputs,"
        f" macs=0.5); or take a part alone: torch.export.save(torch.export.export(model.{first.path},"
        f" ({given},)), '{first.path}.pt2')",
    )


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
    """Replace the submodule at `path`."""
    *parents, name = path.split(".")
    owner = model.get_submodule(".".join(parents))
    owner._modules[name] = module


def recorded(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, list[Call]]:
    """What every submodule is called with while `run` calls the model once: path -> (args, kwargs)."""
    calls: dict[str, list[Call]] = {}
    hooks = []
    for path, module in model.named_modules():

        def keep(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            calls.setdefault(path, []).append((args, kwargs))

        hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _part(path: str, module: nn.Module, calls: list[Call], samples: int) -> Part | str:
    """The part, or why the module is none."""
    if len(calls) != 1:
        return f"called {len(calls)} times in one run"
    args, kwargs = calls[0]
    leaves = pytree.tree_leaves((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    if kwargs or len(tensors) != len(leaves) or not tensors:
        return "takes more than tensors"
    rows = {int(x.shape[0]) if x.dim() else 0 for x in tensors}
    if len(rows) != 1 or any(not x.dim() for x in tensors):
        return "its arguments share no batch"
    if min(rows) < 2 and not all(x.is_floating_point() for x in tensors):
        return "the example gave it fewer than two samples of whole numbers"

    def several(x: torch.Tensor) -> torch.Tensor:
        return (
            x[:samples].detach().clone() if len(x) > 1 else torch.randn(samples, *x.shape[1:], dtype=x.dtype)
        )

    given = pytree.tree_map(several, tuple(args))
    try:
        return Part(path, given, trace(module, pytree.tree_map(lambda x: x[:2], given)), min(rows))
    except TraceError as error:
        return error.message
