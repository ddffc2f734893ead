"""Channels that are linear combinations of others: merge them into those.

Between a producer and its readers stand operators that treat every channel alike. If they
are all linear, a combination of producer rows (biases and batch norm included) stays that
combination up to the readers. If some are only homogeneous (ReLU, max pooling), a positive
multiple stays a positive multiple. Anything else ends the search.

Guarantee: the combination is exact up to the rounding of the weights' own precision; the
certificate on real inputs decides. Elsewhere: applying it (lossless_twins.merge).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Layer
from edgeprune.coupling.operators import spec_of
from edgeprune.simplify.flow import Observation, lossless_kind
from edgeprune.simplify.state import LosslessState, chosen_entries
from edgeprune.simplify.twins import Merge

aten = torch.ops.aten
Matrix = npt.NDArray[np.float64]

LARGEST = 1e3  # a combination with larger factors would cost more precision than it saves


@dataclass(frozen=True)
class Chain:
    """A producer and what its channels go through before every reader sees them."""

    producer: Layer
    norms: tuple[fx.Node, ...]
    homogeneous: bool  # not linear


def dependent(state: LosslessState, facts: Observation) -> Iterator[list[Merge]]:
    """One list of merges per producer whose rows depend on each other."""
    producers = {layer.node: layer for layer in state.couplings.layers}
    for source in dict.fromkeys(reader.layer.source for reader in state.readers):
        chain = _chain(state, source, producers)
        if chain is None:
            continue
        units = state.couplings.channel_maps[chain.producer.outputs]
        chosen = state.eligible & ~_read_elsewhere(state, source)
        chosen &= np.bincount(units[units >= 0], minlength=state.couplings.count) == 1
        at = np.flatnonzero(chosen_entries(units, chosen))
        if len(at) < 2:
            continue
        rows = _rows(state, chain, at)
        live = np.abs(rows).max(axis=1, initial=0.0) > 0
        at, rows = at[live], rows[live]
        if len(at) < 2:
            continue
        eps = float(torch.finfo(state.tensor(str(chain.producer.weight)).dtype).eps)
        combinations = _multiples(rows, eps) if chain.homogeneous else _combinations(rows, eps)
        merges = [
            Merge(int(units[at[j]]), tuple(int(units[at[k]]) for k in ks), fs) for j, ks, fs in combinations
        ]
        if merges:
            yield merges


def _chain(state: LosslessState, source: str, producers: dict[str, Layer]) -> Chain | None:
    """LockstepInterpreter back from what readers read to the layer that makes it."""
    node = state.nodes[source]
    norms: list[fx.Node] = []
    homogeneous = False
    while True:
        layer = producers.get(node.name)
        if layer is not None and _produces(node) and layer.weight and layer.groups == 1:
            named = layer.bias is not None or _bias(node) is None
            return Chain(layer, tuple(reversed(norms)), homogeneous) if named else None
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
            return None
        if node.target is aten.batch_norm.default:
            norms.append(node)
        else:
            spec = spec_of(node.target)
            if norms or spec is None or spec.algebra is None:
                # A norm must stand right behind the producer, where its channels are the rows.
                return None
            homogeneous |= spec.algebra == "homogeneous"
        node = node.args[0]


def _produces(node: fx.Node) -> bool:
    return node.target in (aten.linear.default, aten.addmm.default) or lossless_kind(node) == "convolution"


def _bias(node: fx.Node) -> Any:
    if node.target is aten.addmm.default:
        return node.args[0]
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")


def _read_elsewhere(state: LosslessState, source: str) -> BoolArray:
    """Components that some reader reads at another place, where the chain may be another."""
    read = np.zeros(state.couplings.count, dtype=bool)
    for reader in state.readers:
        if reader.layer.source != source:
            read[reader.units[reader.units >= 0]] = True
    return read


def _rows(state: LosslessState, chain: Chain, at: npt.NDArray[np.int64]) -> Matrix:
    """Producer rows with bias and norms applied, float64, shape (n, inputs·taps + 1)."""
    layer = chain.producer
    index = torch.from_numpy(at)
    weight = state.tensor(str(layer.weight)).double().movedim(layer.out_dim, 0)[index].reshape(len(at), -1)
    shift = state.tensor(layer.bias).double()[index] if layer.bias else torch.zeros(len(at)).double()
    scale = torch.ones(len(at)).double()
    for node in chain.norms:
        values = [None if n is None else state.tensor(str(n.target)).double()[index] for n in node.args[1:5]]
        gamma, beta, mean, var = values
        factor = (var + node.args[7]).rsqrt()
        factor = factor if gamma is None else factor * gamma
        shift = (shift - mean) * factor + (0.0 if beta is None else beta)
        scale = scale * factor
    rows: Matrix = torch.cat([weight * scale[:, None], shift[:, None]], 1).numpy()
    return rows


Found = list[tuple[int, tuple[int, ...], tuple[float, ...]]]


def _multiples(rows: Matrix, eps: float) -> Found:
    """Rows that are positive multiples of an earlier one; the largest of a family stays."""
    size = np.abs(rows).max(axis=1)
    families: dict[bytes, list[int]] = {}
    for i, key in enumerate(np.round(rows / size[:, None], 5) + 0.0):
        families.setdefault(key.tobytes(), []).append(i)
    multiples: Found = []
    for family in families.values():
        head = max(family, key=lambda i: float(size[i]))
        peak = np.abs(rows[head]).argmax()
        for i in family:
            factor = float(rows[i][peak] / rows[head][peak])
            if i != head and np.abs(rows[i] - factor * rows[head]).max() <= 8 * eps * size[i]:
                multiples.append((i, (head,), (factor,)))
    return multiples


def _combinations(rows: Matrix, eps: float) -> Found:
    """Rows in the span of the others, by QR with pivoting on unit rows."""
    size = np.linalg.norm(rows, axis=1)
    unit = rows / size[:, None]
    triangle, order = scipy.linalg.qr(unit.T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    rank = int((diagonal > 16 * eps * max(1.0, np.sqrt(rows.shape[1]))).sum())
    basis, rest = order[:rank], order[rank:]
    if not len(rest):
        return []
    factors = scipy.linalg.solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:])
    combinations: Found = []
    for column, j in enumerate(rest.tolist()):
        scaled = factors[:, column] * size[j] / size[basis]
        used = np.flatnonzero(np.abs(scaled) > eps * np.abs(scaled).max(initial=0.0))
        if np.abs(factors[:, column]).max(initial=0.0) <= LARGEST:
            combinations.append((j, tuple(basis[used].tolist()), tuple(scaled[used].tolist())))
    return combinations
