"""Regression: one or several numbers per sample, or a map of numbers (depth).

Outputs (samples,), (samples, 1), (samples, T) or a map; targets of the same shape up to axes of size 1.
Measures: mean absolute error (in the targets' unit; of several targets each in units of its own spread),
root mean squared error, and R² (the share of the targets' variance explained by the set, at least 0).
The loss is robust: quadratic within one spread of the targets, linear beyond (Huber 1964).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets, Tensors
from edgeprune.tasks.categorical import gradients
from edgeprune.tasks.generic import ChannelScale, ContinuousTask
from edgeprune.tasks.numbers import (
    FloatArray,
    as_channels,
    broadcast_along,
    mean_score,
    normal_like,
    only,
    require_finite,
    require_targets,
    set_score,
    show,
    spread_of,
    tensor_channels,
)  # fmt: skip

if TYPE_CHECKING:
    import torch

OUTLIER = 3.0  # standard deviations of the residuals beyond which a target's slope stops growing
LEAST_NOISE = 1e-2  # of the spread; a model that fits its data to the digit has no use for more
BINS = 16  # classes made of targets for discrete criteria


@dataclass(frozen=True, eq=False)
class Regression(ContinuousTask):
    """Numbers per sample.

    noise: standard deviation of the residuals per channel, set by `fitted` where targets are known; the
        spread of the targets otherwise.
    """

    name: ClassVar[str] = "regression"
    measures: ClassVar[dict[str, Measure]] = {
        "mae": Measure("mean absolute error", "error"), "rmse": Measure("root mean squared error", "error"),
        "r2": Measure("R²"),
    }  # fmt: skip
    noise: FloatArray | None = field(default=None)

    @property
    def measure(self) -> Measure:
        """The measure chosen; errors of several targets are in units of each target's spread."""
        measure = self.measures[self.chosen or next(iter(self.measures))]
        several = bool(self.scales) and len(self.scales[0].spread) > 1 and measure.kind == "error"
        return replace(measure, name=f"{measure.name} by each target's spread") if several else measure

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same task, knowing the spread of the targets (else of the outputs) and of the residuals.

        Args:
            targets: of the same samples.
        """
        out = only(outputs, self.name)
        axis = self.axis(out)
        if targets is None:
            return replace(self, scales=(ChannelScale(axis, spread_of(out, axis)),), noise=None)
        values = np.asarray(targets, np.float64).reshape(out.shape)
        spread = spread_of(values, axis)
        residual = as_channels(out, axis) - as_channels(values, axis)
        noise = np.sqrt((residual**2).mean(axis=(0, 1)))
        noise = np.clip(noise, LEAST_NOISE * spread, spread)
        return replace(self, scales=(ChannelScale(axis, spread),), noise=noise)

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse targets of another shape or type, NaN, and targets or outputs that never vary."""
        out = only(outputs, self.name)
        if out.dtype.kind != "f":
            raise DataError(f"task {self.name} takes outputs of floats, the model's are {out.dtype}")
        if targets is None:
            if varied and len(out) > 1 and (out == out[:1]).all():
                raise DataError(
                    f"{source}: the dense model's outputs are the same for all {len(out)} samples; agreement"
                    " with it says nothing"
                )
            return
        require_targets(targets, self.name, source)
        values = targets if isinstance(targets, np.ndarray) else np.zeros((0, 0, 0))
        if values.dtype.kind not in "biuf" or _squeezed(values) != _squeezed(out):
            raise DataError(
                f"{source}: {self.name} takes targets of the outputs' shape; outputs are {show(out)}, targets"
                f" {show(targets)}",
                tip="class numbers are --task classification, masks segmentation",
            )
        require_finite(values, source)
        if varied and (values == values[:1]).all():
            raise DataError(f"{source}: all {len(values)} targets are equal", tip="give varied data")

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Huber loss in units of each target's spread, the mean over samples, positions and channels."""
        import torch.nn.functional as F

        out = only(outputs, self.name)
        values = self._like(out, targets)
        axis, spread = self._scale(0, out if not self.scales else values)
        a, b = (tensor_channels(x, axis) / spread for x in (out, values))
        return F.smooth_l1_loss(a, b)

    def nll(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """Σ ρ((output − target) / σ), σ the residuals' deviation, ρ quadratic up to 3 and linear beyond."""
        import torch.nn.functional as F

        out = only(outputs, self.name)
        axis, sigma = self._noise(out)
        a, b = (tensor_channels(x, axis) / sigma for x in (out, self._like(out, targets)))
        return F.huber_loss(a, b, reduction="sum", delta=OUTLIER)

    def slopes(
        self, outputs: Tensors, targets: Targets | None, generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """∂nll/∂outputs under targets drawn from a Gaussian of the residuals' deviation, and those given."""
        out = only(outputs, self.name)
        axis, sigma = self._noise(out)
        values = out.detach() + normal_like(out, generator) * broadcast_along(sigma, out, axis)
        drawn = gradients(outputs, lambda leaves: self.nll(leaves, values))
        return drawn, drawn if targets is None else gradients(outputs, lambda x: self.nll(x, targets))

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The measure chosen; an output with NaN or infinity gives an infinite error and R² 0."""
        out = only(outputs, self.name)
        values = np.asarray(targets, np.float64).reshape(out.shape)
        axis = self.scales[0].axis if self.scales else self.axis(values)
        spread = self.scales[0].spread if self.scales else spread_of(values, axis)
        unit = spread if len(spread) > 1 else np.ones(1)
        a, b = as_channels(out, axis), as_channels(values, axis)
        with np.errstate(invalid="ignore", over="ignore"):
            residual = (a - b) / unit
        residual = np.where(np.isfinite(residual), residual, np.inf)
        return self._measured(residual, a, b / unit)

    def _measured(self, residual: FloatArray, out: FloatArray, targets: FloatArray) -> Score:
        """From arrays (samples, positions, channels), in units of the measure."""
        key = self.chosen or next(iter(self.measures))
        if key == "mae":
            return mean_score(np.abs(residual).mean(axis=(1, 2)))
        squares = (residual**2).mean(axis=(1, 2))
        if key == "rmse":
            return set_score(lambda at: float(np.sqrt(squares[at].mean())), len(squares))
        return set_score(_r_squared(residual, targets), len(squares))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """Bins of equal mass of the first principal axis of the targets (else of the outputs): at most 16."""
        from edgeprune.information import bin_targets

        out = only(outputs, self.name)
        values = out if targets is None else np.asarray(targets)
        rows = np.asarray(values, np.float64).reshape(len(values), -1)
        if len(rows) < 4 or not np.isfinite(rows).all():
            return None
        if rows.shape[1] > 1:
            rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-12)
            rows = rows @ np.linalg.svd(rows, full_matrices=False)[2][:1].T
        classes = bin_targets(rows[:, 0], bins=min(BINS, max(2, len(rows) // 8)))
        return classes if len(np.unique(classes)) > 1 else None

    def _like(self, out: torch.Tensor, targets: Targets) -> torch.Tensor:
        import torch

        return torch.as_tensor(targets).to(out.device, out.dtype).reshape(out.shape)

    def _noise(self, out: torch.Tensor) -> tuple[int, torch.Tensor]:
        import torch

        axis, spread = self._scale(0, out)
        if self.noise is None:
            return axis, spread
        return axis, torch.from_numpy(self.noise).to(out.device, torch.float32).to(out.dtype)


def _squeezed(values: npt.NDArray[Any]) -> tuple[int, ...]:
    """The shape of one sample without axes of size 1."""
    return tuple(size for size in values.shape[1:] if size != 1)


def _r_squared(residual: FloatArray, targets: FloatArray) -> Callable[[npt.NDArray[np.int64]], float]:
    """R² of some samples: 1 − Σ residual² / Σ (target − mean)², at least 0, the mean over channels."""

    def value(at: npt.NDArray[np.int64]) -> float:
        errors = (residual[at] ** 2).sum(axis=(0, 1))
        chosen = targets[at]
        total = ((chosen - chosen.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
        shares = np.where(total > 0, 1.0 - errors / np.where(total > 0, total, 1.0), errors == 0)
        return float(np.clip(shares, 0.0, 1.0).mean())

    return value
