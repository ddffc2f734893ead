"""Rewrite the shape constants that exported graphs bake into arguments.

Each rewriter gives new (target, args, kwargs) for one operator. Symbolic sizes (the
free batch, and products with it) are shared between nodes, so where such a size
shrinks the *argument* becomes -1; the size node itself is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.components import BoolArray
from edgeprune.coupling.sizes import Sizes, normal_dim, prefix, replaced
from edgeprune.errors import TraceError
from edgeprune.graph.module import shape_of, source_line

aten = torch.ops.aten
New = tuple[Any, tuple[Any, ...], dict[str, Any]]
Rewriter = Callable[[fx.Node, Sizes], New]
REWRITERS: dict[Any, Rewriter] = {}


def rewriter(*targets: Any) -> Callable[[Rewriter], Rewriter]:
    """Register a rewriter for these overloads."""

    def register(function: Rewriter) -> Rewriter:
        for target in targets:
            REWRITERS[target] = function
        return function

    return register


def rewrite(node: fx.Node, sizes: Sizes) -> New:
    """New target and arguments of a node under a removal; unchanged where nothing is baked in."""
    found = REWRITERS.get(node.target)
    return found(node, sizes) if found else (node.target, node.args, node.kwargs)


def new_sizes(node: fx.Node, given: Any, old: tuple[int, ...], new: tuple[int, ...]) -> list[Any]:
    """A list of sizes with those that shrink replaced: integers by integers, symbols by -1."""
    out = list(given)
    for i, (size, before, after) in enumerate(zip(given, old, new, strict=True)):
        if before != after and size != -1:
            out[i] = -1 if isinstance(size, fx.Node) else after
    if sum(1 for s in out if isinstance(s, int) and s == -1) > 1:
        raise TraceError(f"two sizes of {node.target} at {source_line(node)} shrink with a free batch")
    return out


def groups_left(mask: BoolArray | None, groups: int) -> int:
    """How many of equal groups of channels keep any; the mask says which channels stay."""
    return groups if mask is None else int(mask.reshape(groups, -1).any(1).sum())


@rewriter(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def _view(node: fx.Node, sizes: Sizes) -> New:
    """A view becomes a reshape: the narrower operand may have another memory layout."""
    new = new_sizes(node, node.args[1], shape_of(node.meta["val"]), sizes.shape(node))
    return aten.reshape.default, replaced(node.args, 1, new), node.kwargs


@rewriter(aten.expand.default)
def _expand(node: fx.Node, sizes: Sizes) -> New:
    old, new = shape_of(node.meta["val"]), sizes.shape(node)
    out = [
        a if isinstance(a, fx.Node) or b == c else c for a, b, c in zip(node.args[1], old, new, strict=True)
    ]
    return node.target, replaced(node.args, 1, out), node.kwargs


@rewriter(aten.unflatten.int)
def _unflatten(node: fx.Node, sizes: Sizes) -> New:
    source, dim, parts = node.args[:3]
    at = normal_dim(dim, len(shape_of(source.meta["val"])))
    old, new = shape_of(node.meta["val"]), sizes.shape(node)
    out = new_sizes(node, parts, old[at : at + len(parts)], new[at : at + len(parts)])
    return node.target, replaced(node.args, 2, out), node.kwargs


@rewriter(aten.slice.Tensor)
def _slice(node: fx.Node, sizes: Sizes) -> New:
    source = node.args[0]
    shape = shape_of(source.meta["val"])
    dim = normal_dim(node.args[1] if len(node.args) > 1 else 0, len(shape))
    mask = sizes.masks(source).get(dim)
    if mask is None:
        return node.target, node.args, node.kwargs
    start, end = [*node.args[2:4], None, None][:2]
    start = prefix(mask, 0 if start is None else start, shape[dim])
    end = prefix(mask, shape[dim] if end is None else end, shape[dim])
    return node.target, (source, dim, start, end, *node.args[4:]), node.kwargs


@rewriter(aten.select.int)
def _select(node: fx.Node, sizes: Sizes) -> New:
    source, dim, index = node.args
    shape = shape_of(source.meta["val"])
    dim = normal_dim(dim, len(shape))
    index = index + shape[dim] if index < 0 else index
    return node.target, (source, dim, prefix(sizes.masks(source).get(dim), index, shape[dim])), node.kwargs


@rewriter(aten.narrow.default)
def _narrow(node: fx.Node, sizes: Sizes) -> New:
    source, dim, start, length = node.args
    shape = shape_of(source.meta["val"])
    mask = sizes.masks(source).get(normal_dim(dim, len(shape)))
    size = shape[normal_dim(dim, len(shape))]
    begin, end = prefix(mask, start, size), prefix(mask, start + length, size)
    return node.target, (source, dim, begin, end - begin), node.kwargs


@rewriter(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.tensor_split.sections)
def _split(node: fx.Node, sizes: Sizes) -> New:
    """Equal parts need not stay equal: all become explicit sizes."""
    source = node.args[0]
    shapes = shape_of(node.meta["val"])
    given = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    dim = normal_dim(given, len(shapes[0]))
    if dim not in sizes.masks(source):
        return node.target, node.args, node.kwargs
    parts = [sizes.shape(node, i)[dim] for i in range(len(shapes))]
    return aten.split_with_sizes.default, (source, parts, dim), {}


@rewriter(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
    aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
)  # fmt: skip
def _convolution(node: fx.Node, sizes: Sizes) -> New:
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    if groups == 1:
        return node.target, node.args, node.kwargs
    new = groups_left(sizes.masks(node).get(1), groups)
    if len(node.args) > 6:
        return node.target, replaced(node.args, 6, new), node.kwargs
    return node.target, node.args, {**node.kwargs, "groups": new}
