"""Measure removals on the full-size network: only what lies behind the change runs again.

    variant = ablated(trace.graph, couplings, statistics, removed)      # the tensors that change
    losses(trace, [variant, …], batches, task)                          # divergence of each from the dense

The removed components' readers take over what they can in closed form from the captured statistics, other
readers (recurrent weights, products of queries and keys) are silenced. For each batch the dense network
runs once; each variant continues from the first node that reads a changed tensor, on values already there.

Guarantee: the network that was given is not written to.
Elsewhere: which removals are measured (sensitivity), what a removal is worth (allocate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.calibration.capture import FULL_COVARIANCE, LayerStatistics, Statistics, mixing_layers
from edgeprune.calibration.readings import further_readings
from edgeprune.coupling.components import BoolArray, Couplings, Layer
from edgeprune.graph.compute import CPU, Compute
from edgeprune.graph.execution import samples_first
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace, pytree
from edgeprune.recovery.lockstep import last_use
from edgeprune.search.second_order import independent_samples, shrink
from edgeprune.tasks.base import Task

Batches = Sequence[tuple[torch.Tensor, ...]]
Variant = dict[str, torch.Tensor]  # state tensor -> its value without the removed components
aten = torch.ops.aten


def ablated(
    graph: fx.GraphModule,
    couplings: Couplings,
    statistics: Statistics,
    removed: BoolArray,
    *,
    absorb: bool = True,
) -> Variant:
    """The tensors of the full-size network that differ without some components.

    Args:
        absorb: let the layers that read the components take over what they can.
    """
    variant: Variant = {}

    def tensor(name: str) -> torch.Tensor:
        return variant.setdefault(name, attribute(graph, name).detach().clone())

    with torch.no_grad():
        for layer in mixing_layers(couplings):
            keep = couplings.keep_mask(layer.inputs, removed)
            captured = statistics.layers.get(layer.node)
            if captured is not None and not keep.all():
                _take_over(graph, layer, captured, keep, tensor, absorb)
        for name, dim in further_readings(couplings, mixing_layers(couplings)):
            channel_map = couplings.tensors[name][dim]
            assert channel_map is not None
            gone = np.flatnonzero(~couplings.keep_mask(channel_map, removed))
            if len(gone):
                tensor(name).index_fill_(dim, torch.from_numpy(gone), 0.0)
    return variant


def losses(
    trace: Trace, variants: Sequence[Variant], batches: Batches, task: Task, *, compute: Compute = CPU
) -> list[float]:
    """Divergence of each variant's outputs from the dense ones, per sample."""
    graph = compute.place(trace.graph)
    nodes = list(graph.graph.nodes)
    number = {node: i for i, node in enumerate(nodes)}
    changed = [_replaced(graph, variant, compute) for variant in variants]
    starts: dict[int, list[int]] = {}
    for v, nodes_changed in enumerate(changed):
        readers = [number[user] for node in nodes_changed for user in node.users]
        starts.setdefault(min(readers, default=len(nodes) - 1), []).append(v)
    total = [0.0] * len(variants)
    last = last_use(graph)
    with torch.no_grad():
        for batch in batches:
            inputs = iter(compute.put(batch))
            values: dict[str, Any] = {}
            outputs: dict[int, Any] = {}
            for i, node in enumerate(nodes):
                for v in starts.get(i, ()):
                    fork = values | {n.name: t for n, t in changed[v].items()}
                    outputs[v] = _rest(graph, nodes, i, fork, last)
                if node.op == "output":
                    dense = _judged(node, values, len(batch[0]))
                    break
                values[node.name] = next(inputs) if node.op == "placeholder" else _value(graph, node, values)
                for gone in last.get(node.name, ()):
                    values.pop(gone, None)
            for v in range(len(variants)):
                total[v] += task.divergence(_first(outputs[v], len(batch[0])), dense) * len(batch[0])
    return [value / sum(len(batch[0]) for batch in batches) for value in total]


def work_behind(trace: Trace, couplings: Couplings, variant_names: Sequence[str]) -> float:
    """MACs per sample of what runs again when these tensors change."""
    nodes = list(trace.graph.graph.nodes)
    tensors = {id(attribute(trace.graph, name)) for name in variant_names}
    first = len(nodes)
    for i, node in enumerate(nodes):
        reads = [s for s in node.all_input_nodes if s.op == "get_attr"]
        if any(id(attribute(trace.graph, str(s.target))) in tensors for s in reads):
            first = i
            break
    behind = {node.name for node in nodes[first:]}
    sizes = couplings.kept(np.zeros(couplings.count, bool))
    return float(
        sum(c.coefficient * np.prod(sizes[list(c.factors)]) for c in couplings.costs if c.node in behind)
    )


def _replaced(graph: fx.GraphModule, variant: Variant, compute: Compute) -> dict[fx.Node, torch.Tensor]:
    """get_attr nodes whose tensor a variant changes, under any of its names, with the new value."""
    fast = {
        id(attribute(graph, name)): compute.put((_laid_out(value),))[0] for name, value in variant.items()
    }
    nodes = [n for n in graph.graph.nodes if n.op == "get_attr"]
    return {
        n: fast[id(attribute(graph, str(n.target)))]
        for n in nodes
        if id(attribute(graph, str(n.target))) in fast
    }


def _laid_out(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _rest(
    graph: fx.GraphModule,
    nodes: list[fx.Node],
    start: int,
    values: dict[str, Any],
    last: dict[str, list[str]],
) -> Any:
    """The outputs from node `start` on, given every value before it; `values` is used up."""
    known = set(values)  # replaced tensors among them
    for node in nodes[start:]:
        if node.op == "output":
            return fx.node.map_arg(node.args[0], lambda n: values[n.name])
        if node.op != "get_attr" or node.name not in known:
            values[node.name] = _value(graph, node, values)
        for gone in last.get(node.name, ()):
            values.pop(gone, None)
    raise AssertionError("a graph ends with its output")


def _value(graph: fx.GraphModule, node: fx.Node, values: dict[str, Any]) -> Any:
    if node.op == "get_attr":
        return attribute(graph, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n.name])
    return node.target(*args, **kwargs)


def _judged(node: fx.Node, values: dict[str, Any], samples: int) -> tuple[torch.Tensor, ...]:
    return _first(fx.node.map_arg(node.args[0], lambda n: values[n.name]), samples)


def _first(nested: Any, samples: int) -> tuple[torch.Tensor, ...]:
    """Flat output tensors, samples first."""
    flat = pytree.tree_leaves(nested)
    return tuple(samples_first(x, samples).cpu() for x in flat if isinstance(x, torch.Tensor))


def _take_over(
    graph: fx.GraphModule,
    layer: Layer,
    captured: LayerStatistics,
    keep: BoolArray,
    tensor: Callable[[str], torch.Tensor],
    absorb: bool,
) -> None:
    """Zero the removed inputs' weights and, where asked, let the kept ones take over."""
    weight = tensor(str(layer.weight))
    moved = weight.movedim((layer.out_dim, layer.in_dim), (0, 1))
    patches = captured.patches
    taps = moved[0, 0].numel() if patches is not None else 1
    mask = np.repeat(keep, taps)
    gone, stay = np.flatnonzero(~mask), np.flatnonzero(mask)
    if absorb and len(keep) <= FULL_COVARIANCE and len(stay):
        norm = None if layer.bias else _norm_behind(graph, layer.node)
        moments = captured if patches is None else patches
        centred = layer.bias is not None or norm is not None
        second = moments.covariance if centred else moments.second
        second = shrink(second, independent_samples(captured))
        mixing = torch.from_numpy(np.linalg.solve(second[np.ix_(stay, stay)], second[np.ix_(stay, gone)]))
        rows = moved.reshape(len(moved), len(keep), -1)  # one column per tap where taps mix alike
        if patches is not None:
            rows = rows.reshape(len(moved), -1, 1)
        lost = rows[:, gone].double()
        change = torch.einsum("og...,sg->os...", lost, mixing)
        updated = rows.double().clone()
        updated[:, stay] += change
        moved.copy_(updated.reshape(moved.shape).to(weight.dtype))
        rest = torch.from_numpy(moments.mean[gone]) - mixing.T @ torch.from_numpy(moments.mean[stay])
        shift = lost.sum(2) @ rest
        if layer.bias is not None:
            tensor(layer.bias).add_(shift.to(weight.dtype))
        elif norm is not None:
            tensor(str(norm.args[3].target)).sub_(shift.to(weight.dtype))
    moved[:, np.flatnonzero(~keep)] = 0.0


def _norm_behind(graph: fx.GraphModule, node: str) -> fx.Node | None:
    """The batch norm that alone reads a layer's output: an offset can go to its running mean."""
    users = [u for n in graph.graph.nodes if n.name == node for u in n.users]
    behind = len(users) == 1 and users[0].target is aten.batch_norm.default
    return users[0] if behind and users[0].args[3] is not None else None
