"""Judge outputs channel by channel, each by its own range.

    allowed = allowed_gap(reference, rtol)          broadcastable to the output's shape
    losses = channel_losses(float_calls, int8_calls)

A detector's output may hold boxes up to 640 beside scores up to 1. By one tolerance for the output, scores
that are all wrong pass; so a channel is compared by its own largest value.
Which axis holds channels is not known: axis 1, and the last one of sequences and of channels-last maps.

Guarantee: a channel that differs by more than ALIKE times `rtol` of its own range never passes, float noise
of the widest channel (NOISE) excepted. Elsewhere: what follows from a judgement (parity, quantisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
# A channel that is small by chance, among others of its kind, shares their rounding errors: up to this
# factor the range of the widest channel counts. Boxes and scores are further apart.
ALIKE = 8.0
NOISE = 1e-6  # of the widest channel: what float32 sums of that size leave in any channel
LEAST_VALUES = 8  # of a channel, for a variance to mean something
STILL = 1e-6  # of an output's largest value: a channel that varies less is constant


@dataclass(frozen=True)
class ChannelLoss:
    """How much of a channel's own variance was lost: mean square difference by variance.

    axis, index: which channel; axis None for an output that is judged as one. collapsed: the channel varied
    and is constant now.
    """

    axis: int | None
    index: int
    share: float
    collapsed: bool

    @property
    def place(self) -> str:
        """The channel in words."""
        return "" if self.axis is None else f"index {self.index} of axis {self.axis}"


def channel_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes that may hold channels; none for a vector of samples."""
    if len(shape) < 2:
        return ()
    last = len(shape) - 1
    more = len(shape) == 3 or (len(shape) > 3 and shape[last] < shape[1])
    return (1, last) if more else (1,)


def allowed_gap(
    reference: npt.NDArray[Any], rtol: float, ranges: npt.NDArray[Any] | None = None
) -> FloatArray:
    """Largest allowed absolute difference, shape broadcastable to `reference`'s.

    Args:
        reference: one output, finite. ranges: absolute values that ranges are taken from instead, as of
            several calls; of as many channels.
        rtol: as a share of a channel's largest absolute value.
    """
    size = np.abs(np.asarray(reference if ranges is None else ranges, np.float64))
    widest = size.max(initial=0.0)
    allowed = np.full((1,) * size.ndim, rtol * widest)
    for axis in channel_axes(size.shape):
        peak = size.max(axis=tuple(d for d in range(size.ndim) if d != axis), keepdims=True, initial=0.0)
        channel = np.maximum(rtol * np.minimum(ALIKE * peak, widest), NOISE * widest)
        allowed = np.minimum(allowed, channel)
    return allowed


def channel_losses(
    expected: Sequence[npt.NDArray[Any]], actual: Sequence[npt.NDArray[Any]]
) -> list[ChannelLoss]:
    """The loss of every channel of one output over calls; channels that are constant in `expected` left out.

    An output whose channels hold too few values, or whose shape changes between calls, is judged as one.
    """
    calls = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(expected, actual, strict=True)
    ]
    largest = max((float(np.abs(a).max(initial=0.0)) for a, _ in calls), default=0.0)
    losses: list[ChannelLoss] = []
    for axis in channel_axes(calls[0][0].shape):
        if len({a.shape[axis] for a, _ in calls}) == 1:
            sides = [np.concatenate([_by_channel(call[side], axis) for call in calls], 1) for side in (0, 1)]
            losses += _losses(sides[0], sides[1], axis, largest)
    if not losses:
        sides = [np.concatenate([call[side].reshape(1, -1) for call in calls], 1) for side in (0, 1)]
        losses = _losses(sides[0], sides[1], None, largest)
    return losses


def _by_channel(values: FloatArray, axis: int) -> FloatArray:
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _losses(expected: FloatArray, actual: FloatArray, axis: int | None, largest: float) -> list[ChannelLoss]:
    if axis is not None and expected.shape[1] < LEAST_VALUES:
        return []
    variance, now = expected.var(axis=1), actual.var(axis=1)
    error = ((expected - actual) ** 2).mean(axis=1)
    return [
        ChannelLoss(axis, int(n), float(error[n] / variance[n]), bool(now[n] < 1e-3 * variance[n]))
        for n in np.flatnonzero(np.sqrt(variance) > STILL * largest)
    ]
