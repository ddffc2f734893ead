"""Switch batch norms between the statistics that they keep and those of the batch; frozen is the default."""

from __future__ import annotations

import torch
from torch import fx

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
