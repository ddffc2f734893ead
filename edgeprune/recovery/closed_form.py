"""Removal with closed-form recovery: cut, refit what reads the removed channels, set batch norms right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.trace import Trace
from edgeprune.recovery.batchnorm import recalibrate
from edgeprune.recovery.compensate import Fit, compensate


def recover_closed_form(
    trace: Trace,
    couplings: Couplings,
    removed: BoolArray,
    calibration: Sequence[tuple[torch.Tensor, ...]],
) -> tuple[Trace, tuple[Fit, ...]]:
    """The trace without `removed`, refitted against the dense one on the calibration batches.

    Returns:
        The smaller network, not exported again yet, and one record per refitted layer.
    """
    smaller, fits = compensate(trace, couplings, removed, calibration)
    return recalibrate(smaller, calibration), fits
