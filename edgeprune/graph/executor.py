"""Run a graph node by node, with hooks on what a node gets and on what it gives.

    outputs(graph, inputs)                     the flat tensor outputs
    execute(graph, inputs, after=record)       the outputs as the graph nests them

The only interpreter of graphs in the package. Values are freed after their last use.
Elsewhere: several graphs side by side (recovery.lockstep), running over data (execution).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from edgeprune.graph.module import attribute

# (node, args, kwargs) -> args and kwargs that the node is called with
Before = Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
# (node, value) -> the value that its users get
After = Callable[[fx.Node, Any], Any]


def execute(
    graph: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    *,
    before: Before | None = None,
    after: After | None = None,
) -> Any:
    """Run the graph on flat inputs; gives its outputs as the output node nests them.

    Args:
        before: called with a node and its evaluated operands; returns those to use.
        after: called with a node and its value, placeholders and state included; returns the value to use.
    """
    interpreter = _Hooked(graph, before, after)
    return interpreter.run(*inputs, enable_io_processing=False)


def flat_outputs(
    graph: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    *,
    before: Before | None = None,
    after: After | None = None,
) -> tuple[torch.Tensor, ...]:
    """The same, as the flat tuple of output tensors."""
    nested = execute(graph, inputs, before=before, after=after)
    return tuple(x for x in torch.utils._pytree.tree_leaves(nested) if isinstance(x, torch.Tensor))


def evaluate(graph: fx.GraphModule, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
    """The value of one `get_attr` or `call_function` node.

    Args:
        value_of: gives the value of each operand.
    """
    if node.op == "get_attr":
        return attribute(graph, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
    return node.target(*args, **kwargs)


def operand_index(node: fx.Node, source: str) -> int:
    """Position of the first argument that is the value of the node named `source`."""
    return next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.name == source)


class _Hooked(fx.Interpreter):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, graph: fx.GraphModule, before: Before | None, after: After | None) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.before = before
        self.after = after

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if self.before is not None:
            args, kwargs = self.before(n, args, kwargs)
        value = getattr(self, n.op)(n.target, args, kwargs)
        return value if self.after is None or n.op == "output" else self.after(n, value)
