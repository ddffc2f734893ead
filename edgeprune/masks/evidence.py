"""What a mask and scores say about each component.

The connections of a component are the weight elements that read its channels; where
nothing reads them, the elements that produce them. A grouped convolution reads its own
group, so its rows count as readers.

Guarantee: one number per component from sums over whole tensors; tied weights and
layers that are called twice count once. Elsewhere: savings (planning), removal (surgery).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import Couplings
from edgeprune.errors import MaskError
from edgeprune.masks.mask import BoolArray, FloatArray, Mask, canonical, coupled_shape

Counts = npt.NDArray[np.int64]
Scale = Literal["none", "share", "rank"]
ReadDimension = tuple[str, int, int]  # weight, its dimension, the channel_map along it


@dataclass(frozen=True)
class Evidence:
    """One entry per component, arrays of shape (couplings.count,).

    `kept_share` is kept / connections, 1.0 where there are none. `lost` is the score mass of
    the connections that the mask keeps, in the scores' unit (or shares, or ranks); `mass` that
    of all connections. `scored` counts connections that have a score; `unscored` names the
    weights that had none.
    """

    connections: Counts
    kept: Counts
    kept_share: FloatArray
    lost: FloatArray
    mass: FloatArray
    scored: Counts
    unscored: tuple[str, ...]


def evidence(
    mask: Mask, scores: Mapping[str, Any], couplings: Couplings, *, scale: Scale = "none"
) -> Evidence:
    """Gather a mask and scores per component.

    Args:
        mask: tensors that it does not name are kept whole.
        scores: state tensor name -> array of the weight's shape.
        scale: what makes layers comparable before summing: "none" takes scores as they are,
            "share" divides a layer's by their total magnitude, "rank" replaces them by their
            rank in the layer, 0..1 (equals share the mean rank).

    Raises:
        MaskError: a mask or scores that do not fit the model.
    """
    keep = canonical(mask, couplings)
    values = _scores(scores, couplings, scale)
    count = couplings.count
    connections, kept, scored = (np.zeros(count, np.int64) for _ in range(3))
    lost, mass = np.zeros(count), np.zeros(count)
    unscored = []
    for (name, dim, channel_map), chosen in _connections(couplings):
        units = couplings.channel_maps[channel_map]
        at = np.flatnonzero(np.append(chosen, False)[units])  # -1 takes the appended one
        if not at.size:
            continue
        shape = coupled_shape(couplings, name)
        per_index = int(np.prod(shape)) // shape[dim]

        def gather(vector: Any, at: Any = at, units: Any = units) -> FloatArray:
            return np.bincount(units[at], weights=vector[at], minlength=count).astype(np.float64)

        sizes = gather(np.full(shape[dim], per_index)).astype(np.int64)
        connections += sizes
        other = tuple(d for d in range(len(shape)) if d != dim)
        mine = keep.get(name)
        kept += sizes if mine is None else gather(mine.sum(axis=other)).astype(np.int64)
        if name not in values:
            unscored.append(name)
            continue
        scored += sizes
        score = values[name]
        mass += gather(score.sum(axis=other))
        lost += gather((score if mine is None else np.where(mine, score, 0.0)).sum(axis=other))
    share = np.divide(kept, connections, out=np.ones(count), where=connections > 0)
    return Evidence(connections, kept, share, lost, mass, scored, tuple(dict.fromkeys(unscored)))


def order(mask_evidence: Evidence, saving: Any) -> npt.NDArray[np.int64]:
    """Components in order of score mass lost per unit of target cost saved, cheapest first.

    Components that save nothing, or that no score speaks of, come last. Equals go by the
    share of their connections that the mask keeps, then by number.

    Args:
        saving: cost saved by removing each component alone (MACs, ms, bytes), shape (count,).

    Raises:
        MaskError: another shape, or a value that is not finite.
    """
    saving = np.asarray(saving, dtype=np.float64)
    if saving.shape != mask_evidence.lost.shape or not np.isfinite(saving).all():
        raise MaskError(
            f"savings of shape {saving.shape} for {mask_evidence.lost.size} components, or not finite",
            tip="give one finite saving per component",
        )
    known = (saving > 0) & (mask_evidence.scored > 0)
    rate = np.divide(mask_evidence.lost, saving, out=np.full(saving.shape, np.inf), where=known)
    return np.lexsort((np.arange(saving.size), mask_evidence.kept_share, rate)).astype(np.int64)


def readings(couplings: Couplings) -> tuple[list[ReadDimension], list[ReadDimension]]:
    """What reads channels, and what produces them: (weight, dimension, channel_map), each once.

    A weight that is computed, and a recurrent one whose rows do not line up with its channels, is left
    out: it holds no connection that could be counted.
    """
    read: dict[ReadDimension, None] = {}
    written: dict[ReadDimension, None] = {}
    for layer in couplings.layers:
        if layer.weight is None:
            continue
        name = couplings.aliases[layer.weight]
        for table, dim, channel_map in (
            (read, *couplings.reading(layer)),
            (written, *couplings.writing(layer)),
        ):
            vector = couplings.channel_maps[channel_map]
            shape = coupled_shape(couplings, name)
            if dim < len(shape) and len(vector) == shape[dim] and (vector >= 0).any():
                table[(name, dim, channel_map)] = None
    return list(read), list(written)


def _connections(couplings: Couplings) -> Iterator[tuple[ReadDimension, BoolArray]]:
    """Every reading, with the components whose connections it holds."""
    read, written = readings(couplings)
    has_reader = np.zeros(couplings.count, dtype=bool)
    for _, _, channel_map in read:
        units = couplings.channel_maps[channel_map]
        has_reader[units[units >= 0]] = True
    for reading in read:
        yield reading, np.ones(couplings.count, dtype=bool)
    if not has_reader.all():
        for reading in written:
            yield reading, ~has_reader


def _scores(scores: Mapping[str, Any], couplings: Couplings, scale: Scale) -> dict[str, FloatArray]:
    scaled: dict[str, FloatArray] = {}
    for name, array in scores.items():
        if name not in couplings.aliases:
            raise MaskError(
                f"scores of {name!r}: the model has no tensor of that name",
                tip=f"names look like {next(iter(couplings.aliases), '')!r}",
            )
        target = couplings.aliases[name]
        values = np.asarray(array, dtype=np.float64)
        if values.shape != coupled_shape(couplings, target):
            raise MaskError(
                f"scores of {name!r}: shape {values.shape}, but the weight has "
                f"{coupled_shape(couplings, target)}",
                tip="give one score per weight element",
            )
        if np.isnan(values).any():
            raise MaskError(f"scores of {name!r}: hold NaN", tip="every connection needs a score")
        scaled[target] = _scaled(values, scale)
    return scaled


def _scaled(values: FloatArray, scale: Scale) -> FloatArray:
    if scale == "none":
        return values
    if scale == "share":
        total = np.abs(values).sum()
        return values / total if total > 0 else values
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    ranks = (upper - (counts + 1) / 2)[inverse.reshape(values.shape)]
    return np.asarray(ranks / max(values.size - 1, 1))
