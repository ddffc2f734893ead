"""Apply a recipe to the user's own class: slice its weights, update what its forward reads, prove it.

The sliced module must give the same outputs as the cut graph on example inputs; a class
whose forward reads a size that cannot be found is refused with the line that failed, in that of
all ways to update its attributes that got furthest.

Guarantee: the module that was given is not changed; a result computes what the cut graph
computes, within 1e-4 of its largest output (1e-9 in double precision).
Elsewhere: making recipes (recipe), cutting the graph (cut), what attributes may become (attributes).
"""

from __future__ import annotations

import contextlib
import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import BoolArray, Couplings, FactorChoice
from edgeprune.coupling.rewrite import rewrite
from edgeprune.coupling.sizes import Sizes, compact
from edgeprune.errors import ModelError, TraceError
from edgeprune.graph.features import open_features, selected
from edgeprune.graph.module import source_line
from edgeprune.graph.trace import Trace, run, trace
from edgeprune.surgery.attributes import Guesses, folded_buffers, lines_of_modules, update_layers
from edgeprune.surgery.cut import cut
from edgeprune.surgery.recipe import owned

TOLERANCE = {torch.float64: 1e-9}  # of the largest output; 1e-4 in any other precision


@dataclass(frozen=True)
class Applied:
    """The sliced module and every attribute that was changed: path -> (before, after)."""

    module: nn.Module
    attributes: dict[str, tuple[Any, Any]]
    max_abs: float


def apply_recipe(
    module: nn.Module,
    recipe: Mapping[str, Any],
    inputs: tuple[torch.Tensor, ...],
    traced: Trace | None = None,
) -> Applied:
    """Slice a copy of `module` as the recipe says.

    Where the recipe drops features of an input, the sliced class takes the features that stay
    (as `features.selected` gives them), and is proven on those.

    Args:
        module: the model that the recipe was made from, in evaluation mode.
        recipe: as `recipe.json` holds it: state tensor name -> kept indices per dimension.
        inputs: example arguments, batch of at least 2.
        traced: the module's trace on these inputs, where there is one already.

    Raises:
        ModelError: the recipe belongs to another model.
        TraceError: the class cannot be sliced; names the line of its forward that reads a size.
    """
    traced = traced or trace(module, inputs)
    if recipe.get("inputs"):
        traced, _ = open_features(traced)
    couplings = analyse(traced, choice=FactorChoice(**recipe.get("choice", {})))
    removed = removed_by(recipe, couplings)
    small = cut(traced, couplings, removed)
    expected = run(small.graph, traced.inputs)
    fed = selected(small.graph, inputs) if recipe.get("inputs") else inputs
    sliced = copied(module)
    plain = _made_plain(sliced, [name for name, entry in recipe["tensors"].items() if entry["keep"]])
    _slice_tensors(sliced, {name: entry["keep"] for name, entry in recipe["tensors"].items()})
    sizes = Sizes(couplings, removed)
    changed = plain | update_layers(sliced, lines_of_modules(traced), couplings.choice)
    failed: TraceError | None = None
    furthest = -1
    for beside in ({}, folded_buffers(module, traced, sizes)):
        if failed is not None and not beside:
            break
        _slice_tensors(sliced, beside)
        for trial in Guesses(module, traced, sizes).trials():
            _restore(sliced, trial, new=True)
            try:
                worst = proven(sliced, fed, expected)
            except TraceError as error:
                reached = _reached(sliced, fed)
                if reached > furthest:  # the earlier guess is the likelier one where both got as far
                    furthest, failed = reached, error
                _restore(sliced, trial, new=False)
                continue
            trial_values = {
                f"{path}.{name}" if path else name: values for (path, name), values in trial.items()
            }
            return Applied(sliced, changed | trial_values, worst)
    assert failed is not None
    lines = written_sizes(traced, sizes)
    more = (
        f"; sizes or scales that would have to change are read at or below {', '.join(lines[:5])}"
        if lines
        else ""
    )
    more += f" and {len(lines) - 5} more lines" if len(lines) > 5 else ""
    raise TraceError(f"{failed.message}{more}", tip=failed.tip) from failed


def proven(sliced: nn.Module, inputs: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> float:
    """Largest difference from the cut graph.

    Raises:
        TraceError: the forward fails, or computes something else.
    """
    name = sliced._get_name()
    try:
        with torch.no_grad():
            out = sliced(*inputs)
    except Exception as error:
        raise TraceError(
            f"{name} reads a size that slicing does not reach: {_line(error)}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            tip="make that size an attribute of the module, or use the pruned .pt2, which needs no class",
        ) from error
    flat = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]
    return _difference(flat, expected, name)


def copied(module: nn.Module) -> nn.Module:
    """A deep copy; a weight that a hook makes before each call (old weight norm) is copied by its value."""
    tensors = [v for m in module.modules() for v in vars(m).values() if isinstance(v, torch.Tensor)]
    memo: dict[int, Any] = {id(v): v.detach().clone() for v in tensors if not v.is_leaf}
    return copy.deepcopy(module, memo)


def _made_plain(module: nn.Module, names: list[str]) -> dict[str, tuple[Any, Any]]:
    """Make parameters of weights that are computed from others (weight norm, parametrisations).

    A trace holds the weight alone, and the norm of a sliced weight is another than that of the whole one.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if parametrize.is_parametrized(owner, last):
            # torch's own way deletes the property from the class, which the user's module has as well
            values = {n: getattr(owner, n).detach().clone() for n in owner.parametrizations}
            owner.__class__ = parametrize.type_before_parametrizations(owner)
            del owner.parametrizations
            for n, value in values.items():
                setattr(owner, n, nn.Parameter(value))
        elif any(getattr(hook, "name", None) == last for hook in owner._forward_pre_hooks.values()):
            for remove in (nn.utils.remove_weight_norm, nn.utils.remove_spectral_norm):
                with contextlib.suppress(ValueError):  # it is not of this kind
                    remove(owner, last)
        else:
            continue
        changed[name] = ("computed", "a parameter")
    return changed


class _Steps(TorchFunctionMode):  # type: ignore[misc]
    """Counts the calls of torch that succeed."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += 1
        return out


def _reached(sliced: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """How many calls of torch a module gets through. A wrong size in a loop may count as further than it is.

    Not part of the proof: a mode keeps torch's attention off the fused way that users run.
    """
    with torch.no_grad(), _Steps() as steps, contextlib.suppress(Exception):
        sliced(*inputs)
    return int(steps.count)


def removed_by(recipe: Mapping[str, Any], couplings: Couplings) -> BoolArray:
    """The components that a recipe removes, shape (count,).

    Raises:
        ModelError: a tensor or shape that the model does not have, or indices that cut a component.
    """
    removed = np.zeros(couplings.count, bool)
    for name, entry in recipe["tensors"].items():
        if name not in couplings.aliases:
            raise ModelError(f"the recipe slices {name}; the model has no such tensor")
        channel_maps = couplings.tensors[couplings.aliases[name]]
        for dim, kept in entry["keep"].items():
            channel_map = channel_maps[int(dim)] if int(dim) < len(channel_maps) else None
            if channel_map is None or len(couplings.channel_maps[channel_map]) != entry["shape"][int(dim)]:
                raise ModelError(
                    f"the recipe was made for {name} of shape {entry['shape']}; the model differs"
                )
            gone = np.ones(entry["shape"][int(dim)], bool)
            gone[kept] = False
            units = couplings.channel_maps[channel_map][gone]
            removed[units[units >= 0]] = True
    sizes = Sizes(couplings, removed)
    for name in owned(couplings):
        wanted = recipe["tensors"].get(name, {"keep": {}})["keep"]
        masks = {str(d): np.flatnonzero(m).tolist() for d, m in sizes.tensor_masks(name).items()}
        if masks != {d: list(k) for d, k in wanted.items()}:
            raise ModelError(
                f"the recipe does not fit this model at {name}", tip="use the model it was made from"
            )
    return removed


def _slice_tensors(module: nn.Module, keep: Mapping[str, Mapping[str, list[int]]]) -> None:
    """Slice each tensor object once, under every name that it has, to the indices kept per dimension."""
    done: dict[int, torch.Tensor] = {}
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    targets = {id(named[name]): kept for name, kept in keep.items() if name in named}
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


def _restore(module: nn.Module, changes: Mapping[tuple[str, str], tuple[Any, Any]], new: bool) -> None:
    """Put the new (or back the old) value of each attribute, in the type that it had."""
    for (path, name), values in changes.items():
        owner, value = module.get_submodule(path), values[int(new)]
        kind = type(getattr(owner, name))
        setattr(owner, name, kind(value) if isinstance(value, tuple) else value)


def written_sizes(traced: Trace, sizes: Sizes) -> list[str]:
    """The user's lines whose operators hold a size (or attention's scale) that has to change, once each."""
    lines = {}
    for node in traced.graph.graph.nodes:
        if node.op != "call_function" or not sizes.changes(node):
            continue
        target, args, kwargs = rewrite(node, sizes)
        same = (
            len(args) == len(node.args)
            and set(kwargs) <= set(node.kwargs)
            and all(
                a is b or (not isinstance(a, fx.Node) and a == b)
                for a, b in zip(args, node.args, strict=True)
            )
        )
        if not same:
            lines[source_line(node)] = target
    return list(lines)


def _difference(actual: list[torch.Tensor], expected: tuple[torch.Tensor, ...], name: str) -> float:
    if len(actual) != len(expected) or any(
        a.shape != b.shape for a, b in zip(actual, expected, strict=False)
    ):
        raise TraceError(f"the sliced {name} gives outputs of another shape than the cut graph")
    worst, largest = 0.0, 1.0
    for a, b in zip(actual, expected, strict=True):
        worst = max(worst, float((a.detach().double() - b.detach().double()).abs().max()))
        largest = max(largest, float(b.detach().abs().max()))
    allowed = TOLERANCE.get(expected[0].dtype, 1e-4) if expected else 0.0
    if not worst <= allowed * largest:
        raise TraceError(
            f"the sliced {name} differs from the cut graph by {worst:.3g}: its forward reads a size that is "
            "no attribute, or one that means something else",
            tip="use the pruned .pt2, which needs no class",
        )
    return worst


def _line(error: BaseException) -> str:
    """`file.py:41` of the innermost frame of the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    user_frames = [
        f for f in frames if "/torch/" not in f.filename and not f.filename.endswith("surgery/apply.py")
    ]
    chosen = (user_frames or list(frames))[-1]
    return f"{Path(chosen.filename).name}:{chosen.lineno}"
