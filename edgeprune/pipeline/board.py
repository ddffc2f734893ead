"""Where a run's latency is measured: on a device over ssh, else on this machine.

Guarantee: `measures_target` is true only where times of this board are times of the target; an
emulated device has none. Elsewhere: the runner and its statistics (bench), the connection (device).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.bench import run_bench
from edgeprune.device.remote import Device, device_bench
from edgeprune.pipeline.options import Options
from edgeprune.records import BenchResult, Target
from edgeprune.targets import load_target


@dataclass(frozen=True)
class Board:
    """A target with what can be timed in its name; `device` None is this machine."""

    target: Target
    device: Device | None
    threads: int
    seed: int

    @property
    def measures_target(self) -> bool:
        """Whether a time taken here is a time of the target."""
        if self.device is None:
            return self.target.local
        return not self.device.preflight().get("emulated")

    def profiled(self) -> Target:
        """The target as a profile names it: with a device and no --target, what the device says it is."""
        if self.device is None or not self.target.local:
            return self.target
        return replace(self.target, arch=self.device.preflight()["architecture"])

    def time(self, paths: Sequence[Path], seconds: float, *, probes: int = 0) -> BenchResult:
        """Let files take turns for `seconds`; batch 1.

        Raises:
            BenchError, DeviceError: a file or the device is not fit.
        """
        if self.device is None:
            return run_bench(paths, threads=self.threads, seed=self.seed, seconds=seconds, probes=probes)
        arch = None if self.target.local else self.target.arch
        return device_bench(
            self.device, paths, threads=self.threads, seed=self.seed, seconds=seconds, probes=probes,
            architecture=arch,
        )  # fmt: skip


def board_of(options: Options, device: Device | None) -> Board:
    """The board of a run.

    Raises:
        TargetError: an unknown target.
    """
    return Board(load_target(options.target), device, options.threads, options.seed)
