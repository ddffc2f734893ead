"""What became of a mask: how much of it is real removal, and what it cost.

Guarantee: every masked weight is counted once, as removed or as given up; every removed
weight once, as masked or as still live. Counts are exact, tied tensors count once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.masks.evidence import readings
from edgeprune.masks.mask import Mask, canonical, coupled_shape


@dataclass(frozen=True)
class TensorCoverage:
    """Weights of one masked tensor, counted in elements."""

    name: str
    masked: int
    removed: int  # of the masked ones
    live_removed: int  # removed although the mask keeps them


@dataclass(frozen=True)
class MaskCoverage:
    """How much of a mask became real removal; counts of weight elements.

    `masked` = `removed` + `given_up`: the latter stay in the dense result. `live_removed`
    are weights that the mask keeps and that went with their channel. `live_components`
    lists removed components that still carried something, `live_connections` how many live
    weights each (the smaller of those that feed it and those that read it), in order of component.
    """

    masked: int
    removed: int
    given_up: int
    live_removed: int
    share: float  # removed / masked, 1.0 where nothing was masked
    tensors: tuple[TensorCoverage, ...]
    live_components: npt.NDArray[np.int64]
    live_connections: npt.NDArray[np.int64]


def mask_coverage(mask: Mask, couplings: Couplings, removed: BoolArray) -> MaskCoverage:
    """Compare a mask with a removal.

    Args:
        removed: boolean, shape (couplings.count,).

    Raises:
        MaskError: the mask does not fit the model.
    """
    keep = canonical(mask, couplings)
    rows = []
    for name, kept in keep.items():
        stays = _stays(couplings, name, removed)
        remaining = kept[np.ix_(*stays)]
        gone = kept.size - remaining.size
        live_gone = int(kept.sum()) - int(remaining.sum())
        rows.append(TensorCoverage(name, int(kept.size - kept.sum()), gone - live_gone, live_gone))
    masked, gone = sum(r.masked for r in rows), sum(r.removed for r in rows)
    live = _live_connections(keep, couplings)
    which = np.flatnonzero(removed & (live > 0)).astype(np.int64)
    return MaskCoverage(
        masked, gone, masked - gone, sum(r.live_removed for r in rows),
        gone / masked if masked else 1.0, tuple(rows), which, live[which],
    )  # fmt: skip


def _stays(couplings: Couplings, name: str, removed: BoolArray) -> list[npt.NDArray[np.int64]]:
    """Indices of every dimension of a tensor that stay."""
    return [
        np.arange(size) if channel_map is None else np.flatnonzero(couplings.keep_mask(channel_map, removed))
        for size, channel_map in zip(coupled_shape(couplings, name), couplings.tensors[name], strict=True)
    ]


def _live_connections(keep: dict[str, BoolArray], couplings: Couplings) -> npt.NDArray[np.int64]:
    """Live weights per component: the smaller of those that feed it and those that read it.

    A channel with either side masked whole carries nothing, so removing it gives nothing away
    however many live weights the other side holds.
    """
    sides = []
    for side in readings(couplings):
        live = np.zeros(couplings.count)
        seen = np.zeros(couplings.count, dtype=bool)
        for name, dim, channel_map in side:
            units = couplings.channel_maps[channel_map]
            free = units >= 0
            shape = coupled_shape(couplings, name)
            other = tuple(d for d in range(len(shape)) if d != dim)
            full = np.full(shape[dim], int(np.prod(shape)) // shape[dim])
            counts = keep[name].sum(axis=other) if name in keep else full
            live += np.bincount(units[free], weights=counts[free], minlength=couplings.count)
            seen[units[free]] = True
        sides.append(np.where(seen, live, np.inf))
    least = np.minimum(sides[0], sides[1])
    return np.where(np.isfinite(least), least, 0).astype(np.int64)
