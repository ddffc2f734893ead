"""Replay: a rewritten movement operator must commute with removal.

A perfect map of labels is not enough (a roll along channels maps well and still moves
them wrongly once some are gone). So every movement operator is run on element ids:
op(compact(ids)) must equal compact(op(ids)), element by element.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgeprune.coupling.movement import CYCLIC, MOVEMENT
from edgeprune.model.graph import attribute, concrete, shape_of
from edgeprune.surgery.rewrite import New
from edgeprune.surgery.sizes import Sizes, compact

aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_select.default}
REPLAYED = MOVEMENT | CYCLIC | {aten.cat.default, aten.stack.default}


def commutes(node: fx.Node, new: New, sizes: Sizes, graph: fx.GraphModule) -> bool:
    """Whether the rewritten node moves exactly the elements that stay."""
    full: dict[fx.Node, Any] = {}
    small: dict[fx.Node, Any] = {}
    next_id = 0
    for source in node.all_input_nodes:
        val = source.meta.get("val")
        if not isinstance(val, torch.Tensor):
            full[source] = small[source] = concrete(val)
            continue
        if not val.is_floating_point() and source.op == "get_attr":
            full[source] = small[source] = attribute(graph, str(source.target))
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
    expected = [compact(b, sizes.masks(node, i)) for i, b in enumerate(before)]
    return len(after) == len(expected) and all(
        a.shape == e.shape and bool((a == e).all()) for a, e in zip(after, expected, strict=True)
    )
