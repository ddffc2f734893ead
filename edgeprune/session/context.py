"""What every stage of one run is handed: its options, run folder, clock and measurement target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeprune.graph.compute import Compute, open_compute
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock, Progress
from edgeprune.store import RunFolder


@dataclass(frozen=True)
class RunContext:
    """Travels through the stages unchanged. train: the user's own training, in place of fine-tuning."""

    options: Options
    folder: RunFolder
    clock: Clock
    target: MeasurementTarget
    train: Callable[[Any, Any, Any], Any] | None = None

    @property
    def compute(self) -> Compute:
        """Where data are computed."""
        return open_compute(self.options.accelerator)

    @property
    def progress(self) -> Progress:
        """Where stages report."""
        return self.clock.progress
