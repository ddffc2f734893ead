"""Pooling over positions and reductions over any dimension."""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.coupling.labels import Value, varying
from edgeprune.coupling.opspec import OperatorCall, operators, unchanged
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten


@operators(
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default,
    rewrite=unchanged, lossless="pool", algebra="linear",
)  # fmt: skip
@operators(
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default,
    aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default,
    rewrite=unchanged, lossless="pool", algebra="homogeneous",
)  # fmt: skip
@operators(aten.max_pool2d_with_indices.default, rewrite=unchanged, lossless="pool")
def pooling(ties: Ties, call: OperatorCall) -> Any:
    """Windows over the trailing positions: what does not depend on them passes."""
    x = call.args[0]
    several = isinstance(call.shape, list)
    shape = call.shape[0] if several else tuple(call.shape)
    window = call.args[1]
    rank = len(window) if isinstance(window, list | tuple) else 1
    positions = tuple(range(len(x.shape) - rank, len(x.shape)))
    ties_label = [label for label in x.labels if set(varying(label)) & set(positions)]
    for label in ties_label:
        ties.pin(label, f"{call.where} pools over it")
    out = Value(shape, tuple(ties.passing(x, positions)))
    return [out, Value(call.shape[1])] if several else out


@operators(aten.mean.dim, aten.sum.dim_IntList, lossless="reduce", algebra="linear")
@operators(
    aten.amax.default, aten.amin.default, aten.var.correction, aten.std.correction, aten.logsumexp.default,
    lossless="reduce",
)  # fmt: skip
@operators(
    aten.linalg_vector_norm.default, aten.mean.default, aten.sum.default, aten.prod.dim_int,
    aten.any.dim, aten.any.dims, aten.all.dim, aten.all.dims, aten.nansum.default, aten.nanmean.default,
    aten.count_nonzero.dim_IntList, aten.std_mean.correction, aten.var_mean.correction, aten.std_mean.dim,
    aten.var_mean.dim, aten.std.dim, aten.var.dim, aten.norm.ScalarOpt_dim,
)  # fmt: skip
def reduction(ties: Ties, call: OperatorCall) -> Any:
    """Channels may be reduced over, but even a silent one changes a mean or a norm: not exact."""
    x = call.args[0]
    rank = len(x.shape)
    at = 2 if call.node.target in (aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim) else 1
    raw_dims = call.arg(at, "dim")
    dims = [raw_dims] if isinstance(raw_dims, int) else list(raw_dims or range(rank))
    reduced = {d % rank for d in dims}
    stay = [d for d in range(rank) if d not in reduced]
    several = isinstance(call.shape, list)  # a spread and its mean, of one shape
    kept = tuple(call.shape[0] if several else call.shape)
    labels = []
    for label in x.labels:
        left = ties.collapse(label, reduced, f"{call.where} reduces over a part of it")
        if left is None:
            ties.mark_inexact(label, reduced, f"{call.where} reduces over it")
        else:
            labels.append(left if len(kept) == rank else left.reshape([left.shape[d] for d in stay]))
    out = Value(kept, tuple(labels))
    return [out] * len(call.shape) if several else out
