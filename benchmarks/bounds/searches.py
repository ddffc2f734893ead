"""The complete search on one validation part: how often it ends with a network that loses too much.

Networks share the validation samples. `nested`: the same samples are lost first by every network;
`apart`: networks lose samples of their own. A network is bad where its true loss is above the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.bounds.earlier import normal_upper
from benchmarks.bounds.zero_one import thresholds
from edgeprune.tasks.bounds_sequence import LadderTest

SAMPLES = (30, 100, 229, 1000, 3000, 10_000)
RUNGS, RETREATS = (0.5, 0.36, 0.26, 0.19, 0.14, 0.1, 0.07, 0.05), (0.7, 0.85)
ERROR, GAIN, REPETITIONS = 0.1, 0.005, 2000
BAD = 1.0001  # of the budget: where a bound errs most

Loss = Callable[[float], float]  # share kept -> true loss as a multiple of the budget


def budget(samples: int) -> float:
    """A loss that this many samples can bound: a point from 1,000 on."""
    return max(0.01, 6 / samples)


def _from(first_bad: float) -> Loss:
    return lambda share: BAD if share <= first_bad else 0.2


CASES: dict[str, Loss] = {
    "every network is bad": lambda share: BAD,
    "bad from 0.26 on": _from(0.31),  # and half-way between 0.36 and 0.26
    "bad from 0.10 on": _from(0.12),
    "rungs good by a hair, half-way networks bad": lambda share: 0.97 if share in RUNGS else BAD,
    "loss grows with what is removed": lambda share: (0.2 / share) ** 1.5,
}
DESIGNS: dict[str, dict[str, Any]] = {
    "": {}, "ordered": {"ordered": True}, "no_retries": {"half_way": False, "retreats": ()},
}  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    """One row per number of samples, case and dependence; designs are columns."""
    for n in SAMPLES:
        tables = {error: _table(n, error) for error in sorted(_errors())}
        for case, loss in CASES.items():
            for dependence in ("nested", "apart"):
                row: dict[str, Any] = {
                    "kind": "search", "case": case, "samples": n, "dependence": dependence,
                    "budget": budget(n), "nominal": 1 - ERROR, "repetitions": REPETITIONS,
                    "monte_carlo_error": math.sqrt(ERROR * (1 - ERROR) / REPETITIONS),
                }  # fmt: skip
                for name, settings in DESIGNS.items():
                    row |= _columns(name, *_run(n, loss, dependence, settings, tables))
                row |= _columns("before", *_run_before(n, loss, dependence))
                yield row


def _columns(name: str, good: float, share: float) -> dict[str, float]:
    tail = f"_{name}" if name else ""
    return {f"coverage{tail}": good, f"share{tail}": share}


def _errors() -> set[float]:
    """Every error that a design tests at."""
    found = set()
    for settings in DESIGNS.values():
        for outcome in (True, False):
            test = LadderTest(RUNGS, **{"retreats": RETREATS, **settings})
            while trial := test.next():
                found.add(round(1 - trial.level, 12))
                test.record(outcome or trial.share > 0.3)
        test = LadderTest(RUNGS, **{"retreats": RETREATS, **settings})
        while trial := test.next():
            found.add(round(1 - trial.level, 12))
            test.record(trial.share > 0.4)
    return found


def _table(n: int, error: float) -> np.ndarray:
    """Largest number lost that is accepted, by the number gained."""
    most = int(n * GAIN + 6 * math.sqrt(n * GAIN) + 4)
    gained = np.arange(min(most, n) + 1)
    found = thresholds(n, budget(n), error, gained)
    return np.array([found[int(b)] for b in gained])


class _Data:
    """What each network loses and gains on one validation part; drawn when a network is built."""

    def __init__(self, n: int, dependence: str, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self.common = rng.random(n) if dependence == "nested" else None

    def counts(self, loss: float) -> tuple[int, int]:
        p10 = loss + GAIN
        if self.common is None:
            lost, gained, _ = self.rng.multinomial(self.n, [p10, GAIN, 1 - p10 - GAIN])
            return int(lost), int(gained)
        return int((self.common < p10).sum()), int((self.common > 1 - GAIN).sum())


def _run(
    n: int, loss: Loss, dependence: str, settings: dict[str, Any], tables: dict[float, np.ndarray]
) -> tuple[float, float]:
    """Share of searches without a bad network accepted, and the mean share that they end at."""
    rng, good, ended = np.random.default_rng(n), 0, []
    for _ in range(REPETITIONS):
        data, wrong = _Data(n, dependence, rng), False
        test = LadderTest(RUNGS, **{"retreats": RETREATS, **settings})
        while trial := test.next():
            multiple = loss(trial.share)
            lost, gained = data.counts(min(multiple * budget(n), 0.9))
            table = tables[round(1 - trial.level, 12)]
            accepted = lost <= table[min(gained, len(table) - 1)]
            wrong |= accepted and multiple > 1
            test.record(bool(accepted))
        good += not wrong
        ended.append(test.accepted)
    return good / REPETITIONS, float(np.mean(ended))


def _run_before(n: int, loss: Loss, dependence: str) -> tuple[float, float]:
    """The search until 0.1: the normal bound at one-sided 90% for every network, retreats strong first."""
    rng, good, ended = np.random.default_rng(n), 0, []
    for _ in range(REPETITIONS):
        data = _Data(n, dependence, rng)
        pending, last, refused, wrong = list(RUNGS), 1.0, False, False
        while pending:
            share = pending.pop(0)
            multiple = loss(share)
            lost, gained = data.counts(min(multiple * budget(n), 0.9))
            mean = (lost - gained) / n
            if float(normal_upper(mean, (lost + gained) / n - mean**2, n, ERROR)) <= budget(n):
                wrong, last = wrong or multiple > 1, share
                if refused:
                    break
            elif not refused:
                refused = True
                pending = [math.sqrt(share * last)] if last < 1 else list(RETREATS)
            elif last < 1 or not pending:
                break
        good += not wrong
        ended.append(last)
    return good / REPETITIONS, float(np.mean(ended))
