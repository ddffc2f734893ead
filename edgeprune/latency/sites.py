"""Which operator of an optimised run belongs to which layer of the exported graph.

onnxruntime fuses, renames and reorders operators, differently on each processor and at each width,
but it builds its names from those of the exported graph. Every operator with weights is led back to
its layer by name; what runs without weights (activations that were not fused, pooling, changes of
memory layout) belongs to the layer before it in the order of execution.

Guarantee: every operator is counted exactly once. What runs before the first layer is the head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.latency.resizing import Follows, Resizable

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
TOKEN = re.compile(r"[A-Za-z0-9_.:/]+")


@dataclass(frozen=True)
class Site:
    """A node with weights of the exported graph, what its widths follow, and its fixed traits."""

    node: str
    operator: str
    inputs: Follows
    outputs: Follows
    traits: str


def find_sites(network: Resizable) -> tuple[Site, ...]:
    """The layers of an exported network, in its order."""
    weights = {t.name for t in network.model.graph.initializer}
    sites = []
    for node in network.model.graph.node:
        position = next((p for p in (1, 0) if p < len(node.input) and node.input[p] in weights), None)
        if node.op_type not in WEIGHTED or position is None:
            continue
        dims = network.weight_dims(node.input[position])
        if len(dims) < 2:
            continue
        attributes = {a.name: a for a in node.attribute}
        group = attributes["group"].i if "group" in attributes else 1
        if node.op_type == "Conv":
            outputs, inputs = dims[0], dims[1] if group == 1 else dims[0]
        elif node.op_type == "ConvTranspose":
            outputs, inputs = (dims[1], dims[0]) if group == 1 else (dims[0], dims[0])
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            outputs, inputs = dims[1], dims[2]
        else:
            turned = "transB" in attributes and bool(attributes["transB"].i)
            outputs, inputs = (dims[-2], dims[-1]) if turned or position == 0 else (dims[-1], dims[-2])
        kernel = "x".join(str(d.dense) for d in dims[2:]) if "Conv" in node.op_type else ""
        kind = "" if group == 1 else "depthwise" if dims[1].dense == 1 else f"groups {group}"
        more = [
            f"{name} {'x'.join(map(str, attributes[name].ints))}"
            for name in ("strides", "dilations")
            if name in attributes and set(attributes[name].ints) != {1}
        ]
        traits = " ".join(text for text in (node.op_type, kernel, kind, *more) if text)
        sites.append(Site(node.name, node.op_type, inputs, outputs, traits))
    return tuple(sites)


class Owners:
    """Leads the operators of a run back to sites."""

    def __init__(self, network: Resizable, sites: Sequence[Site]) -> None:
        graph = network.model.graph
        self._site = {site.node: n for n, site in enumerate(sites)}
        self._producer = {out: node for node in graph.node for out in node.output}
        self._node = {node.name: node for node in graph.node}
        self._known: dict[tuple[str, str], int | None] = {}

    def split(self, run: Sequence[Mapping[str, Any]]) -> tuple[list[list[Mapping[str, Any]]], list[Any]]:
        """The operators of each site, its own first, and those of the head."""
        parts: list[list[Mapping[str, Any]]] = [[] for _ in self._site]
        head: list[Mapping[str, Any]] = []
        current = head
        for operator in run:
            owner = self._owner(str(operator["name"]), str(operator["op"]))
            if owner is not None:
                current = parts[owner]
            current.append(operator)
        return parts, head

    def _owner(self, name: str, operator: str) -> int | None:
        key = (name, operator)
        if key not in self._known:
            self._known[key] = self._find(name) if any(w in operator for w in WEIGHTED) else None
        return self._known[key]

    def _find(self, name: str) -> int | None:
        for text in _shortened(name):
            node = self._node.get(text) or self._producer.get(text)
            for _ in range(8):  # from a fused activation up to its layer
                if node is None:
                    break
                if node.name in self._site:
                    return self._site[node.name]
                upstream = [self._producer[i] for i in node.input if i in self._producer]
                node = upstream[0] if upstream else None
        return None


def _shortened(name: str) -> list[str]:
    """The names that an optimiser may have made this one from, the longest first."""
    texts: list[str] = []
    for token in [name, *TOKEN.findall(name)]:
        pieces = re.split(r"(_|/)", token)
        for length in range(len(pieces), 0, -1):
            text = "".join(pieces[:length])
            if text and text not in texts:
                texts.append(text)
    return sorted(texts, key=len, reverse=True)
