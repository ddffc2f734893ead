"""A network on its way down, the record of the round that made it, and its place in the run folder.

Components keep the numbers of the dense network throughout, so that a report can say what happened to
each channel of the model that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.trace import Trace
from edgeprune.masks import Mask
from edgeprune.masks.mask import restrict
from edgeprune.records import Interval
from edgeprune.search.groups import Curve
from edgeprune.session.options import Options

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What a round was asked for: goals as shares of the dense cost, from the network of round `parent`."""

    goals: dict[str, float] = field(default_factory=dict)
    parent: int = 0


@dataclass(frozen=True)
class LosslessCounts:
    """Channels that went without changing an output, and the largest difference that was seen."""

    removed: int = 0
    unused: int = 0
    constant: int = 0
    merged: int = 0
    rounds: int = 0
    max_abs: float = 0.0


@dataclass(frozen=True)
class MaskOutcome:
    """What an unstructured mask of the same density would keep, and what became real removal.

    Counts are weights. shares: of the mask's weights that stay, in removed and in kept components.
    """

    density: float
    masked: int
    removed: int
    given_up: int
    live_removed: int
    covered_share: float
    share_kept_in_removed: float | None
    share_kept_in_kept: float | None


@dataclass(frozen=True)
class TimedShare:
    """A whole file that was timed while planning: shares of the dense latency, at one percentile."""

    asked: float
    predicted: float
    measured: float
    percentile: int = 50


@dataclass(frozen=True)
class RoundRecord:
    """What one round did. Round 0 is the lossless one, which scores nothing.

    drop: loss on the validation part in `unit`, its `level` two-sided; None without data. curves: loss by
    removed share of each group, by its name.
    """

    round: int = 0
    asked: Asked = field(default_factory=Asked)
    lossless: LosslessCounts | None = None
    macs: float = 0.0
    params: int = 0
    criterion: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    estimator: str = ""
    score_unit: str = ""
    samples: int = 0
    fits: tuple[dict[str, Any], ...] = ()
    epochs: tuple[dict[str, Any], ...] = ()
    mask: MaskOutcome | None = None
    timed: tuple[TimedShare, ...] = ()
    curves: dict[str, Curve] = field(default_factory=dict)
    drop: Interval | None = None
    unit: str = "points"


@dataclass(frozen=True)
class RoundScores:
    """Arrays of a round, one entry per component of the network that it scored, shape (count,).

    rank: 0 goes first within its group. label_nats and p_value: what a channel says of the classes by
    itself; None without classes. details: further columns of the criterion.
    """

    removed: BoolArray
    score: npt.NDArray[np.float64]
    rank: IntArray
    label_nats: npt.NDArray[np.float64] | None = None
    p_value: npt.NDArray[np.float64] | None = None
    details: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As they are stored."""
        stored: dict[str, npt.NDArray[Any]] = {
            "removed": self.removed,
            "score": self.score,
            "rank": self.rank,
        }
        if self.label_nats is not None and self.p_value is not None:
            stored |= {"label_nats": self.label_nats, "p_value": self.p_value}
        return {**stored, **{f"detail_{name}": values for name, values in self.details.items()}}

    @staticmethod
    def from_arrays(stored: dict[str, npt.NDArray[Any]]) -> RoundScores:
        """From what `arrays` gave."""
        details = {k.removeprefix("detail_"): v for k, v in stored.items() if k.startswith("detail_")}
        return RoundScores(
            stored["removed"], stored["score"], stored["rank"].astype(np.int64),
            stored.get("label_nats"), stored.get("p_value"), details,
        )  # fmt: skip


@dataclass(frozen=True)
class SearchState:
    """A network on its way down.

    origin: dense component of each of its components. removed: of the dense components, shape (dense
    count,). scored: `origin` of the network before, which the scores of its round are about. mask: the
    user's mask for what is left, where one was given.
    """

    trace: Trace
    couplings: Couplings
    origin: IntArray
    removed: BoolArray
    record: RoundRecord
    scored: IntArray
    mask: Mask | None = None


def dense_state(trace: Trace, couplings: Couplings, mask: Mask | None = None) -> SearchState:
    """The network before anything was removed."""
    numbers = np.arange(couplings.count)
    return SearchState(
        trace, couplings, numbers, np.zeros(couplings.count, bool), RoundRecord(), numbers, mask
    )


def advance(
    state: SearchState, smaller: Trace, removed: BoolArray, record: RoundRecord, options: Options
) -> SearchState:
    """The state after `removed` (components of `state`) went and the rest was traced as `smaller`."""
    couplings = analyse(smaller, keep=options.keep, seed=options.seed, choice=state.couplings.choice)
    origin = _origins(state, couplings, removed)
    # With one head left its width would be free: a part of what the dense network removes as one.
    values, counts = np.unique(origin, return_counts=True)
    partial = (origin < 0) | np.isin(origin, values[counts > 1])
    couplings = couplings.keeping(partial, "only a part of a component of the dense network")
    gone = state.removed.copy()
    gone[state.origin[removed]] = True
    mask = None if state.mask is None else restrict(state.mask, state.couplings, removed)
    return SearchState(smaller, couplings, origin[~partial], gone, record, state.origin, mask)


def with_record(state: SearchState, record: RoundRecord) -> SearchState:
    """The same network under another record."""
    return replace(state, record=record)


def _origins(state: SearchState, couplings: Couplings, removed: BoolArray) -> IntArray:
    """Dense component of each new one, read off any tensor dimension that both share; -1 for none."""
    origin = np.full(couplings.count, -1, dtype=np.int64)
    old = state.couplings
    for name, dims in couplings.tensors.items():
        before = old.tensors.get(old.aliases.get(name, ""), ())
        for channel_map, previous in zip(dims, before, strict=False):
            if channel_map is None or previous is None:
                continue
            new_units = couplings.channel_maps[channel_map]
            old_units = old.channel_maps[previous][old.keep_mask(previous, removed)]
            both = (new_units >= 0) & (old_units >= 0)
            origin[new_units[both]] = state.origin[old_units[both]]
    return origin
