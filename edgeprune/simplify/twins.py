"""Channels that carry the same, or the same up to a factor: merge one into the other.

The outgoing weights of a merged channel are added to its twin's, times the factor. Twins
are proven by labels (lossless_labels). Constants that zero padding keeps from folding are
proportional to each other, position by position, so one of them can carry all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import BoolArray
from edgeprune.simplify.flow import Observation
from edgeprune.simplify.labels import label_values, sequence_hash, text
from edgeprune.simplify.state import LosslessState, silence


@dataclass(frozen=True)
class Merge:
    """`gone` = Σ factors · `into`, at every reader, position and input."""

    gone: int
    into: tuple[int, ...]
    factors: tuple[float, ...]


def twins(state: LosslessState, facts: Observation) -> list[Merge]:
    """Eligible components that equal another one at every reader."""
    labels = label_values(state.graph, facts)
    count = state.couplings.count
    signature = np.zeros(count, dtype=np.int64)
    with np.errstate(over="ignore"):
        for reader in state.readers:
            at = reader.members(state.eligible)
            source = labels[reader.layer.source].movedim(reader.layer.channel_dim, 0)
            rows = sequence_hash(source.reshape(len(reader.units), -1), (1,))[torch.from_numpy(at)]
            units = reader.units[at]
            # The reader and the place among the component's own inputs belong to the signature.
            place = torch.from_numpy(ordinals(units)) + text((reader.layer.node, reader.weight))
            pair = sequence_hash(torch.stack([rows, place]), (0,))
            np.add.at(signature, units, pair.numpy())
    eligible = np.flatnonzero(state.eligible)
    _, first, inverse = np.unique(signature[eligible], return_index=True, return_inverse=True)
    heads = eligible[first[inverse]]
    return [
        Merge(int(unit), (int(head),), (1.0,))
        for unit, head in zip(eligible, heads, strict=True)
        if unit != head
    ]


def carried(state: LosslessState, facts: Observation, chosen: BoolArray) -> list[Merge]:
    """Constant components that are proportional to another one at every reader.

    Of each proportional family the largest carries the others.
    """
    patterns: dict[int, list[npt.NDArray[np.float64]]] = {int(u): [] for u in np.flatnonzero(chosen)}
    shapes: dict[int, list[object]] = {u: [] for u in patterns}
    for index, reader in enumerate(state.readers):
        at = reader.members(chosen)
        if not at.size:
            continue
        source = facts.values[reader.layer.source].detach().double()
        rows = source.movedim(reader.layer.channel_dim, 0)[torch.from_numpy(at)].reshape(len(at), -1).numpy()
        for unit, row in zip(reader.units[at].tolist(), rows, strict=True):
            patterns[unit].append(row)
            shapes[unit].append((index, row.size))
    families: dict[object, list[int]] = {}
    complete = {u: np.concatenate(p) for u, p in patterns.items() if p}
    for unit, pattern in complete.items():
        peak = pattern[np.abs(pattern).argmax()]
        if peak != 0:
            key = (tuple(shapes[unit]), np.round(pattern / peak, 5).tobytes())
            families.setdefault(key, []).append(unit)
    merges = []
    # The values were computed in the graph's own precision; a few roundings are not a difference.
    eps = 8 * float(torch.finfo(state.tensor(state.readers[0].weight).dtype).eps) if state.readers else 0.0
    for family in families.values():
        head = max(family, key=lambda u: float(np.abs(complete[u]).max()))
        at_peak = np.abs(complete[head]).argmax()
        for unit in family:
            factor = float(complete[unit][at_peak] / complete[head][at_peak])
            error = np.abs(complete[unit] - factor * complete[head]).max()
            if unit != head and error <= eps * np.abs(complete[unit]).max():
                merges.append(Merge(unit, (head,), (factor,)))
    return merges


def merge(state: LosslessState, merges: list[Merge]) -> LosslessState:
    """A copy of the state in which each merged component's outgoing weights moved to its twins."""
    new = state.copy()
    gone = np.zeros(state.couplings.count, dtype=bool)
    done: set[tuple[str, int]] = set()
    for reader in new.readers:
        where = (reader.weight, reader.layer.in_dim)
        if where in done:  # a weight that several layers share is edited once
            continue
        done.add(where)
        weight = new.tensor(reader.weight).movedim(reader.layer.in_dim, 0)
        total = weight.double().clone()
        for step in merges:
            mine = np.flatnonzero(reader.units == step.gone)
            for unit, factor in zip(step.into, step.factors, strict=True):
                theirs = np.flatnonzero(reader.units == unit)
                if mine.size and mine.size == theirs.size:
                    total[torch.from_numpy(theirs)] += factor * weight[torch.from_numpy(mine)].double()
        with torch.no_grad():
            weight.copy_(total.to(weight.dtype))
    gone[[step.gone for step in merges]] = True
    silence(new, gone)
    return LosslessState(new.traced, new.couplings, new.removed | gone)


def ordinals(units: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """For each entry, how many equal entries come before it."""
    by_unit = np.argsort(units, kind="stable")
    ranked = units[by_unit]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if units.size else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, units.size])
    out = np.empty(units.size, dtype=np.int64)
    out[by_unit] = np.arange(units.size) - np.repeat(starts, lengths)
    return out
