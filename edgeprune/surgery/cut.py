"""Remove components from a Trace.

Guarantee: every state tensor is sliced by whole components, every shape constant is
rewritten, every movement operator was replayed, and the resulting graph was run once
with every value's shape equal to the prediction. Anything else raises; nothing of the
Trace that was given changes.
"""

from __future__ import annotations

import copy as copying
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.coupling.opspec import operator_name
from edgeprune.coupling.replay import commutes, is_replayed
from edgeprune.coupling.rewrite import rewrite
from edgeprune.coupling.sizes import Sizes, compact
from edgeprune.errors import TraceError
from edgeprune.graph.executor import execute
from edgeprune.graph.module import source_line, state_tensors
from edgeprune.graph.trace import Trace, reexport, trace


def cut(traced: Trace, couplings: Couplings, removed: BoolArray) -> Trace:
    """The trace without the removed components.

    Args:
        removed: boolean, shape (couplings.count,).

    Raises:
        TraceError: a dimension would lose its last index, or a certificate failed.
    """
    if couplings.emptied(removed):
        raise TraceError("the plan removes every channel of a layer", tip="keep at least one per layer")
    sizes = Sizes(couplings, removed)
    graph = copying.deepcopy(traced.graph, _sliced_state(traced.graph, sizes))
    originals = {n.name: n for n in traced.graph.graph.nodes}
    for node in list(graph.graph.nodes):
        original = originals[node.name]
        if node.op != "call_function" or not sizes.changes(original):
            continue
        new = rewrite(original, sizes)
        if is_replayed(original) and not commutes(original, new, sizes, traced.graph):
            raise TraceError(f"{node.target} at {source_line(node)} does not commute with this removal")
        twin = {n.name: n for n in node.all_input_nodes}
        node.target = new[0]
        node.args, node.kwargs = fx.node.map_arg(new[1:], lambda n, twin=twin: twin[n.name])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    _check_shapes(graph, traced, sizes, originals)
    return replace(traced, graph=graph)


def retrace(cut_trace: Trace) -> Trace:
    """Export the cut graph again, which proves that it stands alone with its free batch."""
    program = reexport(cut_trace.graph, cut_trace.inputs, cut_trace.dynamic)
    return trace(program, interface=cut_trace.interface)


def _sliced_state(graph: fx.GraphModule, sizes: Sizes) -> dict[int, Any]:
    """What a copy of the graph puts in the place of each tensor that gets smaller, by its id.

    One per tensor object, so that tied weights stay tied, and the large ones are never copied.
    """
    done: dict[int, Any] = {}
    for name, tensor in state_tensors(graph).items():
        masks = sizes.tensor_masks(name)
        if masks and id(tensor) not in done:
            small = compact(tensor.detach(), masks).contiguous()
            done[id(tensor)] = (
                torch.nn.Parameter(small, tensor.requires_grad)
                if isinstance(tensor, torch.nn.Parameter)
                else small
            )
    return done


def _check_shapes(graph: fx.GraphModule, traced: Trace, sizes: Sizes, originals: dict[str, fx.Node]) -> None:
    def compare(node: fx.Node, value: Any) -> Any:
        original = originals.get(node.name)
        if original is not None and "val" in original.meta and isinstance(value, torch.Tensor):
            predicted = sizes.shape(original)
            if tuple(value.shape) != predicted:
                raise TraceError(
                    f"{operator_name(node)} at {source_line(node)} gave shape {tuple(value.shape)},"
                    f" predicted {predicted}"
                )
        return value

    with torch.no_grad():
        try:
            execute(graph, traced.inputs, after=compare)
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(f"the cut graph does not run: {str(error).splitlines()[0]}") from error
