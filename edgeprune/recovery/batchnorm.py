"""Recalibrate batch norm: running statistics of the pruned network on calibration data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from edgeprune.model.graph import attribute
from edgeprune.model.trace import Trace, run

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


def recalibrate(pruned: Trace, batches: Sequence[tuple[torch.Tensor, ...]]) -> Trace:
    """The trace with running mean and variance equal to the average over `batches` (EagleEye, ECCV 2020)."""
    graph = pruned.copy()
    norms = batch_norms(graph)
    if not norms or not batches:
        return pruned
    momenta = [n.args[MOMENTUM] for n in norms]
    with torch.no_grad():
        for count, inputs in enumerate(batches, 1):
            set_training(graph, True, 1.0 / count)
            run(graph, inputs)
    for node, momentum in zip(norms, momenta, strict=True):
        args = list(node.args)
        args[TRAINING], args[MOMENTUM] = False, momentum
        node.args = tuple(args)
    graph.recompile()
    for node in norms:
        assert torch.isfinite(attribute(graph, str(node.args[4].target))).all()
    return Trace(graph, pruned.inputs, pruned.dynamic)
