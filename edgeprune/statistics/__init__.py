"""What the capture pass collects, and how: records of layers, input patches, further readings."""

from __future__ import annotations

from edgeprune.statistics.layers import FULL_COVARIANCE, LayerStatistics, Moments, Statistics, mixing_layers

__all__ = ["FULL_COVARIANCE", "LayerStatistics", "Moments", "Statistics", "mixing_layers"]
