"""Where a run's latency is measured: on a board over ssh, else on this machine.

Guarantee: `measures_target` is true only where times of this board are times of the target; an
emulated board has none. Elsewhere: the runner and its statistics (measure), the connection (deploy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deploy.identity import target_of
from edgeprune.deploy.remote import Board, board_bench
from edgeprune.latency import read_profile
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.records import BenchResult, Target
from edgeprune.session.options import Options
from edgeprune.targets import load_target


@dataclass(frozen=True)
class MeasurementTarget:
    """A target with what can be timed in its name; `board` is None for this machine.

    `described` is false where nothing is known of the board but its architecture.
    """

    descriptor: Target
    board: Board | None
    threads: int
    seed: int
    described: bool = True

    @property
    def measures_target(self) -> bool:
        """Whether a time taken here is a time of the target."""
        if self.board is None:
            return self.descriptor.local
        return not self.board.preflight().get("emulated")

    def time(self, paths: Sequence[Path], seconds: float, *, probes: int = 0) -> BenchResult:
        """Let files take turns for `seconds`; batch 1.

        Raises:
            BenchError, DeviceError: a file or the board is not fit.
        """
        request = BenchRequest(
            tuple(paths), threads=self.threads, seed=self.seed, seconds=seconds, probes=probes
        )
        if self.board is None:
            return run_bench(request)
        return board_bench(self.board, request, architecture=self.descriptor.arch)


def open_measurement_target(options: Options, board: Board | None) -> MeasurementTarget:
    """The board of a run. A board without a target named is looked up by what it says of itself.

    Threads that were not asked for are those of the profile to plan with, those that the descriptor of a
    board recommends, as far as it has cores, or one.

    Raises:
        TargetError: an unknown target. BenchError: a damaged profile.
        DeviceError: a board that is not fit, or is not the target.
    """
    named = load_target(options.target)
    target, described, threads = named, True, 1
    if board is not None:
        facts = board.require_fit(None if named.local else named.arch)
        target = target_of(board, named)
        described = target.core != "unknown"
        threads = min(target.threads, facts["cores"])
    if options.profile is not None:
        threads = read_profile(Path(options.profile)).threads
    return MeasurementTarget(target, board, options.threads or threads, options.seed, described)
