"""The contract of a task: the only code that knows what a model's outputs mean.

Every stage that interprets outputs goes through a `Task`: capture (slopes), sensitivity (divergence),
fine-tuning (loss, distillation), validation and reports (score, agreement). Nothing else takes an
arg max, picks an output by its position or assumes integer labels.

    outputs   all outputs of the model for some samples, in the model's order; arrays or tensors, batch first
    targets   what the data give for the same samples: an array, a list with one entry per sample
              (boxes, sequences), or a mapping of these; None where the data hold inputs only

A third party adds a task with the entry point group `edgeprune.tasks`.
Elsewhere: which task a model has (infer), bounds on the loss (bounds), the tasks themselves (one file each).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Outputs: TypeAlias = tuple[npt.NDArray[Any], ...]
Tensors: TypeAlias = "tuple[torch.Tensor, ...]"
Targets: TypeAlias = Any
PerSample: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """What `--max-drop` limits, and its unit.

    kind: "share" is in 0..1 and larger is better; its loss is counted in points of 100. "error" is 0 or
    more and smaller is better; its loss is counted in percent of the dense model's value.
    """

    name: str
    kind: Literal["share", "error"] = "share"

    @property
    def unit(self) -> Literal["points", "percent"]:
        """The unit of a loss of this measure."""
        return "points" if self.kind == "share" else "percent"


@dataclass(frozen=True)
class Score:
    """A measure of one set of samples.

    value: of the whole set, in the measure's own scale (0..1, or an error in the targets' unit).
    per_sample: shape (samples,), averages to `value`; None for measures of a set, such as mAP.
    of: for measures of a set: the value on some samples (indices into the set, repeats allowed).
    """

    value: float
    per_sample: PerSample | None = None
    of: Callable[[npt.NDArray[np.int64]], float] | None = None


@runtime_checkable
class Task(Protocol):
    """What outputs mean. Every method takes all outputs of the model.

    Methods on arrays serve validation and reports, methods on tensors serve capture and training.
    """

    @property
    def name(self) -> str:
        """What `--task` calls it."""

    @property
    def measure(self) -> Measure:
        """What `score` gives, with targets."""

    @property
    def agreement_measure(self) -> Measure:
        """What `agreement` gives, without targets, against the dense model."""

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse targets that a model with such outputs cannot have been trained on.

        Args:
            outputs: of a few samples. targets: of all samples of `source`.
            varied: also require what scoring needs, such as two classes.

        Raises:
            DataError: outputs or targets of another shape, type or range; the first bad sample is named.
        """

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Training loss, a scalar: the mean over samples."""

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Distance to the dense model's outputs, a scalar; every output counts. Needs no targets."""

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """∂L/∂outputs of the summed negative log-likelihood: under targets drawn from the model (Fisher),
        and under the targets given; without targets both are drawn.
        """

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """How far outputs are from the dense model's, per sample: nats, or a share of the variance."""

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """`measure` of these samples."""

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """`agreement_measure` of these samples."""

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """One class per sample for discrete information criteria, shape (samples,); from the targets, else
        from the model's own decisions. None where the task has no classes.
        """


@dataclass(frozen=True)
class TaskPart:
    """One output, or group of outputs, of a model with several, and the task that judges it.

    name: as reports print it. outputs: positions of the outputs that it reads; None for all.
    targets: its key in a mapping of targets; None: the targets as they are. unlabelled: the data hold no
    targets for this part, so it is judged by agreement.
    """

    name: str
    task: Task
    outputs: tuple[int, ...] | None = None
    targets: str | None = None
    weight: float = 1.0
    unlabelled: bool = False

    def select(self, outputs: Outputs) -> Outputs:
        """The outputs that this part reads."""
        return outputs if self.outputs is None else tuple(outputs[i] for i in self.outputs)

    def targets_of(self, targets: Targets | None) -> Targets | None:
        """The targets of this part; None where there are none."""
        if targets is None or self.unlabelled:
            return None
        return targets if self.targets is None else targets[self.targets]


def parts_of(task: Task) -> tuple[TaskPart, ...]:
    """The parts of a task: `task.parts` of a model with several outputs, else the task itself."""
    parts: tuple[TaskPart, ...] | None = getattr(task, "parts", None)
    return parts or (TaskPart("", task),)
