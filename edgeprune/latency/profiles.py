"""The latency profile: what was measured of a network's layers at many widths, as a file.

    profile = read_profile("model.rpi4.profile.json")

Guarantee: a profile says where, when, of what and with what it was measured; a damaged file is refused.
Reading it times nothing. Elsewhere: measuring (measuring), whether it may be used
(profile_compatibility), predicting from it (costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from edgeprune.errors import BenchError
from edgeprune.records import Interval
from edgeprune.records.schema import Length, Range, parse_json, read_as
from edgeprune.store import write_json

SCHEMA = 2
KIND = "edgeprune latency profile"
Count: TypeAlias = Annotated[int, Range(0, 2**40)]
Ms: TypeAlias = Annotated[float, Range(0, 1e9)]
AboveZero: TypeAlias = Annotated[float, Range(1e-9, 1e9)]


@dataclass(frozen=True)
class Width:
    """A count of channels: `times` what stays of dimension `dim` of a state tensor; constant without one."""

    dense: Count
    tensor: str | None = None
    dim: Count = 0
    times: Count = 1


@dataclass(frozen=True)
class ProfiledLayer:
    """A layer as it runs, with the operators up to the next one that follow it.

    `shape` is what layers have in common that cost the same at equal widths.
    """

    node: str
    operator: str
    shape: str
    inputs: Width
    outputs: Width


@dataclass(frozen=True)
class ProfilePoint:
    """Milliseconds of a layer shape at one pair of widths, with the interval over inferences.

    `operators` ran one after the other; each time holds what the profiler itself takes per operator.
    """

    shape: int
    inputs: int
    outputs: int
    operators: int
    ms: Interval


@dataclass(frozen=True)
class Whole:
    """A whole network as run: the widths of its layers, its p50 and what its operators took, as measured."""

    widths: tuple[tuple[int, int], ...]  # (inputs, outputs) of each layer
    p50_ms: Interval
    operators_ms: float
    head_ms: float
    operators: int
    lot: int


@dataclass(frozen=True)
class Profile:
    """Measured times of a network's layers on one machine; see the module's text.

    `lots` holds (p50, sum over operators) of the dense network in each lot, in ms; points are scaled to
    the first lot's sum, so that a machine that slows down on the way does not bend them.
    """

    target: str
    board: str | None
    machine: dict[str, Any]
    threads: int
    date: str
    model: str
    layers: tuple[ProfiledLayer, ...]
    shapes: tuple[str, ...]
    points: tuple[ProfilePoint, ...]
    wholes: tuple[Whole, ...]  # the first is the dense network
    lots: tuple[tuple[float, float], ...]
    planned: int  # how many networks were to be run; fewer were when the profile is unfinished
    request: str  # identifies model, target and settings
    network: str | None = None  # its fingerprint (profile_compatibility); files from before have none
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def complete(self) -> bool:
        return len(self.wholes) >= self.planned

    @property
    def dense_ms(self) -> Interval:
        """Measured p50 of the network as it is: median over the lots, which the interval spans too."""
        seen = sorted(wall for wall, _ in self.lots)
        middle = (seen[len(seen) // 2] + seen[(len(seen) - 1) // 2]) / 2
        first = self.wholes[0].p50_ms
        cut = len(seen) // 20  # of many lots the outermost are left out
        ends = [*seen[cut : len(seen) - cut], middle]
        if len(seen) == 1:
            ends += [first.low, first.high]
        return Interval(middle, min(ends), max(ends))

    @property
    def source(self) -> str:
        """One line for reports: where the numbers come from."""
        machine = self.machine
        where = self.board or machine.get("board") or machine.get("processor") or "unknown"
        runtime = f"onnxruntime {machine.get('onnxruntime')}"
        return f"profile of {where}, {runtime}, {self.threads} thread(s), {self.date}"


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile, atomically."""
    write_json(path, {"kind": KIND, **_compact(profile)})


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        BenchError: the file is missing, damaged, of another schema, or not a profile.
    """
    path, tip = Path(path), "write one with: edgeprune profile"
    raw = parse_json(path, error=BenchError, tip=tip)
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise BenchError(f"{path}: not a latency profile", tip=tip)
    if raw.get("schema") != SCHEMA or isinstance(raw["schema"], bool):
        raise BenchError(
            f"{path}: a profile of schema {str(raw.get('schema'))[:40]}, this edgeprune reads {SCHEMA}",
            tip="measure again, or upgrade the older edgeprune",
        )
    stored = read_as(_Stored, raw, str(path), error=BenchError, tip="measure again: edgeprune profile")
    try:
        return _restore(stored)
    except ValueError as error:
        raise BenchError(f"{path}: damaged: {error}", tip="measure again: edgeprune profile") from None


@dataclass(frozen=True)
class _StoredWhole:
    widths: tuple[tuple[Count, Count], ...]
    p50_ms: tuple[Ms, Ms, Ms]
    operators_ms: Ms
    head_ms: Ms
    operators: Count
    lot: Count


@dataclass(frozen=True)
class _Stored:
    """A profile as its file has it: points and networks are rows of numbers."""

    target: str
    board: str | None
    machine: dict[str, Any]
    threads: Annotated[int, Range(1, 4096)]
    date: str
    model: str
    layers: Annotated[tuple[ProfiledLayer, ...], Length(1)]
    shapes: tuple[str, ...]
    points: tuple[tuple[Count, Count, Count, Count, Ms, Ms, Ms], ...]
    wholes: Annotated[tuple[_StoredWhole, ...], Length(1)]
    lots: Annotated[tuple[tuple[AboveZero, AboveZero], ...], Length(1)]
    planned: Count
    request: str
    network: str | None = None
    warnings: tuple[str, ...] = ()


def _compact(profile: Profile) -> dict[str, Any]:
    """As JSON, with points and networks as rows of numbers."""
    from edgeprune.records import to_json

    raw: dict[str, Any] = to_json(replace(profile, points=(), wholes=()))
    raw["points"] = [[p.shape, p.inputs, p.outputs, p.operators, *_row(p.ms)] for p in profile.points]
    raw["wholes"] = [
        {
            "p50_ms": _row(w.p50_ms),
            "operators_ms": round(w.operators_ms, 5),
            "head_ms": round(w.head_ms, 5),
            "operators": w.operators,
            "lot": w.lot,
            "widths": [list(pair) for pair in w.widths],
        }
        for w in profile.wholes
    ]
    return raw


def _row(interval: Interval) -> list[float]:
    return [round(interval.value, 6), round(interval.low, 6), round(interval.high, 6)]


def _restore(stored: _Stored) -> Profile:
    """The profile of a file's rows.

    Raises:
        ValueError: they do not belong together.
    """
    layers, shapes, lots = stored.layers, stored.shapes, stored.lots
    if any(point[0] >= len(shapes) for point in stored.points):
        raise ValueError("a point of no layer")
    if any(layer.shape not in shapes for layer in layers):
        raise ValueError("a layer of no shape")
    if any(len(network.widths) != len(layers) for network in stored.wholes):
        raise ValueError("a network of other layers")
    if any(network.lot >= len(lots) for network in stored.wholes):
        raise ValueError("a network of no lot")
    names = ("target", "board", "machine", "threads", "date", "model", "planned", "request", "network")
    return Profile(
        layers=layers,
        shapes=shapes,
        points=tuple(ProfilePoint(*point[:4], _interval(point[4:])) for point in stored.points),
        wholes=tuple(
            Whole(w.widths, _interval(w.p50_ms), w.operators_ms, w.head_ms, w.operators, w.lot)
            for w in stored.wholes
        ),
        lots=lots,
        warnings=stored.warnings,
        **{name: getattr(stored, name) for name in names},
    )


def _interval(row: Sequence[float]) -> Interval:
    value, low, high = row
    if not low <= value <= high:
        raise ValueError(f"not an interval: {list(row)}")
    return Interval(value, low, high)
