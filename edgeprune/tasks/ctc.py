"""Sequence labelling with CTC: a sequence of symbols per sample, shorter than the outputs.

Outputs (samples, L, C), or (samples, C, L) with `class_axis=1`; logits or (log-)probabilities of C − 1
symbols and the blank. Targets: a list of sequences of symbols without blanks (or rows of equal length).
Measure: 1 − edit distance / length of the target, at least 0, after greedy decoding. Background: Graves et
al., ICML 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets, Tensors
from edgeprune.tasks.categorical import CategoricalTask, gradients
from edgeprune.tasks.numbers import (
    draw_classes,
    finite_rows,
    mean_score,
    only,
    require_targets,
    show,
)  # fmt: skip

if TYPE_CHECKING:
    import torch

Sequences = list[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Ctc(CategoricalTask):
    """A sequence of symbols per sample.

    blank: the class number of the blank; −1 is the last class.
    """

    name: ClassVar[str] = "ctc"
    measures: ClassVar[dict[str, Measure]] = {
        "character": Measure("1 − character error rate"), "sequences": Measure("right sequences"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("1 − character error rate against the dense model")
    class_axis: int = 2
    blank: int = 0

    def axis(self, shape: tuple[int, ...]) -> int:
        """The axis of the classes."""
        return self.class_axis

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse symbols beyond the head, blanks in targets, and targets longer than the outputs."""
        out = only(outputs, self.name)
        if out.ndim != 3 or out.shape[self.class_axis] < 2:
            raise DataError(f"task ctc takes outputs (samples, length, classes), the model's are {show(out)}")
        if targets is None:
            if varied and not any(len(s) for s in self.decode(out)):
                self._refuse_silence(source, len(out))
            return
        require_targets(targets, self.name, source)
        length, classes = out.shape[3 - self.class_axis], out.shape[self.class_axis]
        blank = self.blank % classes
        longest = 0
        for index, entry in enumerate(targets):
            values = np.asarray(entry)
            if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
                raise DataError(
                    f"{source}: ctc takes a sequence of symbols per sample, sample {index} has {show(values)}"
                    f" of {values.dtype}"
                )
            off = values[(values < 0) | (values >= classes) | (values == blank)] if values.size else values
            if off.size:
                raise DataError(
                    f"{source}: sample {index} has symbol {off[0]}; the model has {classes} classes, of which"
                    f" {blank} is the blank",
                    tip="give another blank with --task ctc:blank=N (−1 for the last class)",
                )
            needed = len(values) + int((np.diff(values) == 0).sum()) if values.size else 0
            if needed > length:
                raise DataError(
                    f"{source}: sample {index} has {len(values)} symbols, which need {needed} positions; the"
                    f" model gives {length}"
                )
            longest = max(longest, len(values))
        if varied and longest == 0:
            raise DataError(f"{source}: all {len(targets)} sequences are empty")

    def decode(self, out: npt.NDArray[Any]) -> Sequences:
        """Greedy decoding: the best class at each position, repeats joined, blanks left out."""
        best = self.decide(out)
        blank = self.blank % out.shape[self.class_axis]
        changed = np.concatenate([np.ones((len(best), 1), bool), best[:, 1:] != best[:, :-1]], axis=1)
        return [row[keep] for row, keep in zip(best, changed & (best != blank), strict=True)]

    def nll(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """−log p(sequence), summed over samples."""
        import torch
        import torch.nn.functional as F

        out = only(outputs, self.name)
        log_p = self.rows(out).log_softmax(-1)
        sequences = [torch.as_tensor(np.asarray(t), dtype=torch.long) for t in as_sequences(targets)]
        sizes = torch.tensor([len(s) for s in sequences])
        frames = torch.full((len(out),), log_p.shape[1], dtype=torch.long)
        blank = self.blank % log_p.shape[-1]
        flat = torch.cat(sequences) if int(sizes.sum()) else torch.zeros(0, dtype=torch.long)
        return F.ctc_loss(
            log_p.transpose(0, 1).cpu(), flat, frames, sizes, blank, reduction="sum", zero_infinity=True
        ).to(out.device)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """−log p(sequence) per symbol of the targets."""
        symbols = sum(len(t) for t in as_sequences(targets))
        return self.nll(outputs, targets) / max(1, symbols)

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """∂nll/∂outputs under sequences drawn from the model (a path, collapsed), and under those given."""
        out = only(outputs, self.name)
        paths = draw_classes(self.rows(out).log_softmax(-1), generator).cpu().numpy()
        blank = self.blank % out.shape[self.class_axis]
        drawn = [np.array([s for i, s in enumerate(p) if s != blank and (i == 0 or p[i - 1] != s)], np.int64)
                 for p in paths]  # fmt: skip
        first = gradients(outputs, lambda leaves: self.nll(leaves, drawn))
        return first, first if targets is None else gradients(outputs, lambda x: self.nll(x, targets))

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """1 − character error rate per sample, or the share of sequences without an error."""
        out = only(outputs, self.name)
        rates = [accuracy_of(a, b) for a, b in zip(self.decode(out), as_sequences(targets), strict=True)]
        values = np.array(rates, dtype=np.float64) * finite_rows(out)
        if self.measure is self.measures["sequences"]:
            values = (values == 1.0).astype(np.float64)
        return mean_score(values)

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """1 − character error rate, the dense model's sequence as the target.

        Raises:
            DataError: the dense model's sequences are all empty.
        """
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        wanted = self.decode(theirs)
        if not any(len(s) for s in wanted):
            self._refuse_silence("agreement", len(theirs))
        rates = [accuracy_of(a, b) for a, b in zip(self.decode(ours), wanted, strict=True)]
        return mean_score(np.array(rates, dtype=np.float64) * finite_rows(ours))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """None: a sequence is no class."""
        return None

    def _refuse_silence(self, source: str, samples: int) -> None:
        raise DataError(
            f"{source}: the dense model gives an empty sequence for all {samples} samples; agreement with it"
            " says nothing",
            tip=f"the blank is taken to be class {self.blank}; give another with --task ctc:blank=N",
        )


def as_sequences(targets: Targets) -> list[Any]:
    """One sequence per sample."""
    return list(targets)


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Levenshtein distance: the least number of insertions, deletions and replacements."""
    row = np.arange(len(other) + 1)
    right = np.asarray(other)
    for index, symbol in enumerate(one):
        replaced = row[:-1] + (right != symbol)
        best = np.minimum(replaced, row[1:] + 1)
        # an insertion costs 1 per step to the right: a running minimum of (value − position)
        steps = np.concatenate([[index + 1], best]) - np.arange(len(other) + 1)
        row = np.minimum.accumulate(steps) + np.arange(len(other) + 1)
    return int(row[-1])


def accuracy_of(decoded: Any, target: Any) -> float:
    """1 − edit distance / length of the target, at least 0; of an empty target 1 if nothing was decoded."""
    if len(target) == 0:
        return float(len(decoded) == 0)
    return max(0.0, 1.0 - edit_distance(list(decoded), list(target)) / len(target))
