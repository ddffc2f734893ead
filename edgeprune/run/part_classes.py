"""Slice the class of a part; where its forward cannot follow, decide what stays whole.

A forward may take a width from elsewhere than the plan did: attention that reads `x.shape[1]` and a number of
heads cannot lose either alone. The submodule whose line failed is then kept whole, then the one around it,
and the part is planned again. Only where that leaves too little to remove a graph of the part stands in its
place; it takes the sizes of the example only.

Guarantee: what is returned computes what the pruned graph computes, in every shape in which the part is
called. Elsewhere: planning (parts), slicing a class (surgery.apply).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.coupling.sizes import Sizes
from edgeprune.errors import TraceError
from edgeprune.graph.module import attribute, layer_path, source_line, state_tensors
from edgeprune.graph.parts import Part
from edgeprune.graph.trace import Trace, run
from edgeprune.search.groups import largest
from edgeprune.surgery.apply import apply_recipe, proven, written_sizes
from edgeprune.surgery.cut import cut
from edgeprune.surgery.recipe import recipe

pytree = torch.utils._pytree


@dataclass(frozen=True)
class CoupledPart:
    """A part with the couplings of each way to call it, which number the same components."""

    part: Part
    ways: tuple[Couplings, ...]

    @property
    def couplings(self) -> Couplings:
        return self.ways[0]

    def macs(self, removed: BoolArray | None = None) -> float:
        """Of all calls in one run on the example."""
        pairs = zip(self.part.ways, self.ways, strict=True)
        return sum(way.rows * couplings.macs(removed) for way, couplings in pairs)

    def floor(self) -> float:
        """The share of its MACs that stays when everything removable is gone."""
        if not self.couplings.count or not self.macs():
            return 1.0
        return self.macs(largest(self.couplings, np.arange(self.couplings.count))) / self.macs()


class Unusable(Exception):
    """A part that no plan fits in all its ways, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


class KeepWhole(Exception):
    """A submodule that has to keep its channels for a part's class to be sliced; "" is the part itself."""

    def __init__(self, part: str, submodule: str) -> None:
        super().__init__(f"{part}: {submodule}")
        self.part, self.submodule = part, submodule


@dataclass
class Choices:
    """What has been decided about parts so far: submodules that stay whole, parts that become graphs."""

    whole: dict[str, list[str]] = field(default_factory=dict)
    graphs: set[str] = field(default_factory=set)

    def kept(self, part: Part) -> list[str]:
        """Layers of a part that keep their channels, as its trace names them."""
        return [] if part.path in self.graphs else self.whole.get(part.path, [])

    def keep(self, asked: KeepWhole) -> None:
        """Keep a submodule whole from now on; a part that would be whole becomes a graph."""
        if asked.submodule:
            self.whole.setdefault(asked.part, []).append(asked.submodule)
        else:
            self.graphs.add(asked.part)

    def give_up_classes(self) -> bool:
        """Make graphs of the parts that keep something whole, which lose more; False where there is none."""
        before = set(self.graphs)
        self.graphs |= set(self.whole)
        return self.graphs != before


def sliced_part(
    module: nn.Module, coupled: CoupledPart, removed: BoolArray, smaller: Trace, choices: Choices
) -> tuple[nn.Module, dict[str, tuple[Any, Any]], str | None]:
    """The part's own class with the weights of its pruned graph; where that cannot be, the graph and why.

    Raises:
        KeepWhole: the class can be sliced if a submodule keeps its channels, or may be.
        Unusable: neither the class nor one graph takes every shape in which the part is called.
    """
    part, first = coupled.part, coupled.part.ways[0]
    inputs = pytree.tree_map(lambda x: x[: len(part.trace.inputs[0])], part.inputs)
    plan = recipe(part.trace, coupled.couplings, removed)
    try:
        applied = apply_recipe(first.around(module), plan, inputs, part.trace)
        bound = first.fixed is not None
        sliced: nn.Module = applied.module.module if bound else applied.module
        for way, traced, couplings in zip(part.ways[1:], part.traces[1:], coupled.ways[1:], strict=True):
            expected = run(cut(traced, couplings, removed).graph, traced.inputs)
            proven(way.around(sliced), pytree.tree_map(lambda x: x[:2], way.inputs), expected)
    except TraceError as error:
        if part.path not in choices.graphs:
            raise KeepWhole(part.path, _to_keep(coupled, removed, error, choices.kept(part))) from error
        if len(part.ways) > 1:
            raise Unusable(part.path, f"called in {len(part.ways)} shapes, and {error.message}") from error
        return first.instead(smaller.graph, module), {}, error.message
    held = {**dict(applied.module.named_parameters()), **dict(applied.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in state_tensors(smaller.graph).items():
            if name in held:
                held[name].copy_(tensor)
    changed = {k.removeprefix("module.") if bound else k: v for k, v in applied.attributes.items()}
    return sliced, changed, None


def _to_keep(coupled: CoupledPart, removed: BoolArray, error: BaseException, kept: list[str]) -> str:
    """What to keep whole next: the innermost submodule around the line that failed, then those around it.

    Of a line in the part's own forward, a layer that feeds it. "" where nothing is left to keep.
    """
    traced = coupled.part.trace
    at: dict[str, list[fx.Node]] = {}
    for node in traced.graph.graph.nodes:
        if node.op == "call_function":
            at.setdefault(source_line(node), []).append(node)
    for place in (*_lines(error), *written_sizes(traced, Sizes(coupled.couplings, removed))):
        for node in at.get(place, []):
            path = layer_path(node)
            while path and path in kept:
                path = path.rpartition(".")[0]
            layers = [path] if path else _feeding(node)
            for layer in layers:
                if layer not in kept:
                    return layer
    return ""


def _feeding(node: fx.Node) -> list[str]:
    """The layers with weights whose outputs reach a node without passing another one."""
    layers: list[str] = []
    ahead = list(node.all_input_nodes)
    seen = set(ahead)
    while ahead:
        source = ahead.pop()
        weights = [str(n.target) for n in source.all_input_nodes if n.op == "get_attr"]
        matrices = [name for name in weights if _dimensions(source, name) > 1]
        if matrices:
            layers.append(matrices[0].rpartition(".")[0])
            continue
        ahead += [n for n in source.all_input_nodes if n not in seen]
        seen.update(source.all_input_nodes)
    return [layer for layer in layers if layer]


def _dimensions(node: fx.Node, name: str) -> int:
    value = attribute(node.graph.owning_module, name)
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _lines(error: BaseException) -> Iterator[str]:
    """`file.py:41` of the frames of what caused an error, the innermost first."""
    cause: BaseException | None = error
    while cause is not None:
        if not isinstance(cause, TraceError):
            for frame in reversed(traceback.extract_tb(cause.__traceback__)):
                yield f"{Path(frame.filename).name}:{frame.lineno}"
        cause = cause.__cause__
