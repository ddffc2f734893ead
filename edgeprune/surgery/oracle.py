"""The oracle of surgery: the full-size network with the removed components silenced.

Two independent ways. `zeroed` silences parameters and so knows nothing of labels inside
the graph; `masked` silences every value where the coupling says that it is removed, which
also covers products of two activations that no weight reads. Where a component is exact,
both give what the cut graph gives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.coupling.sizes import Sizes
from edgeprune.graph.executor import flat_outputs
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace


def zeroed(traced: Trace, couplings: Couplings, removed: BoolArray, *, readers_only: bool = True) -> Trace:
    """The full-size trace with parameters of removed components set to zero.

    With `readers_only` the weights that read a removed channel are zeroed, otherwise
    every parameter slice of it.
    """
    graph = traced.copy()
    sizes = Sizes(couplings, removed)
    with torch.no_grad():
        for name, tensor in state_tensors(graph).items():
            if not isinstance(tensor, torch.nn.Parameter):
                continue
            for dim, mask in sizes.tensor_masks(name).items():
                if not readers_only or (couplings.aliases[name], dim) in couplings.reads:
                    tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(~mask)), 0.0)
    return replace(traced, graph=graph)


def masked(
    traced: Trace, couplings: Couplings, removed: BoolArray, inputs: tuple[torch.Tensor, ...] | None = None
) -> tuple[torch.Tensor, ...]:
    """Run the full-size graph with every value zeroed where it is removed; gives its flat outputs."""
    sizes = Sizes(couplings, removed)

    def silence(node: fx.Node, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [_silence(v, sizes, node, i) for i, v in enumerate(value)]
        return _silence(value, sizes, node, 0)

    with torch.no_grad():
        return flat_outputs(traced.graph, traced.inputs if inputs is None else inputs, after=silence)


def _silence(value: Any, sizes: Sizes, node: fx.Node, output: int) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    for dim, mask in sizes.masks(node, output).items():
        value = value.index_fill(dim, torch.from_numpy(np.flatnonzero(~mask)), 0.0)
    return value
