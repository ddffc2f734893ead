"""Judge several networks on one validation part without losing the level of the bound.

    test = LadderTest((0.5, 0.36, 0.26), retreats=(0.7, 0.85), level=0.9)
    while trial := test.next():
        network = build(trial.share)
        test.record(loss(network, level=trial.interval_level).high <= max_drop)
    test.accepted       the strongest share that was accepted; 1.0 where none was

A network that loses more than allowed is called bad. Trying one network after the other until a bound
happens to hold accepts a bad one far more often than one bound would. Here the order is fixed before
looking, so the error of the search as a whole, accepting a bad network, is at most 1 - level:

    rungs     from mild to strong, each at error (1 - reserve) * (1 - level), up to the first refusal.
              Fixed-sequence testing (Learn then Test, Angelopoulos et al. 2021): a bad network is accepted
              only if the first bad one on the ladder is, so the rungs together spend that error once.
    retries   after the refusal of rung j: networks between it and the last accepted one. Only one place j
              is reached, but the data choose which, so the places share the reserve (Bonferroni). Retries
              at one place go from mild to strong up to a refusal as well, and spend their part once.

Nothing is assumed of how the losses depend on the share. With `ordered=True` each place gets the complete
reserve. That holds the level if a half-way network is within the budget whenever the stronger rung is:
then only at the first bad rung can a retry err.

Guarantee: P(an accepted network is bad) <= 1 - level, if each bound has its level and the networks do not
    depend on the validation part other than through the outcomes recorded here. Choosing an epoch, a
    criterion or a file by the same part breaks this.
Elsewhere: the bounds (bounds), building networks (search).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.errors import OptionError

RESERVE = 0.1  # share of the error kept for retries; more costs the rungs more than retries win back


@dataclass(frozen=True)
class Trial:
    """A network to build and the level to judge it at.

    share: of the dense cost. level: one-sided; pass `interval_level` as the two-sided level of a bound.
    """

    share: float
    level: float
    kind: Literal["rung", "half-way", "retreat"]

    @property
    def interval_level(self) -> float:
        """Two-sided level whose upper end is the one-sided bound at `level`."""
        return 2 * self.level - 1


class LadderTest:
    """A search down a ladder of shares; see the module. Same outcomes, same trials: a run can resume."""

    def __init__(
        self,
        rungs: Sequence[float],
        *,
        retreats: Sequence[float] = (),
        half_way: bool = True,
        level: float = 0.9,
        reserve: float = RESERVE,
        ordered: bool = False,
    ) -> None:
        """
        Args:
            rungs: shares from mild to strong. retreats: shares milder than the first rung, tried when that
                is refused; in any order. half_way: after a later refusal, one try at the geometric mean.
            level: one-sided, of the search as a whole.
            reserve: share of the error kept for retries; unused where there can be none.
            ordered: see the module.

        Raises:
            OptionError: shares out of order or range, or a level or reserve that leaves nothing to test at.
        """
        shares = (*sorted(retreats, reverse=True), *rungs)
        if not rungs or any(b >= a for a, b in zip((1.0, *shares), shares, strict=False)) or shares[-1] <= 0:
            raise OptionError(
                f"rungs {tuple(rungs)} with retreats {tuple(retreats)}",
                tip="shares below 1 and above 0, falling; retreats milder than the first rung",
            )
        if not (0.5 < level < 1 and 0 < reserve < 1):
            raise OptionError(
                f"a search at level {level:g} with reserve {reserve:g}",
                tip="the level lies between 0.5 and 1, the reserve between 0 and 1",
            )
        places = bool(retreats) + (len(rungs) - 1 if half_way else 0)
        kept = reserve if places else 0.0
        self._rungs = tuple(float(share) for share in rungs)
        self._retreats = shares[: len(shares) - len(rungs)]
        self._half_way = half_way
        self._rung_level = 1 - (1 - kept) * (1 - level)
        self._retry_level = 1 - kept * (1 - level) / (1 if ordered else max(places, 1))
        self._next = 0  # of the rungs
        self._retries: list[Trial] | None = None  # what is left of them; None before the first refusal
        self._open: Trial | None = None
        self.accepted = 1.0

    def next(self) -> Trial | None:
        """The next network to try, or None at the end; the same one until its outcome is known."""
        if self._open is None:
            if self._retries is not None:
                self._open = self._retries.pop(0) if self._retries else None
            elif self._next < len(self._rungs):
                self._open = Trial(self._rungs[self._next], self._rung_level, "rung")
        return self._open

    def record(self, accepted: bool) -> None:
        """Take the outcome of the trial that `next` gave."""
        trial = self._take()
        if accepted:
            self.accepted = trial.share
        elif trial.kind == "rung":
            self._retries = self._after(trial.share)
        else:
            self._retries = []
        self._next += trial.kind == "rung"

    def skip(self) -> None:
        """Go past a trial whose share is met without loss, by structure alone; nothing was judged."""
        trial = self._take()
        self.accepted = trial.share
        self._next += trial.kind == "rung"

    def stop(self) -> None:
        """End the search: no stronger network can be built."""
        self._open, self._retries = None, []

    def _take(self) -> Trial:
        if self._open is None:
            raise OptionError("an outcome without a trial", tip="call next() first")
        trial, self._open = self._open, None
        return trial

    def _after(self, refused: float) -> list[Trial]:
        """The retries at the place where the rung `refused` was."""
        if self.accepted == 1.0:
            return [Trial(share, self._retry_level, "retreat") for share in self._retreats]
        if not self._half_way:
            return []
        return [Trial(math.sqrt(refused * self.accepted), self._retry_level, "half-way")]
