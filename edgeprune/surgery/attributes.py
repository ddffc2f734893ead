"""Update what modules keep beside their weights after slicing: sizes that a forward reads.

`update_layers` knows torch's own layers. `Guesses` knows no class: it offers, for each whole
number (or sequence of them) that a user's module keeps, the sizes that such a number became
inside that module. Which offer is right, the caller proves by running the module.

Guarantee: the layers of torch that cannot hold the sliced weights are refused, all at once, with their lines.
Elsewhere: slicing and the proof (apply).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.coupling.components import FactorChoice
from edgeprune.coupling.sizes import Sizes
from edgeprune.errors import TraceError
from edgeprune.graph.module import shape_of, source_line, state_tensors
from edgeprune.graph.trace import Trace

Changes = dict[str, tuple[Any, Any]]
Put = Callable[..., None]
TRIALS = 64
SHOWN = 5  # refused layers that a message describes; its tip has all


def update_layers(module: nn.Module, where: dict[str, str], choice: FactorChoice) -> Changes:
    """Attributes of torch's own layers, from the shapes of their sliced weights.

    Args:
        module: with sliced weights; its layers are changed.
        where: the user's line that calls each module, by path.
        choice: what coupling freed of grouped convolutions.

    Raises:
        TraceError: recurrent layers of different widths in one module, or attention with fewer heads.
    """
    changed: Changes = {}
    recurrent: list[str] = []  # what torch's classes cannot express
    attention: list[str] = []

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
            _convolution(path, layer, shape, put, by_position=choice.groups == "position")
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            width = shape or tuple(getattr(layer.running_mean, "shape", ()))
            if width:
                put(path, layer, num_features=width[0])
        elif isinstance(layer, nn.LayerNorm | nn.RMSNorm) and shape:
            put(path, layer, normalized_shape=shape)
        elif isinstance(layer, nn.GroupNorm) and shape:
            per = layer.num_channels // layer.num_groups
            whole_groups = layer.num_groups >= per and shape[0] % per == 0  # as coupling removed them
            put(
                path,
                layer,
                num_channels=shape[0],
                num_groups=shape[0] // per if whole_groups else layer.num_groups,
            )
        elif isinstance(layer, nn.Embedding):
            put(path, layer, embedding_dim=shape[1])
        elif isinstance(layer, nn.PReLU):
            put(path, layer, num_parameters=shape[0])
        elif isinstance(layer, nn.RNNCellBase):
            put(path, layer, input_size=layer.weight_ih.shape[1], hidden_size=layer.weight_hh.shape[1])
        elif isinstance(layer, nn.RNNBase):
            recurrent += _recurrent(path, layer, put, where)
        elif isinstance(layer, nn.MultiheadAttention):
            attention += _attention(path, layer, put, where)
    if recurrent or attention:
        raise _refusal(module, recurrent, attention)
    return changed


def _refusal(module: nn.Module, recurrent: list[str], attention: list[str]) -> TraceError:
    """Every layer that cannot be expressed, and the options that keep them all.

    Attention that fits this time is kept too: with the others whole, the next plan may take its heads.
    """
    problems, steps = list(recurrent), []
    if recurrent:
        steps.append("write recurrent layers of different widths as modules of one layer each")
    if attention:
        shown = "; ".join(attention[:SHOWN])
        shown += f"; and {len(attention) - SHOWN} more" if len(attention) > SHOWN else ""
        problems.append(f"{shown}: torch's class has one embed_dim and one head width for both")
        paths = [p for p, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)]
        options = " ".join(f"--keep {p}" for p in paths if p)
        steps.append(f"prune again with {options}, which leaves attention whole" if options else "")
    steps.append("use the pruned .pt2, which needs no class")
    return TraceError("; ".join(problems), tip="; or ".join(s for s in steps if s))


def _convolution(path: str, layer: Any, shape: tuple[int, ...], put: Put, *, by_position: bool) -> None:
    """Groups that lost positions are as many as before; otherwise each kept its size, and some went."""
    outer, old = shape[0], layer.in_channels if layer.transposed else layer.out_channels
    groups = layer.groups
    if not by_position or min(layer.in_channels, layer.out_channels) == groups:
        groups = max(1, round(groups * outer / old)) if groups > 1 else 1
    inputs, outputs = (outer, shape[1] * groups) if layer.transposed else (shape[1] * groups, outer)
    put(path, layer, groups=groups, in_channels=inputs, out_channels=outputs)


def _recurrent(path: str, layer: Any, put: Put, where: dict[str, str]) -> list[str]:
    """One module has one hidden size: all its layers must have kept equally many units; else the refusal."""
    sizes = range(layer.num_layers)
    gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    widths = [getattr(layer, f"weight_hh_l{i}").shape[0] // gates for i in sizes]
    projected = [getattr(layer, f"weight_hr_l{i}").shape[0] for i in sizes if layer.proj_size]
    for kept, name in (widths, "hidden_size"), (projected, "proj_size"):
        if len(set(kept)) > 1:
            return [
                f"nn.{type(layer).__name__} '{path}' at {where.get(path, path)}: its layers keep"
                f" {', '.join(map(str, kept))} units, and one nn.{type(layer).__name__} has one {name}"
            ]
    put(path, layer, hidden_size=widths[0], input_size=layer.weight_ih_l0.shape[1])
    put(path, layer, proj_size=projected[0] if projected else 0)
    layer._init_flat_weights()
    return []


def _attention(path: str, layer: Any, put: Put, where: dict[str, str]) -> list[str]:
    """torch computes heads x head width = embed_dim: fewer heads fit where the outer width fell alike.

    Gives the refusal, if there is one.
    """
    outer = layer.out_proj.weight.shape[0]
    inner = layer.out_proj.weight.shape[1]
    old_width = layer.embed_dim // layer.num_heads
    if (outer, inner) == (layer.embed_dim, layer.embed_dim):
        return []
    if inner != outer or inner % old_width:
        stay = f"{inner // old_width} of {layer.num_heads} heads stay"
        if inner % old_width:
            stay = f"heads of {old_width} channels become narrower"
        return [
            f"nn.MultiheadAttention '{path}' at {where.get(path, path)}: {stay}, {inner} channels inside and"
            f" {outer} outside"
        ]
    keys, values = (
        (outer, outer)
        if layer._qkv_same_embed_dim
        else (layer.k_proj_weight.shape[1], layer.v_proj_weight.shape[1])
    )
    put(
        path, layer, embed_dim=outer, num_heads=inner // old_width, head_dim=old_width, kdim=keys, vdim=values
    )
    return []


class Guesses:
    """What the numbers that a user's modules keep may have become.

    One decision covers an attribute of one class and one value, however many modules of the
    class there are: blocks of a network shrink by the same reading of their attributes.
    """

    def __init__(self, module: nn.Module, traced: Trace, sizes: Sizes) -> None:
        at_path, below = _seen(traced, sizes)
        self.spots: dict[tuple[type, str, Any], list[tuple[str, list[Any]]]] = {}
        for path, owner in module.named_modules():
            if type(owner).__module__.startswith("torch.nn"):
                continue
            for name, value in _numbers(owner):
                offers = _offers(value, at_path.get(path, {}), below.get(path, {}))
                if offers != [value]:
                    self.spots.setdefault((type(owner), name, value), []).append((path, offers))

    def trials(self) -> Iterator[dict[tuple[str, str], tuple[Any, Any]]]:
        """Ways to update, the likeliest first, at most 64: (path, name) -> (old, new)."""
        keys = list(self.spots)
        ranges = [range(max(len(offers) for _, offers in self.spots[k])) for k in keys]
        choices = sorted(itertools.islice(itertools.product(*ranges), 1 << 16), key=sum)
        for chosen in choices[:TRIALS]:
            values_of = {}
            for (cls, name, value), rank in zip(keys, chosen, strict=True):
                for path, offers in self.spots[cls, name, value]:
                    new = offers[min(rank, len(offers) - 1)]
                    if new != value:
                        values_of[path, name] = (value, new)
            yield values_of


def _numbers(owner: nn.Module) -> list[tuple[str, Any]]:
    """Whole numbers and sequences of them that a module keeps, on itself or on its class."""
    names = dict.fromkeys([*vars(owner), *(n for c in type(owner).__mro__[:-1] for n in vars(c))])
    numbers: list[tuple[str, Any]] = []
    for name in names:
        if name.startswith("_"):
            continue
        value = getattr(owner, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            numbers.append((name, value))
        elif isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
            numbers.append((name, tuple(value)))
    return numbers


def _offers(value: Any, *seen: dict[Any, set[Any]]) -> list[Any]:
    """New values: sizes that it became in the module itself, or else in its layers; then the old one."""
    for sizes in seen:
        smaller = sorted(sizes.get(value, set()) - {value})
        if smaller:
            return [*smaller, value]
    return [value]


def folded_buffers(module: nn.Module, traced: Trace, sizes: Sizes) -> dict[str, dict[str, list[int]]]:
    """Buffers that a trace folded into constants, with the indices that would stay of each dimension.

    A frozen batch norm's scale is computed once, so no node reads what it was computed from. Such a buffer
    is offered the one mask of its size that the values in its module have; the caller proves it.
    """
    masks: dict[str, dict[int, set[tuple[int, ...]]]] = {}
    for node in traced.graph.graph.nodes:
        for path, _ in _levels(node)[:1]:
            for mask in sizes.masks(node).values():
                kept = tuple(np.flatnonzero(mask).tolist())
                masks.setdefault(path, {}).setdefault(len(mask), set()).add(kept)
    read, kept_of = state_tensors(traced.graph), {}
    for name, buffer in module.named_buffers():
        offers = masks.get(name.rpartition(".")[0], {})
        dims = {str(d): offers[n] for d, n in enumerate(buffer.shape) if len(offers.get(n, ())) == 1}
        if name not in read and dims:
            kept_of[name] = {d: list(kept) for d, (kept,) in dims.items()}
    return kept_of


Seen = dict[str, dict[Any, set[Any]]]


def _seen(traced: Trace, sizes: Sizes) -> tuple[Seen, Seen]:
    """Each size, run of sizes, or list of parts -> what it became; by module, and by the owner of layers."""
    at_path: Seen = {}
    below: Seen = {}
    for node in traced.graph.graph.nodes:
        levels = _levels(node)
        for depth, (path, cls) in enumerate(levels):
            sizes_at = (below if depth else at_path).setdefault(path, {})
            for part in (node, *node.all_input_nodes):
                shapes = shape_of(part.meta.get("val"))
                if isinstance(shapes, list):
                    _note_parts(sizes_at, shapes, [sizes.shape(part, i) for i in range(len(shapes))])
                elif isinstance(shapes, tuple):
                    _note(sizes_at, shapes, sizes.shape(part))
            if not cls.startswith("torch.nn"):
                break
    return at_path, below


def _note(seen: dict[Any, set[Any]], old: tuple[int, ...], new: tuple[int, ...]) -> None:
    for a, b in zip(old, new, strict=True):
        seen.setdefault(a, set()).add(b)
    for start, stop in itertools.combinations(range(len(old) + 1), 2):
        seen.setdefault(old[start:stop], set()).add(new[start:stop])
        if stop - start > 1:  # heads x width, where the forward flattens them
            seen.setdefault(math.prod(old[start:stop]), set()).add(math.prod(new[start:stop]))


def _note_parts(seen: dict[Any, set[Any]], old: list[Any], new: list[tuple[int, ...]]) -> None:
    shapes = [s for s in old if isinstance(s, tuple)]
    if len(shapes) != len(old):
        return
    for a, b in zip(shapes, new, strict=True):
        _note(seen, a, b)
    for dim in range(len(shapes[0])):
        if all(len(s) > dim for s in shapes):
            seen.setdefault(tuple(s[dim] for s in shapes), set()).add(tuple(s[dim] for s in new))


def _levels(node: fx.Node) -> list[tuple[str, str]]:
    """Path and class of the modules that a node runs in, the innermost first."""
    if node.op != "call_function":
        return []
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return [(str(p).removeprefix("L['self']").removeprefix("."), _named(c)) for p, c in reversed(stack)]


def _named(cls: Any) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def lines_of_modules(traced: Trace) -> dict[str, str]:
    """Module path -> the user's line that runs within it."""
    lines: dict[str, str] = {}
    for node in traced.graph.graph.nodes:
        for path, _ in _levels(node)[:1]:
            lines.setdefault(path, source_line(node))
    return lines
