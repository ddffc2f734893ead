"""Rewriters of operators that compute: norms, attention, padding, creation, writes into parts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.rewrite import New, groups_left, rewriter
from edgeprune.coupling.sizes import Sizes, normal_dim, prefix, replaced
from edgeprune.graph.module import concrete, shape_of

aten = torch.ops.aten


@rewriter(aten.layer_norm.default, aten.rms_norm.default, aten.native_layer_norm.default)
def _layer_norm(node: fx.Node, sizes: Sizes) -> New:
    source, normed = node.args[:2]
    return node.target, replaced(node.args, 1, list(sizes.shape(source)[-len(normed) :])), node.kwargs


@rewriter(aten.group_norm.default)
def _group_norm(node: fx.Node, sizes: Sizes) -> New:
    new = groups_left(sizes.masks(node).get(1), node.args[1])
    return node.target, replaced(node.args, 1, new), node.kwargs


@rewriter(aten.scaled_dot_product_attention.default)
def _attention(node: fx.Node, sizes: Sizes) -> New:
    """A narrower head keeps the scale of the full one."""
    query = node.args[0]
    width = shape_of(query.meta["val"])[-1]
    scale = node.kwargs.get("scale")
    if sizes.shape(query)[-1] == width or scale is not None:
        return node.target, node.args, node.kwargs
    return node.target, node.args, {**node.kwargs, "scale": 1.0 / math.sqrt(width)}


@rewriter(aten.constant_pad_nd.default, aten.pad.default)
def _pad(node: fx.Node, sizes: Sizes) -> New:
    """Padded channels that go make the padding smaller."""
    masks, size, amounts = sizes.masks(node), shape_of(node.meta["val"]), list(node.args[1])
    rank = len(size)
    for dim, mask in masks.items():
        at = 2 * (rank - 1 - dim)
        if at < len(amounts) and (amounts[at] or amounts[at + 1]):
            before, after = amounts[at], amounts[at + 1]
            amounts[at : at + 2] = [int(mask[:before].sum()), int(mask[size[dim] - after :].sum())]
    return node.target, replaced(node.args, 1, amounts), node.kwargs


@rewriter(aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format)
def _creation(node: fx.Node, sizes: Sizes) -> New:
    return _created(node, sizes, 0)


@rewriter(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default)
def _new(node: fx.Node, sizes: Sizes) -> New:
    return _created(node, sizes, 1)


def _created(node: fx.Node, sizes: Sizes, index: int) -> New:
    new = sizes.shape(node)
    out = [s if isinstance(s, fx.Node) else new[d] for d, s in enumerate(node.args[index])]
    return node.target, replaced(node.args, index, out), node.kwargs


@rewriter(aten.repeat.default)
def _repeat(node: fx.Node, sizes: Sizes) -> New:
    """Copies of one index shrink by their number; copies of a block shrink with the block."""
    source, times = node.args[:2]
    shape, new = shape_of(source.meta["val"]), sizes.shape(node)
    lead = len(times) - len(shape)
    out = [
        new[d] if not isinstance(t, fx.Node) and (d < lead or shape[d - lead] == 1) else t
        for d, t in enumerate(times)
    ]
    return node.target, replaced(node.args, 1, out), node.kwargs


@rewriter(aten.slice_scatter.default)
def _slice_scatter(node: fx.Node, sizes: Sizes) -> New:
    target, source = node.args[:2]
    dim, start, end, step = _slice_arguments(node)
    shape = shape_of(target.meta["val"])
    mask = sizes.masks(target).get(normal_dim(dim, len(shape)))
    if mask is None:
        return node.target, node.args, node.kwargs
    size = shape[normal_dim(dim, len(shape))]
    begin = prefix(mask, 0 if start is None else concrete(start), size)
    stop = prefix(mask, size if end is None else concrete(end), size)
    return node.target, (target, source, dim, begin, stop, step), {}


@rewriter(aten.select_scatter.default)
def _select_scatter(node: fx.Node, sizes: Sizes) -> New:
    target, source, dim, index = node.args
    shape = shape_of(target.meta["val"])
    at = normal_dim(dim, len(shape))
    index = index + shape[at] if index < 0 else index
    return node.target, (target, source, dim, prefix(sizes.masks(target).get(at), index, shape[at])), {}


def _slice_arguments(node: fx.Node) -> tuple[Any, Any, Any, Any]:
    given = dict(zip(("dim", "start", "end", "step"), (0, None, None, 1), strict=True))
    given.update(zip(given, node.args[2:], strict=False))
    given.update(node.kwargs)
    return given["dim"], given["start"], given["end"], given["step"]
