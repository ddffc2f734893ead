"""What a network has to do after a removal, operator by operator: arithmetic and memory, no time.

Guarantee: a call is a handful of array operations, whatever the network's size. Elsewhere: what the
work costs (roofline, instructions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings, MacTerm
from edgeprune.graph.module import attribute, shape_of
from edgeprune.graph.trace import Trace

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Amounts:
    """Per operator and sample: multiply-adds, elements written, elements of stored weights read."""

    macs: FloatArray
    written: FloatArray
    weights: FloatArray


class _Products:
    """coefficient × product of kept counts, for many operators at once."""

    def __init__(self, rows: list[tuple[float, tuple[int, ...]]]) -> None:
        longest = max((len(factors) for _, factors in rows), default=0)
        self.coefficients = np.array([c for c, _ in rows], dtype=np.float64)
        # -1 points at the 1 that `at` appends.
        self.index = np.array([[*f, *[-1] * (longest - len(f))] for _, f in rows], np.int64)
        self.index = self.index.reshape(len(rows), longest)

    def at(self, kept: FloatArray) -> FloatArray:
        products: FloatArray = self.coefficients * kept[self.index].prod(axis=1)
        return products


class Work:
    """The operators of a network; `kinds` names the layers among them, "" the others."""

    def __init__(self, traced: Trace, couplings: Couplings) -> None:
        self.couplings = couplings
        batch = len(traced.inputs[0]) if traced.inputs and traced.inputs[0].dim() else 1
        costs: dict[str, list[MacTerm]] = {}  # a recurrent operator has one per layer and gate matrix
        for entry in couplings.costs:
            costs.setdefault(entry.node, []).append(entry)
        layers = {layer.node: layer for layer in couplings.layers}
        macs: list[tuple[float, tuple[int, ...]]] = []
        written: list[tuple[float, tuple[int, ...]]] = []
        weights: list[tuple[float, tuple[int, ...]]] = []
        owners: list[int] = []
        self.kinds: list[str] = []
        for node in traced.graph.graph.nodes:
            if node.op != "call_function" or not couplings.values.get(node.name) or "val" not in node.meta:
                continue
            shape = shape_of(node.meta["val"])
            dims = [d for d in shape or () if isinstance(d, int)]
            factors = tuple(e for dim in couplings.values[node.name][0] for e in dim)
            written.append(self._spread(float(np.prod(dims)) / max(batch, 1), factors))
            cost = costs.get(node.name, [])
            macs += [(c.coefficient, c.factors) for c in cost]
            owners += [len(written) - 1] * len(cost)
            layer = layers.get(node.name)
            name = layer.weight if layer else None
            if layer is None or name is None:
                weights.append((0.0, ()))
                self.kinds.append("product" if cost else "")
                continue
            tensor = attribute(traced.graph, name)
            held = tuple(e for e in couplings.tensors.get(name, ()) if e is not None)
            weights.append(self._spread(float(tensor.numel()), held))
            taps = int(np.prod(tensor.shape[2:]))
            self.kinds.append("grouped" if layer.groups > 1 else "spatial" if taps > 1 else "pointwise")
        self._macs, self._written, self._weights = (_Products(rows) for rows in (macs, written, weights))
        self._owners = np.array(owners, dtype=np.int64)

    def at(self, removed: BoolArray) -> Amounts:
        """Amounts after a removal; boolean, shape (couplings.count,)."""
        kept = np.append(self.couplings.kept(removed), 1).astype(np.float64)
        per_kind = np.bincount(self._owners, self._macs.at(kept), len(self.kinds))
        macs = np.asarray(per_kind, dtype=np.float64)
        return Amounts(macs, self._written.at(kept), self._weights.at(kept))

    def _spread(self, total: float, channel_maps: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        """A whole amount as a coefficient of the product of these channel_maps' sizes."""
        sizes = float(np.prod([max(len(self.couplings.channel_maps[e]), 1) for e in channel_maps]))
        return total / sizes, channel_maps
