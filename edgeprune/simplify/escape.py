"""Prove that what is removed reaches nothing that stays.

For every node: the elements of its value that the removed elements of its operands can
change must all be removed too. By induction over the graph, removal then changes nothing
that is left. A rule that forgot an operand, a reader nobody recorded, a norm over the
removed dimension: all of them show here as an escape, and name the components.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray
from edgeprune.coupling.sizes import Sizes
from edgeprune.graph.module import source_line
from edgeprune.simplify.flow import Observation, spread
from edgeprune.simplify.state import LosslessState

RECURRENT = ("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")


def escaping(state: LosslessState, facts: Observation, chosen: BoolArray) -> dict[int, str]:
    """Chosen components that reach something that stays, with the place where; empty when none does."""
    sizes = Sizes(state.couplings, chosen)
    reasons: dict[int, str] = {}
    for node in state.graph.graph.nodes:
        operands = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if str(node.target).startswith(RECURRENT) and _masks(sizes, node):
            # A hidden unit is an operand of the next step, inside the node where no mark can be seen.
            where = f"{node.target!s} at {source_line(node)} feeds it back to itself"
            reasons.update(_blame(state, chosen, [node], where))
            continue
        if node.op == "placeholder" or not any(_masks(sizes, n) for n in operands):
            continue
        if node.op == "output":
            reasons.update(_blame(state, chosen, operands, "the output holds it"))
            continue
        marks = {n.name: _marked(n, sizes, facts, state) for n in node.all_input_nodes}
        reached = spread(node, marks, facts)
        marked = _marked(node, sizes, facts, state)
        if isinstance(reached, list):  # only what is taken out of several outputs can go anywhere
            taken = {u.args[1] for u in node.users if u.target is operator.getitem}
            marked = [o if i in taken else r for i, (r, o) in enumerate(zip(reached, marked, strict=True))]
        if _escapes(reached, marked):
            where = f"{str(node.target).removesuffix('.default')} at {source_line(node)} passes it on"
            reasons.update(_blame(state, chosen, operands, where))
    return reasons


def _marked(node: fx.Node, sizes: Sizes, facts: Observation, state: LosslessState) -> Any:
    """Removed elements of a node's value; none of a parameter, whose slices meet zeros or leave too."""
    value = facts.values[node.name]
    if not isinstance(value, list | tuple):
        return _mark(value, {} if node.op == "get_attr" else sizes.masks(node))
    return [_mark(v, sizes.masks(node, i)) for i, v in enumerate(value)]


def _mark(value: Any, masks: dict[int, BoolArray]) -> Any:
    if not isinstance(value, torch.Tensor):
        return None
    mark = torch.zeros(value.shape, dtype=torch.bool)
    for dim, stays in masks.items():
        mark.index_fill_(dim, torch.from_numpy(np.flatnonzero(~stays)), True)
    return mark


def _escapes(reached: Any, marked: Any) -> bool:
    if isinstance(reached, list):
        return any(_escapes(r, o) for r, o in zip(reached, marked, strict=True))
    return reached is not None and bool((reached & ~marked).any())


def _masks(sizes: Sizes, node: fx.Node) -> bool:
    return any(sizes.masks(node, i) for i in range(len(sizes.couplings.values.get(node.name, ()))))


def _blame(state: LosslessState, chosen: BoolArray, operands: list[fx.Node], reason: str) -> dict[int, str]:
    units = [
        state.couplings.channel_maps[channel_map]
        for node in operands
        for output in state.couplings.values.get(node.name, ())
        for channel_maps in output
        for channel_map in channel_maps
    ]
    held = np.unique(np.concatenate(units))
    return {int(u): reason for u in held[held >= 0] if chosen[u]}
