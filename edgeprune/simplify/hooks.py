"""Masks that an exported graph applies to itself.

A module with `torch.nn.utils.prune` hooks exports as `weight_mask · weight_orig`, in a `.pt2`
just so. Surgery cannot slice a weight that is computed, so each such product of a parameter
and a constant of zeros and ones becomes one parameter, and the constant a mask.

Guarantee: the graph computes what it computed, bit for bit; the trace given is not changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import fx

from edgeprune.graph.module import attribute, set_attribute
from edgeprune.graph.normalise import drop_unused_state
from edgeprune.graph.trace import Trace
from edgeprune.masks.mask import BoolArray, Mask
from edgeprune.masks.sources import ORIG

aten = torch.ops.aten


def fuse_masks(traced: Trace) -> tuple[Trace, Mask]:
    """Turn masked parameters of a graph into plain ones.

    `conv.weight_orig` · `conv.weight_mask` becomes `conv.weight`; a parameter of any other
    name keeps it. One that is also used unmasked is left alone.

    Returns the new trace (the one given where there is nothing to do) and the masks found.
    """
    graph = traced.copy()
    keep: dict[str, BoolArray] = {}
    for node in list(graph.graph.nodes):
        pair = _masked_parameter(graph, node)
        if pair is None:
            continue
        weight, mask = pair
        old = attribute(graph, str(weight.target))
        zeros = attribute(graph, str(mask.target))
        name = _plain_name(graph, str(weight.target))
        fused = torch.nn.Parameter(old.detach() * zeros, old.requires_grad)
        set_attribute(graph, name, fused)
        with graph.graph.inserting_before(node):
            plain = graph.graph.get_attr(name)
        plain.meta = dict(node.meta)
        node.replace_all_uses_with(plain)
        keep[name] = np.asarray((zeros != 0).expand(fused.shape).numpy())
    if not keep:
        return traced, Mask({})
    graph.graph.eliminate_dead_code()
    drop_unused_state(graph)
    graph.graph.lint()
    graph.recompile()
    return replace(traced, graph=graph), Mask(keep)


def _masked_parameter(graph: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The parameter and the mask that a product multiplies, where it is such a product."""
    if node.op != "call_function" or node.target is not aten.mul.Tensor:
        return None
    for weight, mask in (node.args[:2], node.args[1::-1]):
        if not (isinstance(weight, fx.Node) and isinstance(mask, fx.Node)):
            continue
        if weight.op != "get_attr" or mask.op != "get_attr" or len(weight.users) != 1:
            continue
        values, zeros = (attribute(graph, str(n.target)) for n in (weight, mask))
        plain = isinstance(values, torch.nn.Parameter) and not isinstance(zeros, torch.nn.Parameter)
        if plain and zeros.shape == values.shape and bool(((zeros == 0) | (zeros == 1)).all()):
            return weight, mask
    return None


def _plain_name(graph: fx.GraphModule, name: str) -> str:
    stem = name.removesuffix(ORIG)
    taken = {n for n, _ in [*graph.named_parameters(remove_duplicate=False), *graph.named_buffers()]}
    return stem if stem not in taken else name
