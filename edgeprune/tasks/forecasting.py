"""Forecasting: the next H steps of one or several series.

Outputs and targets (samples, H) or (samples, H, V): steps, then variables. Measures over all steps: mean
absolute error, root mean squared error (of several variables each in units of its own spread), and the
symmetric mean absolute percentage error, 0..2. Loss and slopes are those of regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets
from edgeprune.tasks.numbers import TINY, FloatArray, mean_score, only, show
from edgeprune.tasks.regression import Regression


@dataclass(frozen=True, eq=False)
class Forecasting(Regression):
    """Steps ahead of one or several variables."""

    name: ClassVar[str] = "forecasting"
    measures: ClassVar[dict[str, Measure]] = {
        "mae": Measure("mean absolute error", "error"), "rmse": Measure("root mean squared error", "error"),
        "smape": Measure("symmetric mean absolute percentage error", "error"),
    }  # fmt: skip

    def axis(self, values: Any) -> int:
        """Variables are the third axis; without one there is one variable."""
        return 2

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """As regression, for steps and variables only."""
        out = only(outputs, self.name)
        if out.ndim not in (2, 3):
            raise DataError(
                f"task forecasting takes outputs (samples, steps) or (samples, steps, variables), the"
                f" model's are {show(out)}"
            )
        super().check(outputs, targets, source, varied=varied)

    def _measured(self, residual: FloatArray, out: FloatArray, targets: FloatArray) -> Score:
        if self.chosen != "smape":
            return super()._measured(residual, out, targets)
        unit = self.scales[0].spread if self.scales and len(self.scales[0].spread) > 1 else np.ones(1)
        size = np.abs(out / unit) + np.abs(targets)
        with np.errstate(invalid="ignore"):
            ratio = np.where(np.isfinite(size), 2 * np.abs(residual) / (size + TINY), 2.0)
        return mean_score(ratio.mean(axis=(1, 2)))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """None: a forecast is no class."""
        return None
