"""Replay: a rewritten movement operator must commute with removal.

A perfect map of labels is not enough (a roll along channels maps well and still moves
them wrongly once some are gone). So every movement operator is run on element ids:
op(compact(ids)) must equal compact(op(ids)), element by element.

The same question has shorter answers where elements are not shuffled. A view of strides is
asked coordinate by coordinate, on tensors that repeat along all others. A reshape keeps the
order of elements, so block by block the places that stay must be the same before and after.
A concatenation or stack needs the masks of its operands to be those of its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings, IntArray
from edgeprune.coupling.movement import blocks
from edgeprune.coupling.operators import spec_of
from edgeprune.coupling.opspec import NewCall, naming
from edgeprune.coupling.sizes import Sizes, compact, normal_dim
from edgeprune.graph.module import attribute, concrete, shape_of

aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_select.default}
PIXELS = {aten.pixel_shuffle.default, aten.pixel_unshuffle.default}


def is_replayed(node: fx.Node) -> bool:
    """Whether a node moves elements, so that it has to be proven to commute with removal."""
    spec = spec_of(node.target) if node.op == "call_function" else None
    return spec is not None and spec.replay is not None


def commutes(node: fx.Node, new: NewCall, sizes: Sizes, graph: fx.GraphModule) -> bool:
    """Whether the rewritten node moves exactly the elements that stay."""
    spec = spec_of(node.target)
    assert spec is not None
    with naming(node, "replay"):
        if spec.replay == "join":
            return _joins(node, sizes)
        if spec.replay == "reshape":
            return _reshapes(node, new, sizes)
        if spec.replay in ("view", "permute"):
            return _views(node, new, sizes)
        return _moves(node, new, sizes, graph)


def removes_whole_periods(node: fx.Node, couplings: Couplings) -> bool:
    """Whether an operator that takes indices by a pattern loses whole periods of it only.

    A pixel shuffle, or its inverse, may lose whole blocks of channels and no position; a slice with a
    step the indices that it takes together with those that it skips. Trial removals find out by luck
    only: a half of the channels of every block may go together.
    """
    if node.target is aten.slice.Tensor:
        return _steps_whole(node, couplings)
    if node.target not in PIXELS:
        return True
    source, factor = cast(tuple[fx.Node, int], node.args[:2])
    wide = source if node.target is aten.pixel_shuffle.default else node
    for value in (source, node):
        rank = len(shape_of(value.meta["val"]))
        for dim in range(rank):
            for vector in _vectors(value, dim, couplings):
                if dim > rank - 3 and (vector >= 0).any():
                    return False
                if dim == rank - 3 and value is wide and not _same(vector, factor * factor):
                    return False
    return True


def _steps_whole(node: fx.Node, couplings: Couplings) -> bool:
    args: list[Any] = [*node.args, *(0, 0, None, None, 1)[len(node.args) :]]
    source, dim, start, end, step = args
    if step == 1:
        return True
    shape = shape_of(source.meta["val"])
    dim = normal_dim(dim, len(shape))
    taken = range(shape[dim])[start:end]
    for vector in _vectors(source, dim, couplings):
        free = (vector >= 0).any()
        if free and (len(vector) != shape[dim] or not _same(vector[taken.start : taken.stop], step)):
            return False
    return True


def _vectors(value: fx.Node, dim: int, couplings: Couplings) -> list[IntArray]:
    """Component of each index along a dimension of a value (−1: pinned), one for every factor."""
    spots = couplings.values.get(value.name, ((),))[0]
    return [couplings.channel_maps[channel_map] for channel_map in spots[dim]] if dim < len(spots) else []


def _same(vector: IntArray, period: int) -> bool:
    """Whether each stretch of `period` indices, the last may be short, is of one component."""
    return np.array_equal(vector, np.repeat(vector[::period], period)[: len(vector)])


def _joins(node: fx.Node, sizes: Sizes) -> bool:
    shape = shape_of(node.meta["val"])
    dim = normal_dim(node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0), len(shape))
    out, parts = sizes.masks(node), []
    for source in node.args[0]:
        source_masks, size = sizes.masks(source), list(shape_of(source.meta["val"]))
        if size == [0]:  # cat skips it, whatever the rank of the others
            continue
        if node.target is aten.stack.default:
            source_masks = {d + (d >= dim): mask for d, mask in source_masks.items()}
            size.insert(dim, 1)
        for d in {*source_masks, *out} - {dim}:
            if d not in source_masks or d not in out or not np.array_equal(source_masks[d], out[d]):
                return False
        parts.append(source_masks.get(dim, np.ones(size[dim], dtype=bool)))
    return np.array_equal(np.concatenate(parts), out.get(dim, np.ones(shape[dim], dtype=bool)))


def _reshapes(node: fx.Node, new: NewCall, sizes: Sizes) -> bool:
    source = node.args[0]
    old, shape = shape_of(source.meta["val"]), shape_of(node.meta["val"])
    source_masks, out = sizes.masks(source), sizes.masks(node)
    for before, after in blocks(old, shape):
        touched = any(d in source_masks for d in before) or any(d in out for d in after)
        if touched and not np.array_equal(_places(old, source_masks, before), _places(shape, out, after)):
            return False
    results = _applied(new, source, torch.zeros(1).expand(sizes.shape(source)))
    return [tuple(x.shape) for x in results] == [sizes.shape(node)]


def _places(shape: Sequence[int], masks: dict[int, BoolArray], dims: range) -> BoolArray:
    """Which places within a run of dimensions stay, in order."""
    stays = np.ones(1, dtype=bool)
    for d in dims:
        mask = masks.get(d, np.ones(shape[d], dtype=bool))
        stays = (stays[:, None] & mask).reshape(-1)
    return stays


def _views(node: fx.Node, new: NewCall, sizes: Sizes) -> bool:
    source = node.args[0]
    shape, masks = shape_of(source.meta["val"]), sizes.masks(source)
    for dim, size in enumerate(shape):
        line = torch.arange(size).reshape([size if d == dim else 1 for d in range(len(shape))])
        places = line.expand(shape)
        before = _applied((node.target, node.args, node.kwargs), source, places)
        after = _applied(new, source, compact(places, masks))
        if not _equal(before, after, node, sizes):
            return False
    return True


def _applied(new: NewCall, source: fx.Node, value: torch.Tensor) -> list[torch.Tensor]:
    """A node of one tensor operand, applied; nothing where it does not accept the shape."""
    target, args, kwargs = new

    def given(n: fx.Node) -> Any:
        return value if n is source else concrete(n.meta["val"])

    args, kwargs = fx.node.map_arg((args, kwargs), given)
    try:
        out = target(*args, **kwargs)
    except (RuntimeError, IndexError):
        return []
    return [out] if isinstance(out, torch.Tensor) else list(out)


def _equal(before: list[torch.Tensor], after: list[torch.Tensor], node: fx.Node, sizes: Sizes) -> bool:
    """Whether what was moved after removal is what is left of what was moved before it."""
    if len(after) != len(before):
        return False
    for i, (b, a) in enumerate(zip(before, after, strict=True)):
        expected = compact(b, sizes.masks(node, i))
        if a.shape != expected.shape:
            return False
        repeats = [d for d in range(a.dim()) if not a.stride(d) and not expected.stride(d) and a.shape[d]]
        for d in repeats:
            a, expected = a.narrow(d, 0, 1), expected.narrow(d, 0, 1)
        if not torch.equal(a, expected):
            return False
    return True


def _moves(node: fx.Node, new: NewCall, sizes: Sizes, graph: fx.GraphModule) -> bool:
    """By ids of all elements."""
    full: dict[fx.Node, Any] = {}
    small: dict[fx.Node, Any] = {}
    next_id = 0
    for source in node.all_input_nodes:
        val = source.meta.get("val")
        if not isinstance(val, torch.Tensor):
            full[source] = small[source] = concrete(val)
            continue
        if not val.is_floating_point() and source.op == "get_attr":
            full[source] = attribute(graph, str(source.target))
            small[source] = compact(full[source], sizes.masks(source))
            continue
        shape = shape_of(val)
        if node.target in INDEXED and source is not node.args[0]:  # which positions: any will do
            full[source] = torch.zeros(shape, dtype=torch.int64)
            small[source] = compact(full[source], sizes.masks(source))
            continue
        ids = torch.arange(next_id, next_id + torch.Size(shape).numel()).reshape(shape)
        next_id += ids.numel()
        full[source], small[source] = ids, compact(ids, sizes.masks(source))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), full.__getitem__)
    before = node.target(*args, **kwargs)
    target, new_args, new_kwargs = new
    args, kwargs = fx.node.map_arg((new_args, new_kwargs), small.__getitem__)
    try:
        after = target(*args, **kwargs)
    except (RuntimeError, IndexError):  # the operator does not even accept the smaller shape
        return False
    if isinstance(before, torch.Tensor):
        before, after = [before], [after]
    return _equal(list(before), list(after), node, sizes)
