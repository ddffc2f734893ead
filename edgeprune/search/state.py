"""A network on its way down, and how its components map to the dense network's.

Components keep their dense numbers throughout, so that a report can say what happened to each
channel of the model that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.trace import Trace
from edgeprune.search.lossless_round import lossless_round, summary
from edgeprune.session.dense import Prepared
from edgeprune.session.options import Clock, Options


@dataclass(frozen=True)
class SearchState:
    """A network on its way down. `origin` maps its components to the dense ones, `scored` those of
    the network before it, which is what the scores in its record are about.
    """

    trace: Trace
    couplings: Couplings
    origin: npt.NDArray[np.int64]
    removed: BoolArray  # dense components, shape (dense count,)
    record: dict[str, Any]
    scored: npt.NDArray[np.int64]


def start(prepared: Prepared, options: Options, clock: Clock) -> SearchState:
    """The dense network after the lossless rounds."""
    count = prepared.couplings.count
    found = lossless_round(prepared, clock)
    record: dict[str, Any] = {"round": 0, "lossless": summary(found)}
    numbers = np.arange(count)
    dense = SearchState(prepared.trace, prepared.couplings, numbers, np.zeros(count, bool), record, numbers)
    if not len(found.removed):
        return dense
    clock.progress.note(f"lossless: {len(found.removed)} channels removed, certified to {found.max_abs:.1e}")
    # The full-size network with folded biases couples as the dense one, plus the new biases.
    folded = SearchState(found.full, found.couplings, dense.origin, dense.removed, record, numbers)
    return advance(folded, found.trace, found.removed_mask, record, options)


def advance(
    state: SearchState, again: Trace, now: BoolArray, record: dict[str, Any], options: Options
) -> SearchState:
    """The state after `now` (components of `state`) went and the rest was traced as `again`."""
    choice = state.couplings.choice
    couplings = analyse(again, keep=options.keep, seed=options.seed, choice=choice)
    origin = _origins(state, couplings, now)
    # With one head left its width would be free: a part of what the dense network removes as one.
    found, counts = np.unique(origin, return_counts=True)
    parts = (origin < 0) | np.isin(origin, found[counts > 1])
    couplings = couplings.keeping(parts, "only a part of a component of the dense network")
    origin = origin[~parts]
    removed = state.removed.copy()
    removed[state.origin[now]] = True
    return SearchState(again, couplings, origin, removed, record, state.origin)


def _origins(state: SearchState, couplings: Couplings, now: BoolArray) -> npt.NDArray[np.int64]:
    """Dense component of each new one, read off any tensor dimension that both share; -1 for none."""
    origin = np.full(couplings.count, -1, dtype=np.int64)
    old = state.couplings
    for name, dims in couplings.tensors.items():
        before = old.tensors.get(old.aliases.get(name, ""), ())
        for channel_map, previous in zip(dims, before, strict=False):
            if channel_map is None or previous is None:
                continue
            new_units = couplings.channel_maps[channel_map]
            old_units = old.channel_maps[previous][old.keep_mask(previous, now)]
            both = (new_units >= 0) & (old_units >= 0)
            origin[new_units[both]] = state.origin[old_units[both]]
    return origin
