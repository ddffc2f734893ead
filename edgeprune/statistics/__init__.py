"""What the capture pass collects, and how: records of layers, patches, further readings, sample axes."""

from __future__ import annotations

from edgeprune.statistics.layers import FULL_COVARIANCE, LayerStatistics, Moments, Statistics, mixing_layers
from edgeprune.statistics.samples import SampleAxis, sample_axes

__all__ = [
    "FULL_COVARIANCE",
    "LayerStatistics",
    "Moments",
    "SampleAxis",
    "Statistics",
    "mixing_layers",
    "sample_axes",
]
