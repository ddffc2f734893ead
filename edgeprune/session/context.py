"""What every stage of one run is handed: its options, run folder, clock and measurement target."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock, Progress
from edgeprune.store import RunFolder


@dataclass(frozen=True)
class RunContext:
    """Travels through the stages unchanged."""

    options: Options
    folder: RunFolder
    clock: Clock
    target: MeasurementTarget

    @property
    def progress(self) -> Progress:
        """Where stages report."""
        return self.clock.progress
