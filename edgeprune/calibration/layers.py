"""The statistics that criteria and sensitivity read, as plain NumPy arrays.

Slopes: g_j is the derivative of the loss by output j at one position, under labels drawn
from the model itself (no labels needed). Half of E[Σ_positions (g·e)²] is, to second
order, the expected increase of the loss in nats when the output is wrong by e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.calibration.samples import SAMPLES_FIRST, SampleAxis
from edgeprune.coupling.components import Couplings, Layer
from edgeprune.data import Dataset
from edgeprune.tasks.base import Task

FULL_COVARIANCE = 4096  # channels; above, a layer keeps diagonals only (8·C² bytes otherwise)
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ActivationMoments:
    """Mean (F,) and second moment (F, F) of input patches; features are inputs × taps, inputs first."""

    mean: FloatArray
    second: FloatArray
    rows: int

    @property
    def covariance(self) -> FloatArray:
        """Covariance over sampled positions, shape (F, F)."""
        return self.second - np.outer(self.mean, self.mean)


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer with I inputs and O outputs over N samples.

    mean (I,); second (I, I) = E[x xᵀ] over samples and positions, or (I,) = E[x²] above
    FULL_COVARIANCE inputs; reduced (N, I) float32, mean over positions; taylor (I,) =
    E|Σ x·∂L/∂x|; slopes (O, O) = E[Σ_positions g gᵀ], or its diagonal (O,) above
    FULL_COVARIANCE outputs; output_std (O,) of the layer's output; patches: of whole kernel
    windows, None for one tap and where they are too large; samples: where they are in what the
    layer reads; count and positions: how many samples, and positions of all of them, were read.
    Where the samples cannot be told (a value that no sample enters) samples, reduced and taylor are
    None and only moments over positions are known.
    """

    mean: FloatArray
    second: FloatArray
    reduced: npt.NDArray[np.float32] | None
    taylor: FloatArray | None
    slopes: FloatArray
    output_std: FloatArray
    patches: ActivationMoments | None = None
    samples: SampleAxis | None = SAMPLES_FIRST
    count: int = 1
    positions: int = 1

    @property
    def covariance(self) -> FloatArray:
        """Covariance over positions, shape (I, I); diagonal where only variances were kept."""
        if self.second.ndim == 1:
            return np.diag(self.second - self.mean**2)
        return self.second - np.outer(self.mean, self.mean)

    @property
    def power(self) -> FloatArray:
        """E[x²] of each input, shape (I,)."""
        return self.second if self.second.ndim == 1 else np.ascontiguousarray(np.diag(self.second))

    @property
    def fisher(self) -> FloatArray:
        """Fisher weight of each output, E[Σ_positions g_j²], shape (O,)."""
        return self.slopes if self.slopes.ndim == 1 else np.ascontiguousarray(np.diag(self.slopes))


@dataclass(frozen=True)
class StatisticsSource:
    """The samples that statistics were taken on, and the task that judged the outputs."""

    dataset: Dataset
    indices: npt.NDArray[np.int64]
    task: Task


@dataclass(frozen=True)
class Statistics:
    """Per layer (by node name), with the classes that scoring used; None where the task has none.

    other_readings: shape (count,), nats per sample that silencing a component costs at what
    reads it besides the mixing layers, ½·E[(Σ w·∂L/∂w)²] over those weights; for a component
    that nothing reads through a weight, over the weights that write it. source: for
    criteria that train on the samples.
    """

    layers: dict[str, LayerStatistics]
    labels: npt.NDArray[np.int64] | None
    label_source: str
    samples: int
    other_readings: FloatArray
    source: StatisticsSource | None = None


def mixing_layers(couplings: Couplings) -> list[Layer]:
    """Layers whose weight reads channels one by one."""
    return [layer for layer in couplings.layers if layer.groups == 1 and layer.weight is not None]
