"""Evaluate a graph operator by operator over several batches, keeping values while they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgeprune.model.graph import attribute
from edgeprune.model.trace import Trace

Batches = Sequence[tuple[torch.Tensor, ...]]
Values = dict[str, list[Any]]  # node -> its value on each batch


def evaluate(traced: Trace, node: fx.Node, values: Values, batches: Batches) -> None:
    """Add the node's value on every batch; its sources must be there. The output node has none."""
    if node.op == "placeholder":
        at = [n.name for n in traced.graph.graph.nodes if n.op == "placeholder"].index(node.name)
        values[node.name] = [b[at] for b in batches]
    elif node.op == "get_attr":
        values[node.name] = [attribute(traced.graph, str(node.target))] * len(batches)
    else:
        found = []
        for i in range(len(batches)):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n, i=i: values[n.name][i])
            found.append(node.target(*args, **kwargs))
        values[node.name] = found


def last_use(graph: fx.GraphModule) -> dict[str, list[str]]:
    """Node -> values that nothing after it reads."""
    last: dict[str, str] = {}
    for node in graph.graph.nodes:
        for source in node.all_input_nodes:
            last[source.name] = node.name
    found: dict[str, list[str]] = {}
    for source_name, user in last.items():
        found.setdefault(user, []).append(source_name)
    return found
