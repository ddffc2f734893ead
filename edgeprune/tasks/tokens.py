"""Token classification: a class for every position of a sequence.

Outputs (samples, L, C), or (samples, C, L) where the shapes of the targets say so; logits or probabilities.
Targets: class numbers (samples, L), or a list of sequences of at most L; −100 and what is missing at the
end is left out. Measures: the share of right tokens of each sample, and the share of right sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets
from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.classification import require_decisions_differ
from edgeprune.tasks.numbers import (
    class_axis_shares,
    distinct_class,
    finite_rows,
    mean_score,
    only,
    require_targets,
    show,
)  # fmt: skip


def token_axis(shape: tuple[int, ...], length: int) -> int | None:
    """The axis of the classes of outputs for sequences of one length; None where neither axis fits.

    Both fit where there are as many classes as positions; then (samples, L, C) is taken.
    """
    if len(shape) != 3:
        return None
    return 2 if shape[1] == length else 1 if shape[2] == length else None


@dataclass(frozen=True)
class Tokens(CategoricalTask):
    """One class per position.

    class_axis: 2 for outputs (samples, L, C), 1 for (samples, C, L). Set by `fitted` from the targets.
    """

    name: ClassVar[str] = "tokens"
    measures: ClassVar[dict[str, Measure]] = {
        "accuracy": Measure("right tokens"), "sequences": Measure("right sequences"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("tokens with the dense model's class")
    class_axis: int = 2

    def axis(self, shape: tuple[int, ...]) -> int:
        """The axis of the classes."""
        return self.class_axis

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same task with the axis of the classes that the targets' length says."""
        out = only(outputs, self.name)
        task = self
        if isinstance(targets, np.ndarray) and targets.ndim == 2:
            axis = token_axis(out.shape, targets.shape[1])
            task = replace(self, class_axis=axis or self.class_axis)
        return super(Tokens, task).fitted(outputs, targets) if out.ndim == 3 else task

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse sequences of another length, class numbers beyond the head, sequences without a token that
        counts, and a single class.
        """
        out = only(outputs, self.name)
        if out.ndim != 3 or out.shape[self.class_axis] < 2:
            raise DataError(
                f"task tokens takes outputs (samples, length, classes) or (samples, classes, length), the"
                f" model's are {show(out)}"
            )
        if targets is None:
            require_decisions_differ(self.decide(out).reshape(-1), source, varied)
            return
        require_targets(targets, self.name, source)
        length, classes = out.shape[3 - self.class_axis], out.shape[self.class_axis]
        rows = self._padded(targets, length, source)
        off = (rows != self.ignore) & ((rows < 0) | (rows >= classes))
        if off.any():
            first = int(np.flatnonzero(off.any(axis=1))[0])
            raise DataError(
                f"{source}: sample {first} has class {rows[first][off[first]][0]}, but the model has"
                f" {classes} classes",
                tip=f"class numbers lie in 0..{classes - 1}; {self.ignore} is left out"
                " (change it with --task tokens:ignore=N)",
            )
        empty = np.flatnonzero((rows == self.ignore).all(axis=1))
        if empty.size:
            raise DataError(
                f"{source}: sample {empty[0]} has no token that counts (all {self.ignore})",
                tip="leave such samples out",
            )
        if varied and len(np.unique(rows[rows != self.ignore])) < 2:
            raise DataError(f"{source}: all tokens have one class", tip="give data of every class")

    def numbers(self, targets: Targets, shape: tuple[int, ...]) -> Any:
        """Class numbers (samples, L), short sequences filled up with `ignore`."""
        if not isinstance(targets, list | tuple):
            return targets
        return self._padded(targets, shape[3 - self.class_axis], "targets")

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The share of right tokens per sample; outputs with NaN or infinity count as wrong."""
        out = only(outputs, self.name)
        rows = np.asarray(self.numbers(targets, out.shape)).astype(np.int64)
        counted = rows != self.ignore
        right = (self.decide(out) == rows) & counted & finite_rows(out)[:, None]
        if self.measure is self.measures["sequences"]:
            return mean_score((right == counted).all(axis=1).astype(np.float64))
        return mean_score(right.sum(axis=1) / np.maximum(1, counted.sum(axis=1)))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """The share of positions with the dense model's class, padding included."""
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        same = (self.decide(ours) == self.decide(theirs)).mean(axis=1)
        return mean_score(same * finite_rows(ours))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The class that each sequence has beyond the average over sequences."""
        out = only(outputs, self.name)
        rows = self.decide(out) if targets is None else np.asarray(self.numbers(targets, out.shape))
        numbers = np.where(rows == self.ignore, -1, rows).astype(np.int64)
        return distinct_class(class_axis_shares(numbers, out.shape[self.class_axis]))

    def _padded(self, targets: Sequence[Any], length: int, source: str) -> npt.NDArray[np.int64]:
        rows = np.full((len(targets), length), self.ignore, dtype=np.int64)
        for index, entry in enumerate(targets):
            values = np.asarray(entry)
            if values.ndim != 1 or (values.dtype.kind not in "biu" and values.size):
                raise DataError(
                    f"{source}: tokens takes a sequence of class numbers per sample, sample {index} has"
                    f" {show(values)} of {values.dtype}"
                )
            ragged = isinstance(targets, list | tuple)
            if len(values) > length or (not ragged and len(values) != length):
                raise DataError(
                    f"{source}: sample {index} has {len(values)} class numbers for {length} positions"
                )
            rows[index, : len(values)] = values
        return rows
