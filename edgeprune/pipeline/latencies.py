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
from typing import Any

from edgeprune import latency
from edgeprune.bench import run_bench
from edgeprune.coupling.components import Couplings
from edgeprune.device.remote import Device, device_bench
from edgeprune.errors import BenchError
from edgeprune.model.trace import Trace
from edgeprune.pipeline.options import Clock, Options
from edgeprune.planning.groups import Cost
from edgeprune.records import BenchResult, Target
from edgeprune.store import RunFolder
from edgeprune.targets import load_target

DENSE_SECONDS, TAIL_SECONDS = 2.0, 10.0  # the second where a 99th percentile is asked for
NETWORKS = 40  # sets of widths that a profile made in passing runs
Timer = Callable[[Sequence[Path], float], BenchResult]  # files, seconds


@dataclass(frozen=True)
class Latency:
    """How a removal is priced in milliseconds; `timer` times whole models, None with no board at hand.

    `dense_ms` is of the dense file, batch 1: measured where there is a timer, else as the profile recorded
    or the estimate has it. `dense_p99_ms` is None where it was not asked for.
    """

    basis: str  # "measured" or "estimate"
    source: str
    predict: Callable[[Trace, Couplings], Cost]
    dense_ms: float
    dense_p99_ms: float | None
    timer: Timer | None
    notes: tuple[str, ...] = ()


def open_latency(
    traced: Trace,
    couplings: Couplings,
    dense: Path,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    device: Device | None,
) -> Latency | None:
    """The prediction that a run plans with; None where neither the budget nor the search needs one.

    Args:
        dense: the dense ONNX file.

    Raises:
        BenchError, DeviceError: a profile of something else; a board that cannot be timed; a deadline
            without a board to see the dense network's own tail on.
    """
    budget = options.budget
    if not (budget.timed or (options.objective == "latency" and not budget.sized)):
        return None
    target = load_target(options.target)
    timer = _timer(target, device, options)
    if options.profile is None and timer is None:
        return _estimated(traced, couplings, target, options)
    with clock.stage("latency profile"):
        try:
            profile, notes, timer = _profile(traced, couplings, target, options, folder, clock, device, timer)
        except BenchError as error:
            if budget.timed or options.profile is not None:
                raise
            clock.progress.note(f"planned by MACs: no latency profile ({error.message})")
            return None
        dense_ms, p99 = profile.dense_ms.value, None
        if timer is not None and budget.timed:
            found = timer([dense], TAIL_SECONDS if budget.deadline_ms else DENSE_SECONDS).models[0]
            assert found.p50_ms is not None
            dense_ms = found.p50_ms.value
            p99 = found.p99_ms.value if found.p99_ms else None
    if budget.deadline_ms is not None and p99 is None:
        raise BenchError(
            f"--deadline-ms {budget.deadline_ms:g}: a 99th percentile needs a board to measure it on, and 662"
            " inferences in ten seconds",
            tip="name one with --device, or ask for a median with --target-ms",
        )

    def predict(network: Trace, parts: Couplings) -> Cost:
        return latency.cost_of(profile, network, parts)

    return Latency("measured", profile.source, predict, dense_ms, p99, timer, notes)


def _timer(target: Target, device: Device | None, options: Options) -> Timer | None:
    """What times whole models of this run, if there is a board at hand that times mean something on."""
    timing: dict[str, Any] = {"threads": options.threads, "seed": options.seed, "probes": 0}
    if device is not None:
        arch = None if target.local else target.arch
        if device.preflight().get("emulated"):
            return None
        return lambda paths, seconds: device_bench(
            device, paths, seconds=seconds, architecture=arch, **timing
        )
    if target.local:
        return lambda paths, seconds: run_bench(paths, seconds=seconds, **timing)
    return None


def _profile(
    traced: Trace,
    couplings: Couplings,
    target: Target,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    device: Device | None,
    timer: Timer | None,
) -> tuple[latency.Profile, tuple[str, ...], Timer | None]:
    """The profile, what to know of it, and the timer where the board is the profiled one."""
    if options.profile is None:
        profile = latency.profile_model(
            traced, couplings, target=target, path=folder.path / "profile.json", device=device,
            threads=options.threads, networks=NETWORKS, seconds=options.profile_seconds, seed=options.seed,
            progress=clock.progress.step,
        )  # fmt: skip
        return profile, latency.check(profile), timer
    profile = latency.read_profile(Path(options.profile))
    notes = latency.check(profile, target=None if target.local else target, threads=options.threads)
    if timer is None:
        return profile, (*notes, f"planned from a file, with no board at hand: {profile.source}"), None
    latency.check(profile, threads=options.threads, machine=_machine(traced, timer, folder))
    return profile, notes, timer


def _machine(traced: Trace, timer: Timer, folder: RunFolder) -> dict[str, Any]:
    """Facts of the board that the timer runs on, as the runner gives them."""
    return timer([folder.path / "dense.onnx"], 0.2).machine


def _estimated(traced: Trace, couplings: Couplings, target: Target, options: Options) -> Latency:
    """The descriptor's roofline."""
    found = latency.roofline(target, traced, couplings)

    def predict(network: Trace, parts: Couplings) -> Cost:
        return latency.roofline(target, network, parts)

    if options.budget.deadline_ms is not None:
        raise BenchError(
            f"--deadline-ms {options.budget.deadline_ms:g}: a roofline knows no 99th percentile",
            tip="name a board with --device, or ask for --speedup",
        )
    return Latency("estimate", found.source, predict, found.dense, None, None)
