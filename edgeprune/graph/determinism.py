"""A network is a function of its input: the same input gives the same output.

    traced = require_function(trace(model, inputs))

Dropout that is called functionally without `training=self.training`, or in attention with a fixed
`dropout_p`, stays on in evaluation. A buffer that forward writes and reads carries state from one call
to the next. Neither can be compared with anything: parity, agreement and every score would measure noise.

Guarantee: two runs of the returned Trace on the same input give the same outputs up to rounding. Writes to
buffers that no output depends on (a counter of calls) are dropped from its graph.
Elsewhere: folding writes that nobody else sees (inplace).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.graph.module import source_line
from edgeprune.graph.trace import Trace, run

aten = torch.ops.aten
ROUNDING = 1e-5  # of the output's largest value; threads may add in another order
SHOWN = 3
DROPOUTS = ("dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alpha_dropout_",
            "feature_alpha_dropout", "feature_alpha_dropout_", "native_dropout")  # fmt: skip
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
DROPOUT_TIP = "give it training=self.training (in attention: dropout_p=p if self.training else 0.0)"
NOISE_TIP = "draw the random numbers outside of forward and pass them in as an input"
UNKNOWN = "no random operator and no written buffer was found in its graph"
STATE_TIP = "make the state an input and an output of forward"


def require_function(traced: Trace) -> Trace:
    """Run a trace twice on its example inputs and refuse it where the outputs differ.

    Raises:
        TraceError: with the line of each random operator, or the buffers that carry state.
    """
    graph = traced.copy()  # a run may write to buffers
    with torch.no_grad():
        first = [x.clone() for x in run(graph, _fresh(traced.inputs))]  # an output may be a buffer
        second = run(graph, _fresh(traced.inputs))
    moved = max((_distance(a, b) for a, b in zip(first, second, strict=True)), default=0.0)
    if moved > ROUNDING:
        reached = _ancestors(traced.graph)
        random = [f"{what} at {source_line(n)}" for n in reached if (what := _random(n))]
        written = _state_written_and_read(traced.graph, reached)
        causes, tip = random, NOISE_TIP
        if any("dropout" in cause for cause in random):
            tip = DROPOUT_TIP
        elif not random:
            causes, tip = [f"forward writes to the buffer {name!r}" for name in written], STATE_TIP
        listed = ", ".join(causes[:SHOWN]) + (
            f" and {len(causes) - SHOWN} more" if len(causes) > SHOWN else ""
        )
        raise TraceError(
            "the model is no function of its input: the same input twice gave outputs that differ by"
            f" {moved:.2g} of their largest value; {listed or UNKNOWN}",
            tip=tip,
        )
    if any(_written(node) for node in traced.graph.graph.nodes):
        graph = traced.copy()
        _drop_unread_writes(graph)
        return replace(traced, graph=graph)
    return traced


def _fresh(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.clone() for x in inputs)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference as a share of the largest value; equal NaN and infinities do not differ."""
    if a.shape != b.shape:
        return float("inf")
    if not a.is_floating_point():
        return float((a != b).any())
    differs = ~((a == b) | (a.isnan() & b.isnan()))
    if not differs.any():
        return 0.0
    gap = float((a[differs].double() - b[differs].double()).abs().max())
    largest = float(a.double().abs().nan_to_num().max())
    return gap / largest if largest else float("inf")


def _ancestors(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes that an output or a write depends on, in the graph's order."""
    ends = [n for n in graph.graph.nodes if n.op == "output" or _written(n)]
    seen: set[fx.Node] = set()
    while ends:
        node = ends.pop()
        if node not in seen:
            seen.add(node)
            ends.extend(node.all_input_nodes)
    return [n for n in graph.graph.nodes if n in seen]


def _random(node: fx.Node) -> str:
    """What an operator draws random numbers for, in words; empty where it draws none."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    name = str(node.target.overloadpacket).removeprefix("aten.")
    schema = node.target._schema
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound |= {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)} | node.kwargs
    if name in DROPOUTS:
        return f"dropout with p={bound.get('p', 0.5)}" if bound.get("train") is not False else ""
    if "dropout_p" in bound:
        return f"dropout of attention with p={bound['dropout_p']}" if bound["dropout_p"] else ""
    if name in RECURRENT:
        on = bound.get("train") and bound.get("dropout")
        return f"dropout between the layers of {name} with p={bound['dropout']}" if on else ""
    if name.startswith("rrelu"):
        return "rrelu in training mode" if bound.get("training") else ""
    return name if torch.Tag.nondeterministic_seeded in node.target.tags else ""


def _written(node: fx.Node) -> str:
    """The buffer that a node writes to; empty where it writes to none."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return ""
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        alias = argument.alias_info
        if alias is not None and alias.is_write and isinstance(value, fx.Node) and value.op == "get_attr":
            return str(value.target)
    return ""


def _state_written_and_read(graph: fx.GraphModule, reached: list[fx.Node]) -> list[str]:
    """Buffers that forward writes, first those that an output reads."""
    names = list(dict.fromkeys(name for n in graph.graph.nodes if (name := _written(n))))
    read = {
        str(n.target) for n in reached if n.op == "get_attr" and any(not _written(user) for user in n.users)
    }
    return sorted(names, key=lambda name: name not in read)


def _drop_unread_writes(graph: fx.GraphModule) -> None:
    """Erase writes to buffers that nothing reads afterwards; in one run they change no output."""
    for node in list(_writes_last_first(graph)):
        name = _written(node)
        later = any(
            use is not node and node < use
            for source in graph.graph.nodes
            if source.op == "get_attr" and source.target == name
            for use in source.users
        )
        if not node.users and not later:
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _writes_last_first(graph: fx.GraphModule) -> Iterator[fx.Node]:
    return (node for node in reversed(list(graph.graph.nodes)) if _written(node))
