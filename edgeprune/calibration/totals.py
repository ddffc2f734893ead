"""Sums of one shard of samples as plain arrays, and how two shards are added.

    left + right            the sums of both, samples in that order
    totals.statistics()     what criteria read

Each shard's second moments are about an offset of its own; adding moves the right one's to the left one's
offset in float64. Floating-point addition is not associative: the bits of the result depend on the order of
additions, which `add_shards` fixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.calibration.layers import ActivationMoments, LayerStatistics
from edgeprune.calibration.samples import SampleAxis

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MomentTotals:
    """Sums of rows less `offset`: first (columns,), second (columns, columns) or its diagonal (columns,)."""

    n: int
    offset: FloatArray
    first: FloatArray
    second: FloatArray

    def __add__(self, other: MomentTotals) -> MomentTotals:
        move = other.offset - self.offset
        if other.second.ndim == 1:
            moved = other.second + 2 * move * other.first + other.n * move**2
        else:
            across = np.outer(other.first, move)
            moved = other.second + across + across.T + other.n * np.outer(move, move)
        first = other.first + other.n * move
        return MomentTotals(self.n + other.n, self.offset, self.first + first, self.second + moved)

    def means(self) -> tuple[FloatArray, FloatArray]:
        """E[x] and E[xxᵀ], or E[x²]."""
        offset = self.offset
        first, second = self.first / self.n, self.second / self.n
        if second.ndim == 1:
            return first + offset, second + 2 * first * offset + offset**2
        across = np.outer(first, offset)
        second = (second + second.T) / 2 + across + across.T + np.outer(offset, offset)
        return first + offset, second


@dataclass(frozen=True)
class LayerTotals:
    """Sums of one layer over `n` samples, see LayerStatistics; slopes and taylor are 0.0 where none were."""

    n: int
    positions: int
    inputs: MomentTotals
    outputs: MomentTotals
    patches: MomentTotals | None
    reduced: npt.NDArray[np.float32] | None
    slopes: FloatArray | float
    taylor: FloatArray | float
    axis: SampleAxis | None

    def __add__(self, other: LayerTotals) -> LayerTotals:
        patches = self.patches
        if patches is not None and other.patches is not None:
            patches = patches + other.patches
        reduced = self.reduced
        if reduced is not None and other.reduced is not None:
            reduced = np.concatenate([reduced, other.reduced])
        return LayerTotals(
            self.n + other.n,
            self.positions + other.positions,
            self.inputs + other.inputs,
            self.outputs + other.outputs,
            patches,
            reduced,
            self.slopes + other.slopes,
            self.taylor + other.taylor,
            self.axis,
        )

    def statistics(self) -> LayerStatistics:
        """The statistics of all samples."""
        mean, second = self.inputs.means()
        if self.reduced is not None:  # over all positions
            exact = self.reduced.sum(0, dtype=np.float64) / self.n
            moved = exact**2 - mean**2 if second.ndim == 1 else np.outer(exact, exact) - np.outer(mean, mean)
            mean, second = exact, second + moved
        out, out2 = self.outputs.means()
        taylor = np.broadcast_to(self.taylor, mean.shape) / self.n
        slopes = self.slopes if isinstance(self.slopes, np.ndarray) else np.zeros_like(out2)
        return LayerStatistics(
            mean,
            second,
            self.reduced,
            taylor if self.reduced is not None else None,
            slopes / self.n,
            np.sqrt(np.maximum(out2 - out**2, 0.0)),
            ActivationMoments(*self.patches.means(), self.patches.n) if self.patches is not None else None,
            self.axis,
            self.n,
            self.positions,
        )
