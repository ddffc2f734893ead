"""Remove what a mask makes dead, without changing what the network computes.

Rounds to a fixed point: channels that nothing reads, channels that are constant (the
constant moves into the readers' biases), channels that equal others or are linear
combinations of them (their outgoing weights move to those). Every step is proven from
weights and structure, then certified on real inputs; a step that changes an output by
more than rounding is undone, halved to find the culprit, and reported.

Guarantee: the result computes what the masked network computes, within 1e-5 of the
largest output in float32 (1e-9 in float64). Loss happens only on request (`borders`).
Elsewhere: removal that costs accuracy (masks.order, planning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.errors import TraceError
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.masks.mask import Mask, canonical
from edgeprune.simplify.certify import Certificate, Inputs, certify
from edgeprune.simplify.escape import escaping
from edgeprune.simplify.flow import Observation, observe
from edgeprune.simplify.fold import Constants, constants, fold, spare
from edgeprune.simplify.linear import dependent
from edgeprune.simplify.state import LosslessState
from edgeprune.simplify.twins import Merge, carried, merge, twins
from edgeprune.surgery.cut import cut, retrace

ATTEMPTS = 64  # certificates per step that halving may spend


@dataclass(frozen=True)
class LosslessResult:
    """What lossless rounds gave; component numbers are those of the couplings given.

    `small` is the cut network as it runs; `trace` is the same exported again, which the next
    analysis needs. `full` is the same function at full size, with the folded biases and merged
    weights in place, and `couplings` knows its new biases:
    `cut(full, couplings, removed_mask | more)` removes further components in one go. `max_abs`
    is the largest output difference of `small` to the masked network over the inputs; `lossy`
    lists components removed on request although a border would notice, `lossy_max_abs` what
    that changed. `kept_reasons` says for each dead, constant or doubled component why it stays.
    """

    small: Trace
    full: Trace
    couplings: Couplings
    removed: npt.NDArray[np.int64]
    unused: npt.NDArray[np.int64]
    folded: npt.NDArray[np.int64]
    merged: npt.NDArray[np.int64]
    lossy: npt.NDArray[np.int64]
    biases: int  # layers whose bias took a constant
    rounds: int
    max_abs: float
    lossy_max_abs: float
    kept_reasons: dict[int, str]

    @cached_property
    def trace(self) -> Trace:
        """The small network, exported again on first use (seconds for a large one)."""
        return retrace(self.small)

    @property
    def removed_mask(self) -> BoolArray:
        """`removed` as booleans, shape (couplings.count,)."""
        mask = np.zeros(self.couplings.count, dtype=bool)
        mask[self.removed] = True
        return mask


def lossless(
    traced: Trace,
    couplings: Couplings,
    mask: Mask | None,
    inputs: Inputs,
    *,
    borders: str = "keep",
) -> LosslessResult:
    """Remove dead, constant, doubled and dependent channels of a masked network.

    Args:
        mask: None takes the weights as they are, zeros included.
        inputs: real inputs, flat tensors per call, for the certificate; at least one call.
        borders: "keep" leaves constants that zero padding would show at the borders;
            "fold" removes them as if there were no border, and counts them as lossy.

    Raises:
        MaskError: the mask does not fit the model.
        TraceError: no inputs to certify with.
    """
    start = apply_mask(traced, couplings, mask)
    work = _Work(LosslessState(start, couplings, np.zeros(couplings.count, dtype=bool)), start, inputs)
    while True:
        while work.round():
            pass
        if borders != "fold" or not work.fold_borders():
            break
    return work.result()


def apply_mask(traced: Trace, couplings: Couplings, mask: Mask | None) -> Trace:
    """The trace with every masked weight at zero, full size; tied weights stay tied.

    Raises:
        MaskError: the mask does not fit the model.
    """
    graph = traced.copy()
    for name, keep in canonical(mask or Mask({}), couplings).items():
        with torch.no_grad():
            attribute(graph, name).masked_fill_(torch.from_numpy(~keep), 0.0)
    return replace(traced, graph=graph)


@dataclass
class _Work:
    """Mutable only here: the state that grows round by round, and what is reported of it."""

    state: LosslessState
    reference: Trace
    inputs: Inputs
    facts: Observation = field(init=False)
    kinds: dict[str, list[int]] = field(
        default_factory=lambda: {k: [] for k in ("unused", "folded", "merged")}
    )
    lossy: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    refused: dict[str, set[int]] = field(default_factory=dict)
    biases: int = 0
    rounds: int = 0
    lossy_max_abs: float = 0.0

    def __post_init__(self) -> None:
        self.certificate = Certificate(self.reference, self.inputs)
        self.small = self.state.traced
        self.facts = observe(self.state.graph, self.state.traced.inputs)

    def round(self) -> bool:
        """Folds as long as there are any, then one pass of merges; False when none merged."""
        while self._fold_all():
            pass
        before = int(self.state.removed.sum())
        known = constants(self.state, self.facts)
        uneven = self._without(known.constant & ~known.even & ~known.unused, "carry")
        self._merge(carried(self.state, self.facts, uneven), "carry")
        self._merge(twins(self.state, self.facts), "twin")
        for merges in list(dependent(self.state, self.facts)):
            alive = ~self.state.removed
            self._merge([m for m in merges if alive[[m.gone, *m.into]].all()], "dependent")
        self.rounds += 1
        return int(self.state.removed.sum()) > before

    def _fold_all(self) -> bool:
        before = int(self.state.removed.sum())
        known = constants(self.state, self.facts)
        dead = self._without(known.unused | known.even, "fold")
        self._step(np.flatnonzero(dead), self._fold, known)
        return int(self.state.removed.sum()) > before

    def fold_borders(self) -> bool:
        """Remove the constants that a border keeps, lossily; the result is the new reference."""
        known = constants(self.state, self.facts)
        chosen = self._without(known.constant & ~known.unused, "lossy")
        chosen &= ~spare(self.state.couplings, self.state.removed, chosen)
        if not chosen.any():
            return False
        trial, biases = fold(self.state, self.facts, chosen)
        facts = observe(trial.graph, trial.traced.inputs)
        escaped = escaping(trial, facts, chosen)
        if escaped:
            self._refuse("lossy", escaped)
            return True
        self.small = small = cut(trial.traced, trial.couplings, trial.removed)
        self.lossy += np.flatnonzero(chosen).tolist()
        self.lossy_max_abs += certify(self.reference, small, self.inputs)
        self.state, self.facts, self.reference = trial, facts, trial.traced
        self.biases += biases
        self.certificate = Certificate(self.reference, self.inputs)
        return True

    def _fold(self, units: npt.NDArray[np.int64]) -> tuple[LosslessState, int]:
        gone = np.zeros(self.state.couplings.count, dtype=bool)
        gone[units] = True
        return fold(self.state, self.facts, gone)

    def _merge(self, merges: list[Merge], kind: str) -> None:
        refused = self.refused.get(kind, set())
        by_unit = {m.gone: m for m in merges if m.gone not in refused}

        def apply(units: npt.NDArray[np.int64]) -> tuple[LosslessState, int]:
            return merge(self.state, [by_unit[int(u)] for u in units]), 0

        self._step(np.array(sorted(by_unit), dtype=np.int64), apply, None, kind)

    def _step(
        self,
        units: npt.NDArray[np.int64],
        apply: Callable[[npt.NDArray[np.int64]], tuple[LosslessState, int]],
        known: Constants | None,
        kind: str = "fold",
    ) -> None:
        """Try all units at once; where that fails, halves, down to single ones."""
        chosen = np.zeros(self.state.couplings.count, dtype=bool)
        chosen[units] = True
        spared = spare(self.state.couplings, self.state.removed, chosen)
        self.reasons.update(dict.fromkeys(np.flatnonzero(spared).tolist(), "the last channel of its layer"))
        queue = [np.flatnonzero(chosen & ~spared)]
        attempts = 0
        while queue:
            batch = queue.pop(0)
            if not batch.size:
                continue
            attempts += 1
            trial, biases = apply(batch)
            verdict = self._judge(trial, batch)
            if isinstance(verdict, tuple):
                self.state, (self.small, self.facts) = trial, verdict
                self.biases += biases
                for unit in batch.tolist():
                    which = "merged" if known is None else "unused" if known.unused[unit] else "folded"
                    self.kinds.setdefault(which, []).append(unit)
            elif isinstance(verdict, dict):
                self._refuse(kind, verdict)
                queue.append(np.setdiff1d(batch, list(verdict)))
            elif len(batch) == 1 or attempts >= ATTEMPTS:
                self._refuse(kind, dict.fromkeys(batch.tolist(), verdict))
            else:
                queue += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]

    def _judge(
        self, trial: LosslessState, batch: npt.NDArray[np.int64]
    ) -> tuple[Trace, Observation] | dict[int, str] | str:
        """The cut graph and the facts of an accepted trial; reasons per component, or one for all."""
        facts = observe(trial.graph, trial.traced.inputs)
        chosen = np.zeros(trial.couplings.count, dtype=bool)
        chosen[batch] = True
        escaped = escaping(trial, facts, chosen)
        if escaped:
            return escaped
        try:
            small = cut(trial.traced, trial.couplings, trial.removed)
        except TraceError as error:
            return error.message
        trouble = self.certificate.verdict(small)[1]
        return trouble or (small, facts)

    def _refuse(self, kind: str, reasons: dict[int, str]) -> None:
        self.reasons.update(reasons)
        self.refused.setdefault(kind, set()).update(reasons)

    def _without(self, chosen: BoolArray, kind: str) -> BoolArray:
        out = chosen.copy()
        out[list(self.refused.get(kind, ()))] = False
        return out

    def result(self) -> LosslessResult:
        state = self.state
        for unit, reason in _kept(state, self.facts).items():
            self.reasons.setdefault(unit, reason)
        gone = np.flatnonzero(state.removed)

        def ids(kind: str) -> npt.NDArray[np.int64]:
            return np.array(sorted(self.kinds.get(kind, [])), dtype=np.int64)

        return LosslessResult(
            self.small, state.traced, state.couplings, gone.astype(np.int64), ids("unused"), ids("folded"),
            ids("merged"), np.array(sorted(self.lossy), dtype=np.int64), self.biases, self.rounds,
            self.certificate.verdict(self.small)[0], self.lossy_max_abs,
            {unit: r for unit, r in sorted(self.reasons.items()) if not state.removed[unit]},
        )  # fmt: skip


def _kept(state: LosslessState, facts: Observation) -> dict[int, str]:
    """Why components that carry nothing, or a constant, are still there."""
    everything = replace(state.couplings, exact=np.ones(state.couplings.count, dtype=bool))
    known = constants(LosslessState(state.traced, everything, state.removed), facts)
    reasons = {
        int(u): "constant, but zero padding would show it at the borders"
        for u in np.flatnonzero(known.constant & ~known.even & ~known.unused)
    }
    inexact = (known.unused | known.constant) & ~state.couplings.exact
    reasons.update(dict.fromkeys(np.flatnonzero(inexact).tolist(), "removing it changes a mean or a norm"))
    moving = _moving(state, facts)
    reasons.update({u: r for u, r in state.blocked.items() if not moving[u]})
    return reasons


def _moving(state: LosslessState, facts: Observation) -> BoolArray:
    """Components whose channels depend on the graph's inputs where some layer reads them."""
    moving = np.zeros(state.couplings.count, dtype=bool)
    for layer in state.couplings.layers:
        units = state.couplings.channel_maps[layer.inputs]
        marks = facts.depends.get(layer.source)
        if isinstance(marks, torch.Tensor) and marks.shape[layer.channel_dim] == len(units):
            moves = marks.movedim(layer.channel_dim, 0).reshape(len(units), -1).any(1).numpy()
            moving[units[(units >= 0) & moves]] = True
        else:
            moving[units[units >= 0]] = True
    return moving
