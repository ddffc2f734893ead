"""Outputs that nobody named: every output counts, each channel by its own variance.

This task is used where no task was named and none can be inferred. It needs no targets, knows no classes
and cannot be fooled by outputs of unlike range or by an output that no longer varies. `ContinuousTask` is
also the ground on which regression, forecasting and embedding stand.

Agreement of a sample: 1 − min(1, mean over channels of squared error / variance), the variance over samples
and positions of the dense model; of several outputs the worst counts. Channels that do not vary are
compared by equality.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets, Tensors
from edgeprune.tasks.numbers import (
    FloatArray,
    broadcast_along,
    channel_axis,
    explained_variance,
    mean_score,
    normal_like,
    require_finite,
    show,
    spread_of,
    tensor_channels,
    tensor_spread,
)  # fmt: skip

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """The axis of an output's channels and the spread of each, shape (channels,)."""

    axis: int
    spread: FloatArray


@dataclass(frozen=True, eq=False)
class ContinuousTask:
    """Outputs are numbers, each channel in its own unit.

    Attributes:
        chosen: the name of the measure, one of `measures`.
        scales: one per output, set by `fitted`; without them each batch's own spread is used.
    """

    name: ClassVar[str] = "continuous"
    measures: ClassVar[dict[str, Measure]] = {}
    agreement_measure: ClassVar[Measure] = Measure("variance of the dense model explained, per sample")
    chosen: str = ""
    scales: tuple[ChannelScale, ...] = ()

    def __post_init__(self) -> None:
        if self.chosen and self.chosen not in self.measures:
            raise DataError(
                f"task {self.name} has no measure {self.chosen}", tip=f"it has {', '.join(self.measures)}"
            )

    @property
    def measure(self) -> Measure:
        """The measure chosen, or the first."""
        return self.measures[self.chosen or next(iter(self.measures))]

    def axis(self, values: Any) -> int:
        """The axis of the channels of one output."""
        return channel_axis(np.asarray(values))

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same task, knowing the spread of every channel of these outputs."""
        axes = [self.axis(out) for out in outputs]
        return replace(
            self,
            scales=tuple(ChannelScale(a, spread_of(out, a)) for out, a in zip(outputs, axes, strict=True)),
        )

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Squared error by each channel's variance: the mean over channels, then over outputs."""
        import torch

        parts = []
        for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            if theirs.is_floating_point():
                a, b, spread = self._normalised(index, ours, theirs)
                parts.append((((a - b) / spread) ** 2).mean())
        return torch.stack(parts).mean() if parts else torch.zeros(())

    def divergence(self, outputs: Tensors, dense: Tensors) -> float:
        """`distil` as a number: the share of the variance that is wrong."""
        return float(self.distil(outputs, dense).detach())

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """∂/∂outputs of Σ (output − target)² / 2σ² with σ the channel's spread.

        Drawn targets are Gaussian about the outputs, so the slopes are standard normal numbers over σ:
        channels of unlike range count equally.
        """
        import torch

        drawn = []
        for index, out in enumerate(outputs):
            if not out.is_floating_point():
                drawn.append(torch.zeros_like(out))
                continue
            axis, spread = self._scale(index, out)
            drawn.append(normal_like(out, generator) / broadcast_along(spread, out, axis))
        if targets is None:
            return tuple(drawn), tuple(drawn)
        return tuple(drawn), self._given(outputs, targets)

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """The share of the variance that each sample reproduces; the worst output counts."""
        shares = []
        for index, (ours, theirs) in enumerate(zip(outputs, dense, strict=True)):
            shares.append(explained_variance(ours, theirs, self.scales[index].axis if self.scales else None))
        return mean_score(np.min(shares, axis=0))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """None: numbers are no classes."""
        return None

    def _given(self, outputs: Tensors, targets: Targets) -> Tensors:
        """Slopes under targets of the outputs' shape, which only a model with one output has."""
        import torch

        out = outputs[0]
        axis, spread = self._scale(0, out)
        values = torch.as_tensor(np.asarray(targets)).to(out.device, out.dtype).reshape(out.shape)
        first = (out.detach() - values) / broadcast_along(spread, out, axis) ** 2
        return (first, *(torch.zeros_like(other) for other in outputs[1:]))

    def _scale(self, index: int, reference: torch.Tensor) -> tuple[int, torch.Tensor]:
        """The axis and spread of an output's channels: as fitted, else of this batch."""
        import torch

        if self.scales:
            scale = self.scales[index]
            spread = torch.from_numpy(scale.spread).to(reference.device, torch.float32)
            return scale.axis, spread.to(reference.dtype)
        axis = self.axis(reference.detach().float().cpu().numpy())
        return axis, tensor_spread(reference, axis).to(reference.dtype)

    def _normalised(
        self, index: int, ours: torch.Tensor, theirs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        axis, spread = self._scale(index, theirs)
        return tensor_channels(ours, axis), tensor_channels(theirs, axis), spread


@dataclass(frozen=True, eq=False)
class Generic(ContinuousTask):
    """Every output, each channel by its own variance."""

    name: ClassVar[str] = "generic"
    measures: ClassVar[dict[str, Measure]] = {"explained": Measure("variance explained per sample")}

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse outputs that never vary: nothing could be told from them."""
        for index, out in enumerate(outputs):
            if out.dtype.kind == "f" and np.isnan(out).any():
                require_finite(out, f"{source}: output {index}", "output")
        if varied and len(outputs[0]) > 1 and all((out == out[:1]).all() for out in outputs):
            raise DataError(
                f"{source}: the dense model's outputs are the same for all {len(outputs[0])} samples;"
                " agreement with it says nothing",
                tip="give varied data, with the preprocessing that the model was trained with",
            )
        if targets is not None:
            self._of_shape(outputs[0], targets, source)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Squared error against targets of the first output's shape, by each channel's variance."""
        import torch

        values = torch.as_tensor(np.asarray(targets)).to(outputs[0].device, outputs[0].dtype)
        a, b, spread = self._normalised(0, outputs[0], values.reshape(outputs[0].shape))
        return (((a - b) / spread) ** 2).mean()

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The share of the targets' variance that the first output explains."""
        self._of_shape(outputs[0], targets, "targets")
        return mean_score(
            explained_variance(outputs[0], np.asarray(targets, outputs[0].dtype).reshape(outputs[0].shape))
        )

    def _of_shape(self, out: Any, targets: Targets, source: str) -> None:
        if not isinstance(targets, np.ndarray) or targets.shape[1:] != out.shape[1:]:
            raise DataError(
                f"{source}: task generic compares outputs with targets of their shape; outputs are"
                f" {show(out)}, targets {show(targets)}",
                tip="name the task with --task",
            )
