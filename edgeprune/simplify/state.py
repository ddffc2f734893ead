"""The working state of lossless rounds: a full-size graph, what was removed, who reads what.

Nothing is cut while rounds go on. Removing a component means that its outgoing weights
became zero (what they carried went into biases or into twins), and `removed` remembers
it; one `cut` at the end takes the slices out. So component numbers stay valid throughout.

Guarantee: a LosslessState that was handed out is never written to; edits go to a copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings, IntArray, Layer
from edgeprune.graph.module import attribute, set_attribute, source_line
from edgeprune.graph.trace import Trace
from edgeprune.simplify.flow import lossless_kind

aten = torch.ops.aten
EDITABLE = ("convolution", "transposed", "product", "addmm")  # layers whose weight a lossless step may change


def _editable(node: fx.Node) -> bool:
    return lossless_kind(node) in EDITABLE and node.target is not aten.bmm.default


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels through a plain parameter.

    `units` holds the component of each input index, -1 where none is free. `takes_bias`
    is False where the layer adds a bias that is computed, or not one per output.
    """

    layer: Layer
    weight: str
    units: IntArray
    takes_bias: bool

    def members(self, chosen: BoolArray) -> npt.NDArray[np.int64]:
        """Input indices that belong to the chosen components, shape (count,)."""
        return np.flatnonzero(chosen_entries(self.units, chosen))


@dataclass(frozen=True)
class LosslessState:
    """A masked graph of full size with its couplings and the components that are out of it."""

    traced: Trace
    couplings: Couplings
    removed: BoolArray

    def copy(self) -> LosslessState:
        return replace(self, traced=replace(self.traced, graph=self.traced.copy()))

    @property
    def graph(self) -> fx.GraphModule:
        return self.traced.graph

    @cached_property
    def nodes(self) -> dict[str, fx.Node]:
        return {n.name: n for n in self.graph.graph.nodes}

    def tensor(self, name: str) -> torch.Tensor:
        value: torch.Tensor = attribute(self.graph, name)
        return value.detach()

    @cached_property
    def _scan(self) -> tuple[tuple[Reader, ...], dict[int, str]]:
        readers: list[Reader] = []
        blocked: dict[int, str] = {}
        for layer in self.couplings.layers:
            if layer.groups > 1 and layer.kind == "conv":
                continue  # its channels pass through; they are read further down
            units = self.couplings.channel_maps[layer.inputs]
            reason = self._obstacle(layer, units)
            if reason is None and layer.weight is not None:
                weight = self.couplings.aliases[layer.weight]
                readers.append(Reader(layer, weight, units, self._takes_bias(layer)))
                continue
            for unit in np.unique(units[units >= 0]):
                blocked.setdefault(int(unit), str(reason))
        return tuple(readers), blocked

    @property
    def readers(self) -> tuple[Reader, ...]:
        return self._scan[0]

    @property
    def blocked(self) -> dict[int, str]:
        """Components that something reads in a way that cannot be edited, and why."""
        return self._scan[1]

    def _obstacle(self, layer: Layer, units: IntArray) -> str | None:
        node = self.nodes[layer.node]
        where = f"{str(node.target).removesuffix('.default')} at {source_line(node)}"
        if layer.weight is None or not _editable(node):
            return f"{where} reads it through a computed weight"
        if any(k in node.kwargs for k in ("alpha", "beta")):
            return f"{where} scales its product"
        weight = self.couplings.aliases[layer.weight]
        parameter = attribute(self.graph, layer.weight)
        if not isinstance(parameter, torch.nn.Parameter) or len(units) != parameter.shape[layer.in_dim]:
            return f"{where} reads it through a fixed table"
        reading = {other.node for other in self.couplings.layers if _reads(other, weight, layer, self)}
        users = {
            user.name
            for n in self.graph.graph.nodes
            if n.op == "get_attr" and self.couplings.aliases.get(str(n.target)) == weight
            for user in n.users
        }
        return None if users <= reading else f"{where} shares its weight with another kind of layer"

    def _takes_bias(self, layer: Layer) -> bool:
        bias = _bias(self.nodes[layer.node])[1]
        if bias is None:
            return True
        held = attribute(self.graph, str(bias.target)) if bias.op == "get_attr" else None
        size = len(self.couplings.channel_maps[layer.outputs])
        return isinstance(held, torch.nn.Parameter) and tuple(held.shape) == (size,)

    @cached_property
    def read(self) -> BoolArray:
        """Components that at least one reader reads."""
        read = np.zeros(self.couplings.count, dtype=bool)
        for reader in self.readers:
            read[reader.units[reader.units >= 0]] = True
        return read

    @cached_property
    def eligible(self) -> BoolArray:
        """Components that a lossless step may touch at all."""
        allowed = self.couplings.exact & self.read & ~self.removed
        allowed[list(self.blocked)] = False
        return allowed


def chosen_entries(units: IntArray, chosen: BoolArray) -> BoolArray:
    """Which entries of a channel_map belong to the chosen components, shape (count,), which may be 0."""
    chosen_entries: BoolArray = np.append(chosen, False)[units]  # -1, which no component has, takes the last
    return chosen_entries


def silence(state: LosslessState, gone: BoolArray) -> None:
    """Zero what leaves these components and what feeds them, in place.

    Outgoing zeros make the removal exact; zero rows keep dead producers from counting
    as readers of channels further up.
    """
    with torch.no_grad():
        for reader in state.readers:
            _fill(state, reader.weight, reader.layer.in_dim, reader.members(gone))
        for layer in state.couplings.layers:
            units = state.couplings.channel_maps[layer.outputs]
            at = np.flatnonzero(chosen_entries(units, gone))
            for name, dim in ((layer.weight, layer.out_dim), (layer.bias, 0)):
                if name is not None and at.size and state.tensor(name).shape[dim] == len(units):
                    _fill(state, name, dim, at)


def add_bias(state: LosslessState, reader: Reader, delta: torch.Tensor) -> LosslessState:
    """Add a constant (float64, one per output) to what a layer puts out, in place.

    A layer without a bias gets one; a bias that others use too is given to this node alone.

    Returns the state with couplings that know the new parameter.
    """
    node = state.nodes[reader.layer.node]
    dtype = state.tensor(reader.weight).dtype
    _, bias_node = _bias(node)
    if bias_node is None:
        return _new_bias(state, reader, node, delta.to(dtype))
    old = attribute(state.graph, str(bias_node.target))
    value = (old.detach().double() + delta).to(dtype)
    twins = [
        n for n in state.nodes.values() if n.op == "get_attr" and attribute(state.graph, n.target) is old
    ]
    if len(twins) == 1 and len(bias_node.users) == 1:
        with torch.no_grad():
            old.copy_(value)
        return state
    return _new_bias(state, reader, node, value)


def _bias(node: fx.Node) -> tuple[int | None, fx.Node | None]:
    """Where an operator takes its bias (None: nowhere), and the bias it has."""
    if node.target in (aten.mm.default, aten.matmul.default):
        return None, None
    at = 0 if node.target is aten.addmm.default else 2
    return at, node.args[at] if len(node.args) > at else node.kwargs.get("bias")


def _new_bias(state: LosslessState, reader: Reader, node: fx.Node, value: torch.Tensor) -> LosslessState:
    name = _free_name(state.graph, reader.weight.rpartition(".")[0])
    set_attribute(state.graph, name, torch.nn.Parameter(value))
    with state.graph.graph.inserting_before(node):
        get = state.graph.graph.get_attr(name)
    get.meta["val"] = torch.empty_like(value, device="meta")
    channel_map = reader.layer.outputs
    values = {**state.couplings.values, get.name: (((channel_map,),),)}
    at, _ = _bias(node)
    if at is None:
        with state.graph.graph.inserting_after(node):
            added = state.graph.graph.call_function(aten.add.Tensor, (node, get))
        node.replace_all_uses_with(added, delete_user_cb=lambda user: user is not added)
        added.meta = dict(node.meta)
        values[added.name] = values[node.name]
    elif "bias" in node.kwargs:
        node.kwargs = {**node.kwargs, "bias": get}
    else:
        node.args = (*node.args[:at], get, *node.args[at + 1 :])
    state.graph.graph.lint()
    state.graph.recompile()
    layers = tuple(
        replace(layer, bias=name) if at is not None and layer.node == node.name else layer
        for layer in state.couplings.layers
    )
    couplings = replace(
        state.couplings,
        tensors={**state.couplings.tensors, name: (channel_map,)},
        aliases={**state.couplings.aliases, name: name},
        values=values,
        layers=layers,
    )
    return LosslessState(state.traced, couplings, state.removed)


def _free_name(graph: fx.GraphModule, owner: str) -> str:
    taken = {name for name, _ in [*graph.named_parameters(remove_duplicate=False), *graph.named_buffers()]}
    prefix = f"{owner}." if owner else ""
    names = [f"{prefix}bias{i or ''}" for i in range(len(taken) + 1)]
    return next(name for name in names if name not in taken)


def _fill(state: LosslessState, name: str, dim: int, at: npt.NDArray[np.int64]) -> None:
    if at.size:
        state.tensor(name).index_fill_(dim, torch.from_numpy(at), 0.0)


def _reads(other: Layer, weight: str, layer: Layer, state: LosslessState) -> bool:
    """Whether another layer reads the same weight in the same way."""
    return (
        other.weight is not None
        and state.couplings.aliases[other.weight] == weight
        and (other.in_dim, other.groups) == (layer.in_dim, layer.groups)
        and _editable(state.nodes[other.node])
    )
