"""The Pareto front: smaller and larger plans beside the accepted network, and rounds that were tried.

    make_candidates(...)   files in front/, each exported and parity-checked
    time_candidates(...)   all of them beside the dense file in one run: latency, loss on validation
    front_rows(...)        the front as the report holds it

Plans of the front come from the first round's scores and curves with closed-form recovery and no training,
so that six candidates cost seconds; a round that was tried is fine-tuned. Each candidate states its
recovery, and only candidates of equal recovery dominate each other.
Elsewhere: 8-bit forms (quantized_variants), which file ships (select_artifact), the search (search).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from edgeprune.coupling.components import BoolArray
from edgeprune.errors import ParityError
from edgeprune.graph.trace import Trace
from edgeprune.records import Interval, OnnxArtifact
from edgeprune.records.report import FrontRow, Recovery
from edgeprune.recovery import recover_closed_form
from edgeprune.search.allocate import allocate
from edgeprune.search.costs import parameters
from edgeprune.search.goals import Goal, joint, shares
from edgeprune.search.groups import uniform
from edgeprune.search.rounds import stored_round
from edgeprune.search.search import INT8_ERROR, SearchResult, float_level
from edgeprune.search.state import SearchState
from edgeprune.session.context import RunContext
from edgeprune.session.dense import DenseNetwork, ExportedDense, latency_of
from edgeprune.session.exporting import export_trace, file_outputs
from edgeprune.surgery.cut import cut

# Shares of the dense cost, the most telling first; the later ones replace those that cannot be reached.
FRONT_SHARES = (0.48, 0.28, 0.8, 0.2, 0.62, 0.37, 0.7, 0.55, 0.42, 0.33, 0.9, 0.24, 0.85, 0.75, 0.66, 0.58)


@dataclass(frozen=True)
class PlannedCandidate:
    """A plan of the front: `removed` components of the first round's network, and what is left."""

    trace: Trace
    removed: BoolArray
    goal: Goal


@dataclass(frozen=True)
class Candidate:
    """One file that could ship.

    recovery: "fine-tuned", "closed form" or "none". drop: paired loss on validation, None without data.
    ratio: its latency over the dense file's, from the run that timed the whole front, None untimed.
    predicted: the same as the latency model has it; None without one and for 8 bits. dominated: another
    candidate of the same recovery is at least as fast and as accurate.
    """

    name: str
    artifact: OnnxArtifact
    macs: float
    params: int
    recovery: Recovery
    int8: bool = False
    predicted: float | None = None
    drop: Interval | None = None
    ratio: Interval | None = None
    dominated: bool = False
    network: SearchState | PlannedCandidate | None = field(default=None, repr=False, compare=False)

    @property
    def float_name(self) -> str:
        """The name of its float form."""
        return self.name.removesuffix("-int8") if self.int8 else self.name


def candidate_of(
    dense: DenseNetwork, name: str, artifact: OnnxArtifact, state: SearchState, run: RunContext
) -> Candidate:
    """The candidate of a network that the rounds gave."""
    predicted = None
    if latency_of(dense) is not None:
        predicted = shares(dense, state.trace, state.couplings, (Goal("ms", 1.0),))["ms"]
    scored = bool(state.record.round)
    return Candidate(
        name, artifact, state.couplings.macs(), parameters(state.trace),
        _recovery(dense, trained=scored and (run.options.epochs > 0 or run.train is not None), cut=scored),
        predicted=predicted, network=state,
    )  # fmt: skip


def make_candidates(dense: ExportedDense, result: SearchResult, run: RunContext) -> list[Candidate]:
    """Export the rounds that were not accepted, then plans until there are `options.front` files.

    A plan that no file can be made of is skipped for the next one; a note says if there are fewer files
    than asked for.
    """
    options = run.options
    candidates: list[Candidate] = []
    folder = run.folder.path / "front"
    folder.mkdir(exist_ok=True)
    rounds = [(f"round-{s.record.round}", s) for s in result.tried if s is not result.accepted]
    networks: Iterator[tuple[str, SearchState | PlannedCandidate]]
    networks = itertools.chain(rounds, _plans(dense, result.first, run))
    for name, network in networks:
        if isinstance(network, PlannedCandidate) and len(candidates) >= options.front:
            break
        try:
            artifact = export_trace(
                network.trace, list(dense.parity_inputs), folder / f"{name}.onnx",
                fixed_batch=options.fixed_batch, opset=options.opset,
            )  # fmt: skip
        except ParityError as error:  # a network that was cut to pieces may put out a constant
            run.progress.note(f"front: {name} left out: {error.message}")
            continue
        if isinstance(network, PlannedCandidate):
            candidates.append(_planned(dense, name, artifact, result.first, network))
        else:
            candidates.append(candidate_of(dense, name, artifact, network, run))
        run.progress.step(len(candidates), max(options.front, len(rounds)))
    if len(candidates) < options.front:
        run.progress.note(f"front: {len(candidates)} files; no further plan can be reached")
    return candidates


def time_candidates(dense: ExportedDense, candidates: list[Candidate], run: RunContext) -> list[Candidate]:
    """Latency of every candidate beside the dense file, in one run, and the loss on validation."""
    paths = [dense.artifact.path, *(c.artifact.path for c in candidates)]
    bench = run.target.time(paths, run.options.bench_seconds * (1 + len(paths) / 8))
    ratios: list[Interval | None] = [row.ratio for row in bench.ratios] or [None] * len(candidates)
    eight = max(1, sum(c.int8 for c in candidates))
    levels = {False: 2 * float_level(run.options) - 1, True: 1 - 2 * INT8_ERROR / eight}
    timed = []
    for candidate, ratio in zip(candidates, ratios, strict=True):
        drop = None
        if dense.data is not None:
            validation = dense.data.splits.validation
            out = file_outputs(candidate.artifact.path, dense.data.dataset, validation, run.progress)
            drop = dense.data.loss(out, "validation", level=levels[candidate.int8]).drop
        timed.append(replace(candidate, drop=drop, ratio=ratio))
    return [replace(c, dominated=any(_dominates(other, c) for other in timed)) for c in timed]


def front_rows(
    dense: DenseNetwork, candidates: list[Candidate], chosen: Candidate, dense_ms: float | None
) -> list[FrontRow]:
    """The front as the report holds it, fastest first."""
    value = _dense_share(dense)
    ordered = sorted(candidates, key=lambda c: c.ratio.value if c.ratio else c.macs)
    return [
        FrontRow(
            name=c.name,
            accuracy=_share_left(value, c.drop),
            drop=c.drop,
            macs=round(c.macs),
            params=c.params,
            file_bytes=c.artifact.bytes,
            predicted=c.predicted,
            ratio=None if c.ratio is None else c.ratio.value,
            ratio_low=None if c.ratio is None else c.ratio.low,
            ratio_high=None if c.ratio is None else c.ratio.high,
            latency_ms=None if c.ratio is None or dense_ms is None else c.ratio.value * dense_ms,
            recovery=c.recovery,
            int8=c.int8,
            dominated=c.dominated,
            file=_file_of(c, chosen),
            chosen=c.name == chosen.name,
        )
        for c in ordered
    ]


def _plans(
    dense: DenseNetwork, first: SearchState, run: RunContext
) -> Iterator[tuple[str, PlannedCandidate]]:
    """Plans at the shares that can be reached; with data refitted in closed form."""
    stored = stored_round(run, 1)
    if stored is None:
        return
    record, arrays = stored
    couplings, rank = first.couplings, arrays.rank
    groups = {name: g for g, name in enumerate(couplings.group_names)}
    curves = {groups[name]: curve for name, curve in record.curves.items()}
    kind = "macs" if latency_of(dense) is None else "ms"
    calibration = None if dense.data is None else dense.data.calibration()
    seen: set[bytes] = set()
    for share in FRONT_SHARES:
        goal = Goal(kind, share)
        cost = joint(dense, first.trace, couplings, (goal,))
        if cost(np.zeros(couplings.count, bool)) <= 1:
            continue
        removed = (
            allocate(couplings, rank, curves, cost, 1.0) if curves else uniform(couplings, rank, cost, 1.0)
        )
        if cost(removed) > 1 or removed.tobytes() in seen:
            continue
        seen.add(removed.tobytes())
        if calibration is None:
            smaller = cut(first.trace, couplings, removed)
        else:
            smaller, _ = recover_closed_form(first.trace, couplings, removed, calibration)
        yield f"plan-{round(100 * share)}", PlannedCandidate(smaller, removed, goal)


def _planned(
    dense: DenseNetwork, name: str, artifact: OnnxArtifact, first: SearchState, plan: PlannedCandidate
) -> Candidate:
    """The candidate of a plan."""
    predicted = None
    if latency_of(dense) is not None:
        predicted = joint(dense, first.trace, first.couplings, (Goal("ms", 1.0),))(plan.removed)
    return Candidate(
        name, artifact, first.couplings.macs(plan.removed), parameters(plan.trace),
        _recovery(dense, trained=False, cut=True), predicted=predicted, network=plan,
    )  # fmt: skip


def _recovery(dense: DenseNetwork, *, trained: bool, cut: bool) -> Recovery:
    """How a removal was recovered: not at all without data, or if only lossless removals were made."""
    if dense.data is None or not cut:
        return "none"
    return "fine-tuned" if trained else "closed form"


def _dominates(q: Candidate, p: Candidate) -> bool:
    """Whether q, of the same recovery, is at least as good in both and better in one."""
    if q is p or q.ratio is None or p.ratio is None or q.recovery != p.recovery:
        return False
    drops = (q.drop.value, p.drop.value) if q.drop and p.drop else (0.0, 0.0)
    times = (q.ratio.value, p.ratio.value)
    return drops[0] <= drops[1] and times[0] <= times[1] and (drops[0] < drops[1] or times[0] < times[1])


def _file_of(candidate: Candidate, chosen: Candidate) -> str:
    """Where a candidate's file is in the run folder."""
    if candidate.name == chosen.name:
        return "model.onnx"
    if candidate.name == chosen.float_name:
        return "model-float.onnx"
    return f"front/{candidate.artifact.path.name}"


def _share_left(value: float | None, drop: Interval | None) -> float | None:
    """A share on validation after a loss in points."""
    return None if value is None or drop is None else min(1.0, max(0.0, value - drop.value / 100))


def _dense_share(dense: DenseNetwork) -> float | None:
    """The dense model's share on validation; None without data, and for measures that are no share."""
    if dense.data is None or dense.data.unit != "points":
        return None
    return dense.data.measured(dense.data.dense["validation"], "validation")[0][1].value
