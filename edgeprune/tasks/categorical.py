"""What tasks share that put one of C classes at every position of an output.

Cross-entropy, distillation by KL divergence, divergence in nats, and slopes: these follow from the
negative log-likelihood by automatic differentiation, so that loss and slopes cannot disagree.

A head with one column per decision (one logit) is a categorical one of the two logits 0 and x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Measure, Outputs, Targets, Tensors
from edgeprune.tasks.numbers import draw_classes, is_probabilities, only

if TYPE_CHECKING:
    import torch

TEMPERATURE = 2.0  # of distillation, Hinton et al. 2015
LEAST_PROBABILITY = 1e-7


def gradients(outputs: Tensors, function: Any) -> Tensors:
    """∂function/∂outputs, zero for outputs that it does not read and for outputs that are no floats."""
    import torch

    with torch.enable_grad():
        leaves = tuple(out.detach().requires_grad_(out.is_floating_point()) for out in outputs)
        value = function(leaves)
        read = [leaf for leaf in leaves if leaf.requires_grad]
        slopes = iter(torch.autograd.grad(value, read, allow_unused=True) if value.requires_grad else ())
    leaf_slopes = [next(slopes, None) if leaf.requires_grad else None for leaf in leaves]
    return tuple(
        torch.zeros_like(leaf).detach() if slope is None else slope.detach()
        for leaf, slope in zip(leaves, leaf_slopes, strict=True)
    )


@dataclass(frozen=True)
class CategoricalTask:
    """One of C classes at every position of the only output.

    Attributes:
        chosen: the name of the measure, one of `measures`.
        probabilities: the network ends in a softmax or sigmoid, so outputs are probabilities, not logits.
            Set by `fitted`.
        ignore: the class number of positions that do not count.
    """

    name: ClassVar[str] = "categorical"
    measures: ClassVar[dict[str, Measure]] = {}
    chosen: str = ""
    probabilities: bool = False
    ignore: int = -100

    def __post_init__(self) -> None:
        if self.chosen and self.chosen not in self.measures:
            raise DataError(
                f"task {self.name} has no measure {self.chosen}", tip=f"it has {', '.join(self.measures)}"
            )

    @property
    def measure(self) -> Measure:
        """The measure chosen, or the first."""
        return self.measures[self.chosen or next(iter(self.measures))]

    def axis(self, shape: tuple[int, ...]) -> int:
        """The axis of the classes."""
        return 1

    def numbers(self, targets: Targets, shape: tuple[int, ...]) -> Any:
        """Targets as class numbers of every position, in the outputs' order; an array or a tensor.

        Args:
            shape: of the output.
        """
        return targets

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same task, knowing whether these outputs are logits or probabilities."""
        out = only(outputs, self.name)
        axis = self.axis(out.shape)
        single = axis >= out.ndim or out.shape[axis] == 1
        shares = is_probabilities(out, None if single else axis)
        if shares and single and targets is not None:  # small logits lie in 0..1 too: the targets decide
            numbers = np.asarray(self.numbers(targets, out.shape)).reshape(out.shape)
            shares = ((out > 0.5) == (numbers == 1)).mean() >= ((out > 0) == (numbers == 1)).mean()
        return replace(self, probabilities=bool(shares))

    def rows(self, out: torch.Tensor) -> torch.Tensor:
        """Logits of shape (samples, positions, classes), in float32 at least."""
        import torch

        values = out.float() if out.dtype in (torch.float16, torch.bfloat16) else out
        axis = self.axis(tuple(out.shape))
        moved = values.movedim(axis, -1) if axis < values.dim() else values[..., None]
        if moved.shape[-1] == 1:
            moved = self._two_logits(moved)
        elif self.probabilities:
            moved = moved.clamp_min(LEAST_PROBABILITY).log()
        return moved.reshape(len(out), -1, moved.shape[-1])

    def _two_logits(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        if self.probabilities:
            values = torch.logit(values, eps=LEAST_PROBABILITY)
        return torch.cat([torch.zeros_like(values), values], dim=-1)

    def decide(self, out: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The class decided at every position: the output's shape without the axis of the classes."""
        axis = self.axis(out.shape)
        if axis >= out.ndim or out.shape[axis] == 1:
            threshold = 0.5 if self.probabilities else 0.0
            positive = np.asarray(out > threshold, dtype=np.int64)
            return positive if axis >= out.ndim else positive.squeeze(axis)
        return np.asarray(out.argmax(axis=axis), dtype=np.int64)

    def nll(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Cross-entropy summed over the positions that count."""
        return self._cross_entropy(outputs, self._numbers(outputs, targets))

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Cross-entropy, the mean over the positions that count."""
        numbers = self._numbers(outputs, targets)
        return self._cross_entropy(outputs, numbers) / max(1, int((numbers != self.ignore).sum()))

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """∂nll/∂outputs, with the class of every position drawn, and with the classes given."""
        numbers = draw_classes(self.rows(only(outputs, self.name)).log_softmax(-1), generator).reshape(-1)
        drawn = gradients(outputs, lambda leaves: self._cross_entropy(leaves, numbers))
        if targets is None:
            return drawn, drawn
        return drawn, gradients(outputs, lambda leaves: self.nll(leaves, targets))

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """T² · KL(teacher ‖ student) at temperature T = 2, the mean over positions."""
        ours, theirs = (self.rows(only(x, self.name)) / TEMPERATURE for x in (student, teacher))
        return _kl(ours, theirs) * TEMPERATURE**2

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """KL(dense ‖ outputs) in nats, the mean over positions."""
        return float(_kl(self.rows(only(outputs, self.name)), self.rows(only(dense, self.name))).detach())

    def _numbers(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        out = only(outputs, self.name)
        return as_tensor(self.numbers(targets, tuple(out.shape)), out).long().reshape(-1)

    def _cross_entropy(self, outputs: Tensors, numbers: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        rows = self.rows(only(outputs, self.name))
        return F.cross_entropy(
            rows.reshape(-1, rows.shape[-1]), numbers, ignore_index=self.ignore, reduction="sum"
        )


def as_tensor(values: Any, like: torch.Tensor) -> torch.Tensor:
    """A tensor on the device of `like`."""
    import torch

    return torch.as_tensor(values).to(like.device)


def _kl(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    p = theirs.log_softmax(-1)
    return (p.exp() * (p - ours.log_softmax(-1))).sum(-1).mean()
