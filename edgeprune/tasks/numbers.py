"""Helpers that tasks share: shapes in words, channels and their spread, draws, one class per sample.

Arrays and tensors come batch first. torch is imported by whoever passes tensors, never here at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Outputs, PerSample, Score

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
TINY = 1e-12
SHOWN = 6  # shapes in one message
AT_ONCE = 1 << 22  # numbers compared at a time, in float64


def show(value: Any) -> str:
    """The shape of an output or of targets, for messages."""
    if isinstance(value, np.ndarray) or hasattr(value, "shape"):
        return "×".join(map(str, value.shape)) or "()"
    return f"a {type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


def show_all(outputs: Sequence[Any]) -> str:
    """The shapes of all outputs."""
    listed = ", ".join(show(out) for out in outputs[:SHOWN])
    return listed + (f", … ({len(outputs)})" if len(outputs) > SHOWN else "")


def only(outputs: Sequence[Any], task: str) -> Any:
    """The output of a model that has one.

    Raises:
        DataError: several outputs; which of them the task means is for `multi` to say.
    """
    if len(outputs) != 1:
        raise DataError(
            f"task {task} takes one output, the model has {len(outputs)} ({show_all(outputs)})",
            tip="leave --task out, or give one task per output with edgeprune.tasks.multi.MultiTask",
        )
    return outputs[0]


def require_targets(targets: Any, task: str, source: str) -> None:
    """Refuse missing and empty targets."""
    if targets is None:
        raise DataError(f"{source}: task {task} needs targets, and the data have none")
    if len(targets) == 0:
        raise DataError(f"{source}: no samples", tip="give data with at least a few samples per class")


def require_finite(values: npt.NDArray[Any], source: str, what: str = "target") -> None:
    """Refuse NaN and infinity; the first sample is named."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    first = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
    kind = "NaN" if np.isnan(values[first]).any() else "infinity"
    raise DataError(
        f"{source}: the {what} of sample {first} holds {kind}", tip="remove or repair such samples"
    )


def finite_rows(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which samples have no NaN or infinity, shape (samples,)."""
    if values.dtype.kind not in "fc":
        return np.ones(len(values), dtype=bool)
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1), dtype=bool)


def is_probabilities(values: npt.NDArray[Any], axis: int | None = None) -> bool:
    """Whether scores lie in 0..1 and, with an axis, add up to one along it."""
    if values.dtype.kind != "f" or not values.size or values.min() < 0 or values.max() > 1:
        return False
    return axis is None or bool(np.allclose(values.sum(axis=axis), 1.0, atol=1e-3))


def mean_score(per_sample: PerSample) -> Score:
    """A score that is the mean over samples."""
    return Score(float(per_sample.mean()) if len(per_sample) else float("nan"), per_sample)


def set_score(of: Any, size: int) -> Score:
    """A score that exists for sets only; `of` takes indices of samples."""
    return Score(float(of(np.arange(size))), None, of)


def class_axis_shares(decided: npt.NDArray[np.int64], classes: int) -> FloatArray:
    """The share of each class among a sample's positions; negative entries are left out.

    Args:
        decided: shape (samples, positions).
    """
    shares = np.zeros((len(decided), classes))
    for row, values in enumerate(decided):
        counts = np.bincount(values[values >= 0], minlength=classes)[:classes]
        shares[row] = counts / max(1, counts.sum())
    return shares


def distinct_class(shares: FloatArray) -> Classes | None:
    """One class per sample: the one that the sample has most beyond the average over samples.

    None where that is the same class for all samples, so that it tells nothing.
    """
    if shares.shape[1] < 2 or not len(shares):
        return None
    classes: Classes = (shares - shares.mean(axis=0)).argmax(axis=1).astype(np.int64)
    return classes if len(np.unique(classes)) > 1 else None


def channel_axis(values: npt.NDArray[Any]) -> int:
    """The axis of an output whose entries have spreads of their own: never the samples' axis.

    One axis beside the samples is that of the channels, and with three or more the first one is (N, C, H, W).
    With two, (N, L, C) or (N, C, L), it is the one along which the spread differs more.
    """
    if values.ndim != 3:
        return min(1, values.ndim - 1)
    if 1 in values.shape[1:]:
        return 1 if values.shape[2] == 1 else 2
    deviation = []
    for axis, other in ((1, 2), (2, 1)):
        spread = np.log(values.astype(np.float64).var(axis=(0, other)) + TINY)
        deviation.append((float(spread.std()), axis))
    return max(deviation, key=lambda item: (round(item[0], 9), -item[1]))[1]


def as_channels(values: npt.NDArray[Any], axis: int) -> FloatArray:
    """Shape (samples, positions, channels), float64; an axis behind the last one is a channel of its own."""
    if values.ndim == 1:
        return values.astype(np.float64)[:, None, None]
    if axis == values.ndim:
        return values.reshape(len(values), -1, 1).astype(np.float64)
    moved = np.moveaxis(values, axis, -1)
    return moved.reshape(len(values), -1, moved.shape[-1]).astype(np.float64)


def tensor_channels(values: torch.Tensor, axis: int) -> torch.Tensor:
    """The same of a tensor, in its own type."""
    if values.dim() == 1:
        return values[:, None, None]
    if axis == values.dim():
        return values.reshape(len(values), -1, 1)
    moved = values.movedim(axis, -1)
    return moved.reshape(len(values), -1, moved.shape[-1])


def explained_variance(
    outputs: npt.NDArray[Any], reference: npt.NDArray[Any], axis: int | None = None
) -> PerSample:
    """Share of the reference's variance that each sample's outputs reproduce, shape (samples,), 0..1.

    1 − min(1, mean over channels of squared error / variance), the variance over samples and positions.
    A channel that does not vary in the reference is right where equal and wrong where not. A channel that
    varies with the samples in the reference and not in `outputs` has collapsed and agrees nowhere. Types
    other than float are compared by equality.
    """
    if outputs.shape != reference.shape:
        raise DataError(f"outputs of shape {show(outputs)} are compared with {show(reference)}")
    axis = channel_axis(reference) if axis is None else axis
    if reference.dtype.kind != "f":
        same = np.asarray(outputs == reference).reshape(len(outputs), -1)
        return same.mean(axis=1) if same.size else np.ones(len(outputs))
    step = max(1, AT_ONCE // max(1, reference[0].size)) if len(reference) else 1
    parts = [slice(start, start + step) for start in range(0, len(reference), step)]
    variance, varies = _variance(reference, axis, parts)
    if len(reference) > 1:
        varies_by_sample = _moves(reference, axis, parts)
        collapsed = varies & varies_by_sample & ~_moves(outputs, axis, parts)
    else:
        collapsed = np.zeros_like(varies)
    rows = []
    for part in parts:
        ours, theirs = as_channels(outputs[part], axis), as_channels(reference[part], axis)
        with np.errstate(invalid="ignore", over="ignore"):
            error = ((ours - theirs) ** 2).mean(axis=1) / np.where(varies, variance, 1.0)
            equal = (np.isclose(ours, theirs, rtol=1e-3, atol=1e-6) | (ours == theirs)).all(axis=1)
        error = np.where(varies, error, np.where(equal, 0.0, 1.0))
        error = np.where(np.isfinite(error) & ~collapsed, error, 1.0)
        rows.append(1.0 - np.minimum(1.0, error.mean(axis=1)))
    return np.concatenate([np.zeros(0), *rows]).astype(np.float64)


def _variance(
    values: npt.NDArray[Any], axis: int, parts: list[slice]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The variance of every channel over samples and positions, and whether it varies and is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        blocks = [as_channels(values[part], axis) for part in parts[:1]]
        count = max(1, len(values) * blocks[0].shape[1]) if blocks else 1
        mean = sum(as_channels(values[part], axis).sum(axis=(0, 1)) for part in parts) / count
        squares, largest = np.zeros_like(mean), np.zeros_like(mean)
        for part in parts:
            block = as_channels(values[part], axis)
            squares += ((block - mean) ** 2).sum(axis=(0, 1))
            largest = np.maximum(largest, np.abs(block).max(axis=(0, 1)))
        variance = squares / count
        known = np.isfinite(variance)
        varies = known & (variance > (1e-6 * largest) ** 2 + TINY**2)
    return np.where(known, variance, 0.0), varies


def _moves(values: npt.NDArray[Any], axis: int, parts: list[slice]) -> npt.NDArray[np.bool_]:
    """Whether a channel differs between samples at any position; NaN differs from everything."""
    first = as_channels(values[:1], axis)
    moving = np.zeros(first.shape[2], dtype=bool)
    for part in parts:
        moving |= (as_channels(values[part], axis) != first).any(axis=(0, 1))
    return moving


def spread_of(values: npt.NDArray[Any], axis: int) -> FloatArray:
    """Standard deviation of each channel over samples and positions; 1 where it does not vary."""
    rows = as_channels(values, axis)
    deviation = rows.reshape(-1, rows.shape[-1]).std(axis=0)
    largest = np.abs(rows).max(axis=(0, 1), initial=0.0)
    return np.where(deviation > 1e-6 * largest + TINY, deviation, 1.0)


def tensor_spread(values: torch.Tensor, axis: int) -> torch.Tensor:
    """The same of a tensor's batch."""
    import torch

    rows = tensor_channels(values.detach(), axis).float()
    rows = rows.reshape(-1, rows.shape[-1])
    deviation = rows.std(0, unbiased=False)
    return torch.where(deviation > 1e-6 * rows.abs().amax(0) + TINY, deviation, torch.ones_like(deviation))


def broadcast_along(spread: torch.Tensor, out: torch.Tensor, axis: int) -> torch.Tensor:
    """A value per channel, in the shape that multiplies with `out` along its channels."""
    if out.dim() == 1 or axis == out.dim():
        return spread.reshape(())
    return spread.reshape([-1 if dim == axis else 1 for dim in range(out.dim())])


def normal_like(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal draws on the CPU, so that every device gets the same ones."""
    import torch

    return torch.randn(values.shape, generator=generator, dtype=torch.float32).to(values.device, values.dtype)


def draw_classes(log_p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One class per row from log-probabilities (…, classes), by the inverse of the distribution function."""
    import torch

    shape = log_p.shape[:-1]
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64).to(log_p.device, torch.float32)
    steps = log_p.detach().float().exp().cumsum(-1)
    return (steps <= (uniform * steps[..., -1])[..., None]).sum(-1).clamp(max=log_p.shape[-1] - 1)


def as_arrays(outputs: Any) -> Outputs:
    """All outputs as a tuple of arrays; a single array becomes a tuple of one."""
    return (outputs,) if isinstance(outputs, np.ndarray) else tuple(np.asarray(out) for out in outputs)
