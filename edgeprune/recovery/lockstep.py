"""LockstepInterpreter graphs operator by operator over calibration batches, in bounded memory.

    for node in (walk := LockstepInterpreter([dense, pruned], batches)):
        walk.values[1][node.name]            # the pruned graph's value on every batch held now

Several graphs whose nodes share names go side by side; a node of the first is visited once
all its sources are known, and values live as long as a later operator of the first graph
reads them. What does not fit into `memory` is not held: where activations are large the walk
carries fewer batches, at least one, and where they become smaller it fetches the others by
running them through what lies upstream, one at a time. So early layers, which have many
positions, see few samples, and late layers all of them. Networks are changed while they are
walked; batches that join later see what was changed upstream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from edgeprune.graph import executor
from edgeprune.graph.module import shape_of
from edgeprune.graph.trace import Trace, pytree

Batch = tuple[torch.Tensor, ...]
Batches = Sequence[Batch]
Values = dict[str, list[Any]]  # node -> its value on each batch
MEMORY = 2 << 30  # bytes of live values, all graphs together


class LockstepInterpreter:
    """Iterates over the nodes of the first trace, output excluded; `values[k]` belongs to trace k."""

    def __init__(self, traces: Sequence[Trace], batches: Batches, memory: int = MEMORY) -> None:
        self.traces = traces
        self.batches = batches
        self.values: list[Values] = [{} for _ in traces]
        self.held = 0
        self._nodes = [n for n in traces[0].graph.graph.nodes if n.op != "output"]
        self._twins = [{n.name: n for n in t.graph.graph.nodes} for t in traces]
        self._last = last_use(traces[0].graph)
        self._wanted = affordable(traces[0], self._last, batches, memory // len(traces))

    def __iter__(self) -> Iterator[fx.Node]:
        for node in self._nodes:
            if self._wanted[node.name] > self.held:
                self._fetch(node)
            for lane in range(len(self.traces)):
                self.again(node, lane)
            yield node
            for gone in self._last.get(node.name, ()):
                for values in self.values:
                    values.pop(gone, None)

    def again(self, node: fx.Node, lane: int) -> None:
        """Evaluate a node of one graph on the batches held, with what its weights are now."""
        twin = self._twins[lane].get(node.name)
        if twin is not None:
            evaluate_batches(self.traces[lane], twin, self.values[lane], self.batches[: self.held])

    def _fetch(self, upto: fx.Node) -> None:
        """Bring further batches to just before a node, each by itself, and keep what is still read."""
        wanted = self._wanted[upto.name]
        if self.held:
            for batch in self.batches[self.held : wanted]:
                for lane, traced in enumerate(self.traces):
                    values: Values = {}
                    for node in self._nodes[: self._nodes.index(upto)]:
                        twin = self._twins[lane].get(node.name)
                        if twin is not None:
                            evaluate_batches(traced, twin, values, [batch])
                        for gone in self._last.get(node.name, ()):
                            values.pop(gone, None)
                    for name, held in self.values[lane].items():
                        held.extend(values[name])
        self.held = wanted


def affordable(traced: Trace, last: dict[str, list[str]], batches: Batches, memory: int) -> dict[str, int]:
    """Node -> how many batches to hold there; never falls along the graph, rises by doubling or to all."""
    share = len(batches[0][0]) / max(1, len(traced.inputs[0])) if batches and batches[0][0].dim() else 1.0
    sizes: dict[str, float] = {}
    peaks: list[tuple[str, float]] = []
    live = 0.0
    for node in traced.graph.graph.nodes:
        if node.op == "output":
            break
        sizes[node.name] = 0.0 if node.op == "get_attr" else share * _bytes(node.meta.get("val"))
        live += sizes[node.name]
        peaks.append((node.name, live))
        live -= sum(sizes.get(gone, 0.0) for gone in last.get(node.name, ()))
    ceiling = len(batches)
    batches_of: dict[str, int] = {}
    for name, peak in reversed(peaks):
        ceiling = max(min(ceiling, int(memory // max(peak, 1.0))), 1)
        batches_of[name] = ceiling
    held = 0
    for name, _ in peaks:
        held = batches_of[name] if batches_of[name] >= min(2 * held, len(batches)) else held
        batches_of[name] = held
    return batches_of


def evaluate_batches(traced: Trace, node: fx.Node, values: Values, batches: Batches) -> None:
    """Add the node's value on every batch; its sources must be there. The output node has none."""
    if node.op == "placeholder":
        at = [n.name for n in traced.graph.graph.nodes if n.op == "placeholder"].index(node.name)
        values[node.name] = [b[at] for b in batches]
    else:
        values[node.name] = [_evaluated(traced, node, values, i) for i in range(len(batches))]


def _evaluated(traced: Trace, node: fx.Node, values: Values, batch: int) -> Any:
    return executor.evaluate(traced.graph, node, lambda n: values[n.name][batch])


def last_use(graph: fx.GraphModule) -> dict[str, list[str]]:
    """Node -> values that nothing after it reads."""
    last: dict[str, str] = {}
    for node in graph.graph.nodes:
        last[node.name] = node.name  # what nobody reads goes at once
        for source in node.all_input_nodes:
            last[source.name] = node.name
    last_read_by: dict[str, list[str]] = {}
    for source_name, user in last.items():
        last_read_by.setdefault(user, []).append(source_name)
    return last_read_by


def _bytes(value: Any) -> float:
    """Bytes of a node's example value; a view counts as if it were a copy."""
    total = 0.0
    for part in pytree.tree_flatten(value)[0]:
        if isinstance(part, torch.Tensor):
            count = 1
            for size in shape_of(part):
                count *= size
            total += count * part.element_size()
    return total
