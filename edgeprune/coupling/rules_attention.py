"""Scaled dot-product attention: heads are the units, grouped queries go with their key-value head.

Removing whole heads is exact. Head width is the other choice: queries and keys lose the
same positions in every head, and the scale that the full width implied is written down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import fx

from edgeprune.coupling.labels import Value, along, varying
from edgeprune.coupling.opspec import NewCall, OperatorCall, operators
from edgeprune.coupling.rules import combine
from edgeprune.coupling.sizes import Sizes
from edgeprune.coupling.ties import Ties
from edgeprune.graph.module import shape_of

aten = torch.ops.aten


def keep_scale(node: fx.Node, sizes: Sizes) -> NewCall:
    """A narrower head keeps the scale of the full one."""
    query = node.args[0]
    width = shape_of(query.meta["val"])[-1]
    scale = node.kwargs.get("scale")
    if sizes.shape(query)[-1] == width or scale is not None:
        return node.target, node.args, node.kwargs
    return node.target, node.args, {**node.kwargs, "scale": 1.0 / math.sqrt(width)}


@operators(aten.scaled_dot_product_attention.default, rewrite=keep_scale, lossless="attention")
def attention(ties: Ties, call: OperatorCall) -> Value:
    """Heads go together in all three; queries and keys share their width, keys and values their length."""
    q, k, v = call.args[:3]
    rank, where = len(q.shape), call.where
    queries, keys, values = (_by_dimension(ties, x, where) for x in (q, k, v))
    head, row, column = rank - 3, rank - 2, rank - 1
    atoms: dict[int, torch.Tensor] = {}
    for d in range(rank - 2):
        n = q.shape[d]
        query_atoms = queries.get(d, torch.zeros(n, dtype=torch.int64))
        for other, source in ((keys, k), (values, v)):
            size = source.shape[d]
            theirs = other.get(d, torch.zeros(size, dtype=torch.int64))
            if d == head and size not in (1, n):
                theirs = theirs.repeat_interleave(n // size)
            if size > 1 or n == 1:
                ties.tie(query_atoms, theirs, f"{where} pairs heads that are not free")
        atoms[d] = query_atoms
    contracted = _tied(ties, queries, keys, column, q.shape[column], where)
    ties.mark_contracted(contracted, f"{where} multiplies queries and keys over it")
    seen = _tied(ties, keys, values, row, k.shape[row], where)
    ties.mark_inexact(seen, (0,), f"{where} averages over it")
    scores = (*q.shape[:-1], k.shape[row])
    labels = [x for d, a in atoms.items() for x in along(scores, d, a)]
    labels += along(scores, row, queries.get(row, torch.zeros(q.shape[row], dtype=torch.int64)))
    labels += along(scores, column, seen)
    mask = call.arg(3, "attn_mask")
    if isinstance(mask, Value):
        labels = list(combine(ties, scores, [Value(scores, tuple(labels)), mask], where).labels)
    shape = tuple(call.shape)
    width = values.get(column, torch.zeros(v.shape[column], dtype=torch.int64))
    _cost(ties, call, [atoms[d] for d in atoms], scores, (contracted, width))
    kept = [x for x in labels if column not in varying(x)]
    return Value(shape, (*kept, *along(shape, column, width)))


def _by_dimension(ties: Ties, x: Value, where: str) -> dict[int, torch.Tensor]:
    """Atoms per dimension, each label settled on one: heads first, or width first on request."""
    atoms: dict[int, torch.Tensor] = {}
    rank = len(x.shape)
    for label in ties.distinct(x, where):
        dims = varying(label)
        heads, width = [d for d in dims if d < rank - 2], [d for d in reversed(dims) if d >= rank - 2]
        order = (*width, *heads) if ties.choice.heads == "width" else (*heads, *width)
        atoms[order[0]] = ties.settle(label, order[0], f"{where} works on whole heads")
    return atoms


def _tied(
    ties: Ties, a: dict[int, torch.Tensor], b: dict[int, torch.Tensor], dim: int, size: int, where: str
) -> torch.Tensor:
    none = torch.zeros(size, dtype=torch.int64)
    left, right = a.get(dim, none), b.get(dim, none)
    ties.tie(left, right, f"{where} multiplies channels that are not free")
    return left


def _cost(
    ties: Ties,
    call: OperatorCall,
    heads: Sequence[torch.Tensor],
    scores: Sequence[int],
    widths: Sequence[torch.Tensor],
) -> None:
    """Two products per head: queries with keys, weights with values."""
    free = [h for h in heads if bool((h != 0).any())]
    base = math.prod(scores) / call.batch / math.prod(len(h) for h in free)
    for width in widths:
        if bool((width != 0).any()):
            ties.cost(call.node.name, base, *free, width)
        else:
            ties.cost(call.node.name, base * len(width), *free)
