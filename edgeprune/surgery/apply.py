"""Apply a recipe to the user's own class: slice its weights, update what its forward reads, prove it.

The sliced module must give the same outputs as the cut graph on example inputs; a class
whose forward reads a size that cannot be found is refused with the line that failed.

Guarantee: the module that was given is not changed; a result computes what the cut graph
computes, within 1e-4 of its largest output.
Elsewhere: making recipes (recipe), cutting the graph (cut).
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.errors import ModelError, TraceError
from edgeprune.model.graph import shape_of
from edgeprune.model.trace import Trace, run, trace
from edgeprune.surgery.cut import analyse, cut
from edgeprune.surgery.sizes import Sizes, compact

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Applied:
    """The sliced module and every attribute that was changed: path -> (before, after)."""

    module: nn.Module
    attributes: dict[str, tuple[Any, Any]]
    max_abs: float


def apply_recipe(module: nn.Module, recipe: Mapping[str, Any], inputs: tuple[torch.Tensor, ...]) -> Applied:
    """Slice a copy of `module` as the recipe says.

    Args:
        module: the model that the recipe was made from, in evaluation mode.
        recipe: as `recipe.json` holds it: state tensor name -> kept indices per dimension.
        inputs: example arguments, batch of at least 2.

    Raises:
        ModelError: the recipe belongs to another model.
        TraceError: the class cannot be sliced; names the line of its forward that reads a size.
    """
    traced = trace(module, inputs)
    couplings = analyse(traced)
    removed = removed_by(recipe, couplings)
    small = cut(traced, couplings, removed)
    expected = run(small.graph, traced.inputs)
    sliced = copy.deepcopy(module)
    _slice_tensors(sliced, recipe)
    changed = _update_layers(sliced)
    changed |= _update_sizes(sliced, traced, Sizes(couplings, removed))
    try:
        with torch.no_grad():
            out = sliced(*inputs)
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} reads a size that slicing does not reach: {_line(error)}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            tip="make that size an attribute of the module, or use the pruned .pt2, which needs no class",
        ) from error
    flat = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]
    worst = _difference(flat, expected, type(module).__name__)
    return Applied(sliced, changed, worst)


def removed_by(recipe: Mapping[str, Any], couplings: Couplings) -> BoolArray:
    """The components that a recipe removes, shape (count,).

    Raises:
        ModelError: a tensor or shape that the model does not have, or indices that cut a component.
    """
    removed = np.zeros(couplings.count, bool)
    for name, entry in recipe["tensors"].items():
        if name not in couplings.aliases:
            raise ModelError(f"the recipe slices {name}; the model has no such tensor")
        extents = couplings.tensors[couplings.aliases[name]]
        for dim, kept in entry["keep"].items():
            extent = extents[int(dim)] if int(dim) < len(extents) else None
            if extent is None or len(couplings.extents[extent]) != entry["shape"][int(dim)]:
                raise ModelError(
                    f"the recipe was made for {name} of shape {entry['shape']}; the model differs"
                )
            gone = np.ones(entry["shape"][int(dim)], bool)
            gone[kept] = False
            units = couplings.extents[extent][gone]
            removed[units[units >= 0]] = True
    sizes = Sizes(couplings, removed)
    for name in couplings.aliases:
        wanted = recipe["tensors"].get(name, {"keep": {}})["keep"]
        masks = {str(d): np.flatnonzero(m).tolist() for d, m in sizes.tensor_masks(name).items()}
        if masks != {d: list(k) for d, k in wanted.items()}:
            raise ModelError(
                f"the recipe does not fit this model at {name}", tip="use the model it was made from"
            )
    return removed


def _slice_tensors(module: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Slice each tensor object once, under every name that it has."""
    done: dict[int, torch.Tensor] = {}
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    targets = {id(named[name]): entry["keep"] for name, entry in recipe["tensors"].items() if name in named}
    for name, tensor in named.items():
        if id(tensor) not in targets:
            continue
        if id(tensor) not in done:
            masks = {}
            for dim, kept in targets[id(tensor)].items():
                masks[int(dim)] = np.isin(np.arange(tensor.shape[int(dim)]), kept)
            small = compact(tensor.detach(), masks).clone()
            parameter = isinstance(tensor, nn.Parameter)
            done[id(tensor)] = nn.Parameter(small, tensor.requires_grad) if parameter else small
        *path, last = name.split(".")
        owner = module.get_submodule(".".join(path))
        table = owner._parameters if last in owner._parameters else owner._buffers
        table[last] = done[id(tensor)]


def _update_layers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Attributes that torch's own layers keep beside their weights."""
    changed: dict[str, tuple[Any, Any]] = {}

    def put(path: str, layer: nn.Module, **values: Any) -> None:
        for name, new in values.items():
            old = getattr(layer, name)
            if old != new:
                setattr(layer, name, new)
                changed[f"{path}.{name}" if path else name] = (old, new)

    for path, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, torch.Tensor) else ()
        if isinstance(layer, nn.Linear):
            put(path, layer, out_features=shape[0], in_features=shape[1])
        elif isinstance(layer, nn.modules.conv._ConvNd):
            _update_convolution(path, layer, shape, put)
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            width = shape or tuple(getattr(layer.running_mean, "shape", ()))
            if width:
                put(path, layer, num_features=width[0])
        elif isinstance(layer, nn.LayerNorm | nn.RMSNorm) and shape:
            put(path, layer, normalized_shape=shape)
        elif isinstance(layer, nn.GroupNorm) and shape:
            per = layer.num_channels // layer.num_groups
            groups = layer.num_groups if shape[0] % per else shape[0] // per
            put(path, layer, num_channels=shape[0], num_groups=groups)
        elif isinstance(layer, nn.Embedding):
            put(path, layer, embedding_dim=shape[1])
        elif isinstance(layer, nn.PReLU):
            put(path, layer, num_parameters=shape[0])
        elif isinstance(layer, nn.RNNBase):
            first = layer.weight_ih_l0
            if layer.hidden_size != layer.weight_hh_l0.shape[1] or layer.input_size != first.shape[1]:
                put(path, layer, hidden_size=layer.weight_hh_l0.shape[1], input_size=first.shape[1])
                layer._init_flat_weights()
    return changed


def _update_convolution(path: str, layer: Any, shape: tuple[int, ...], put: Any) -> None:
    if not layer.transposed:
        outputs = shape[0]
        groups = max(1, round(layer.groups * outputs / layer.out_channels)) if layer.groups > 1 else 1
        put(path, layer, groups=groups, out_channels=outputs, in_channels=shape[1] * groups)
        return
    inputs = shape[0]
    groups = max(1, round(layer.groups * inputs / layer.in_channels)) if layer.groups > 1 else 1
    put(path, layer, groups=groups, in_channels=inputs, out_channels=shape[1] * groups)


def _update_sizes(module: nn.Module, traced: Trace, sizes: Sizes) -> dict[str, tuple[Any, Any]]:
    """Whole numbers that the user's modules keep, where exactly one size of that value shrank inside."""
    seen: dict[str, dict[int, set[int]]] = {}
    for node in traced.graph.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        shape = shape_of(node.meta.get("val"))
        if not stack or not isinstance(shape, tuple):
            continue
        for old, new in zip(shape, sizes.shape(node), strict=True):
            for path, _ in stack[-1:]:
                seen.setdefault(path.removeprefix("L['self'].").removeprefix("."), {}).setdefault(
                    old, set()
                ).add(new)
    changed: dict[str, tuple[Any, Any]] = {}
    for path, owner in module.named_modules():
        if type(owner).__module__.startswith("torch.nn"):
            continue
        for name, value in list(vars(owner).items()):
            if name.startswith("_") or not isinstance(value, int) or isinstance(value, bool) or value < 2:
                continue
            smaller = seen.get(path, {}).get(value, set()) - {value}
            if len(smaller) == 1:
                (new,) = smaller
                setattr(owner, name, new)
                changed[f"{path}.{name}" if path else name] = (value, new)
    return changed


def _difference(found: list[torch.Tensor], expected: tuple[torch.Tensor, ...], name: str) -> float:
    if len(found) != len(expected) or any(a.shape != b.shape for a, b in zip(found, expected, strict=False)):
        raise TraceError(f"the sliced {name} gives outputs of another shape than the cut graph")
    worst, largest = 0.0, 1.0
    for a, b in zip(found, expected, strict=True):
        worst = max(worst, float((a.detach().double() - b.detach().double()).abs().max()))
        largest = max(largest, float(b.detach().abs().max()))
    if not worst <= TOLERANCE * largest:
        raise TraceError(
            f"the sliced {name} differs from the cut graph by {worst:.3g}: its forward reads a size that is "
            "no attribute, or one that means something else",
            tip="use the pruned .pt2, which needs no class",
        )
    return worst


def _line(error: BaseException) -> str:
    """`file.py:41` of the innermost frame of the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and not f.filename.endswith("surgery/apply.py")]
    chosen = (own or list(frames))[-1]
    return f"{Path(chosen.filename).name}:{chosen.lineno}"
