"""Where predicted milliseconds come from: a measured profile, or an estimate from a descriptor.

    --profile FILE       a profile that was written earlier, here or elsewhere
    --board, or host     a profile measured now, layer by layer, kept in the run folder
    another target       a roofline from its descriptor: an estimate, and called one

Guarantee: without a board at hand nothing is timed, and the report says so. Elsewhere: the
profile itself (latency), the loop that corrects a plan by timing whole models (plans).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune import latency
from edgeprune.coupling.components import Couplings, RemovalCost
from edgeprune.deploy.identity import require_board
from edgeprune.errors import BenchError
from edgeprune.graph.trace import Trace
from edgeprune.measure.tails import LIMIT, time_tail
from edgeprune.measure.timings import P99_SAMPLES
from edgeprune.records import ModelTiming
from edgeprune.session.context import RunContext
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.progress import Clock

DENSE_SECONDS, TAIL_SECONDS = 2.0, 10.0  # the second, at least, where a 99th percentile is asked for
NETWORKS = 40  # sets of widths that a profile made in passing runs
PROFILED = "predicted ms (profile)"


@dataclass(frozen=True)
class LatencyModel:
    """How a removal is priced in milliseconds; `timer` times whole models, None with no board at hand.

    `dense_ms` is of the dense file, batch 1: measured where there is a timer, else as the profile recorded
    or the estimate has it. `dense_p99_ms` is None where it was not asked for.
    An estimate's unit is its own, and may be no time at all.
    """

    basis: str  # "measured" or "estimate"
    source: str
    predict: Callable[[Trace, Couplings], RemovalCost]
    dense_ms: float
    dense_p99_ms: float | None
    timer: MeasurementTarget | None
    notes: tuple[str, ...] = ()


def open_latency(
    traced: Trace,
    couplings: Couplings,
    dense: Path,
    context: RunContext,
) -> LatencyModel | str | None:
    """The prediction that a run plans with, why there is none, or None where none is needed.

    What was timed of the dense file is a record of the run: a resumed run plans as it began.

    Args:
        dense: the dense ONNX file.

    Raises:
        BenchError, DeviceError: a profile of something else; a board that cannot be timed; a deadline
            without a board to see the dense network's own tail on.
    """
    options, folder, clock, board = context.options, context.folder, context.clock, context.target
    budget = options.budget
    if not (budget.timed or (options.objective == "latency" and not budget.sized)):
        return None
    if options.profile is None and not board.measures_target:
        return _estimated(traced, couplings, context)
    with clock.stage("latency profile"):
        try:
            profile, notes = _profile(traced, couplings, dense, context)
        except BenchError as error:
            if budget.timed or options.profile is not None:
                raise
            return f"planned by MACs: no latency profile ({error.message})"
        timed = folder.load("dense latency")
        if timed is None:
            timed = {"p50_ms": profile.dense_ms.value, "p99_ms": None}
            if board.measures_target and budget.timed:
                timing = _timed(board, dense, clock, tail=budget.deadline_ms is not None)
                assert timing.p50_ms is not None
                p99_ms = timing.p99_ms.value if timing.p99_ms else None
                timed = {"p50_ms": timing.p50_ms.value, "p99_ms": p99_ms}
            folder.save("dense latency", timed)
    if budget.deadline_ms is not None and timed["p99_ms"] is None:
        raise _no_tail(budget.deadline_ms, timed["p50_ms"], board)

    def predict(network: Trace, parts: Couplings) -> RemovalCost:
        return latency.latency_cost(profile, network, parts)

    timer = board if board.measures_target else None
    return LatencyModel("measured", profile.source, predict, timed["p50_ms"], timed["p99_ms"], timer, notes)


def _timed(board: MeasurementTarget, dense: Path, clock: Clock, *, tail: bool) -> ModelTiming:
    if not tail:
        return board.time([dense], DENSE_SECONDS).models[0]
    return time_tail(board.time, [dense], TAIL_SECONDS, clock.progress.note).models[0]


def _no_tail(deadline_ms: float, p50_ms: float, board: MeasurementTarget) -> BenchError:
    """Why the dense network's 99th percentile is not known."""
    asked = f"--deadline-ms {deadline_ms:g}"
    if not board.measures_target:
        return BenchError(
            f"{asked}: a 99th percentile needs a board to measure it on",
            tip="name one with --board, or ask for a median with --target-ms",
        )
    return BenchError(
        f"{asked}: an inference takes {p50_ms:.3g} ms here, and {P99_SAMPLES} of them, which a 99th"
        f" percentile needs, more than the {LIMIT:g} s that are spent on it",
        tip="ask for a median with --target-ms",
    )


def _profile(
    traced: Trace,
    couplings: Couplings,
    dense: Path,
    context: RunContext,
) -> tuple[latency.Profile, tuple[str, ...]]:
    """The profile, and notes for the report."""
    options, folder, clock, board = context.options, context.folder, context.clock, context.target
    if options.profile is None:
        profile = latency.profile_model(
            traced, couplings, target=board.descriptor, path=folder.path / "profile.json",
            board=board.board, threads=board.threads, networks=NETWORKS,
            seconds=options.profile_seconds, seed=options.seed, progress=clock.progress.step,
        )  # fmt: skip
        return profile, _said(latency.check_compatibility(profile))
    profile = latency.read_profile(Path(options.profile))
    latency.require_network(profile, traced, couplings)
    target = None if board.descriptor.local or not board.described else board.descriptor
    notes = latency.check_compatibility(profile, target=target, threads=board.threads)
    if not board.measures_target:
        return profile, _said(
            (*notes, f"planned from a profile file, with no board connected: {profile.source}")
        )
    here = board.time([dense], 0.2).machine
    doubts = () if board.board is None or target is None else require_board(board.board, target)
    notes = latency.check_compatibility(profile, target=target, threads=board.threads, machine=here)
    return profile, _said((*doubts, *notes))


def _said(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"profile: {note}" for note in notes)


def _estimated(traced: Trace, couplings: Couplings, context: RunContext) -> LatencyModel:
    """The descriptor's roofline, or instruction counts of the emulated core where they were asked for."""
    options, clock = context.options, context.clock
    budget, target = options.budget, context.target.descriptor
    counted = options.estimate == "instructions"
    who = "instruction counts know" if counted else "a roofline knows"
    for name, value in (("deadline", budget.deadline_ms), ("target", budget.target_ms if counted else None)):
        if value is not None:
            what = "99th percentile" if name == "deadline" else "milliseconds"
            raise BenchError(
                f"--{name}-ms {value:g}: {who} no {what}",
                tip="name a board with --board, or ask for --speedup",
            )
    if not counted:
        analytic = latency.roofline(target, traced, couplings)

        def predict(network: Trace, parts: Couplings) -> RemovalCost:
            return latency.roofline(target, network, parts)

        return LatencyModel("estimate", analytic.source, predict, analytic.dense, None, None)
    if target.emulated_cpu is None:
        raise BenchError(
            f"--estimate instructions: there is no emulated core for {target.name}", tip="use the roofline"
        )
    with clock.stage("instruction counts"):
        counts = latency.instruction_prices(traced, couplings, target.emulated_cpu, seed=options.seed,
                               progress=clock.progress.step)  # fmt: skip

    def ranked(network: Trace, parts: Couplings) -> RemovalCost:
        return counts.cost_of(network, parts)

    dense = counts.cost_of(traced, couplings)
    return LatencyModel("estimate", dense.source, ranked, dense.dense, None, None)


def latency_unit(cost: RemovalCost) -> str:
    """What a predicted latency is called; a plain "ms" is for what was timed."""
    return cost.unit if isinstance(cost, latency.LatencyCost) and cost.estimate else PROFILED
