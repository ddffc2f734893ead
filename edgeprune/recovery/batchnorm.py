"""Recalibrate batch norm: running statistics of the pruned network on calibration data."""

from __future__ import annotations

import torch
from torch import fx

from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.recovery.lockstep import Batches, LockstepInterpreter

aten = torch.ops.aten
TRAINING, MOMENTUM = 5, 6  # positions in aten.batch_norm's arguments


def batch_norms(graph: fx.GraphModule) -> list[fx.Node]:
    """Batch-norm nodes with running statistics."""
    nodes = graph.graph.nodes
    return [n for n in nodes if n.target is aten.batch_norm.default and n.args[3] is not None]


def set_training(graph: fx.GraphModule, training: bool, momentum: float | None = None) -> None:
    """Switch batch norm between batch and running statistics; None keeps each node's momentum.

    A momentum of 0.0 is how `momentum=None` (a cumulative average) exports; training with
    it would freeze the statistics, so it becomes 0.1 unless one is given.
    """
    for node in batch_norms(graph):
        args = list(node.args)
        args[TRAINING] = training
        args[MOMENTUM] = momentum if momentum is not None else (args[MOMENTUM] or 0.1)
        node.args = tuple(args)
    graph.recompile()


def recalibrate(pruned: Trace, batches: Batches) -> Trace:
    """The trace with running statistics of its own activations over all of `batches` (EagleEye, ECCV 2020).

    Mean and unbiased variance are pooled, so a short batch counts for what it holds and the
    division into batches does not matter. The walk is operator by operator: a batch norm sees
    what the ones before it give with their new statistics, as they will in use. Where activations
    are too large to hold for all batches (see `walk`), the first ones stand for all.
    """
    if not batch_norms(pruned.graph) or not batches:
        return pruned
    found = Trace(pruned.copy(), pruned.inputs, pruned.dynamic)
    norms = set(batch_norms(found.graph))
    with torch.no_grad():
        for node in (walk := LockstepInterpreter([found], batches)):
            if node in norms:
                _set_statistics(found.graph, node, walk.values[0][node.args[0].name])
                walk.again(node, 0)
    return found


def _set_statistics(graph: fx.GraphModule, node: fx.Node, seen: list[torch.Tensor]) -> None:
    """Pooled mean and unbiased variance per channel (dimension 1), by a second pass for precision."""
    rows = [x.movedim(1, -1).reshape(-1, x.shape[1]) for x in seen]
    count = sum(len(r) for r in rows)
    mean = sum(r.sum(0, dtype=torch.float64) for r in rows) / count
    spread = sum((r.double() - mean).square().sum(0) for r in rows)
    assert torch.isfinite(mean).all() and torch.isfinite(spread).all()
    running_mean, running_var = (attribute(graph, str(node.args[i].target)) for i in (3, 4))
    running_mean.copy_(mean)
    running_var.copy_(spread / max(1, count - 1))
