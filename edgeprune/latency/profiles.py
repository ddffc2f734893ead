"""The latency profile: what was measured of a network's layers at many widths, as a file.

    profile = read_profile("model.rpi4.profile.json")

Guarantee: a profile says where, when, of what and with what it was measured; a damaged file is refused.
Reading it times nothing. Elsewhere: measuring (measuring), whether it may be used (belonging), predicting
from it (costs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import BenchError
from edgeprune.records import Interval
from edgeprune.store import write_json

SCHEMA = 2
KIND = "edgeprune latency profile"


@dataclass(frozen=True)
class Width:
    """A count of channels: `times` what stays of dimension `dim` of a state tensor; constant without one."""

    dense: int
    tensor: str | None = None
    dim: int = 0
    times: int = 1


@dataclass(frozen=True)
class Layer:
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
    layers: tuple[Layer, ...]
    shapes: tuple[str, ...]
    points: tuple[ProfilePoint, ...]
    wholes: tuple[Whole, ...]  # the first is the dense network
    lots: tuple[tuple[float, float], ...]
    planned: int  # how many networks were to be run; fewer were when the profile is unfinished
    request: str  # identifies model, target and settings
    network: str | None = None  # belonging.fingerprint of the network; files from before have none
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
        found = self.machine
        where = self.board or found.get("board") or found.get("processor") or "unknown"
        runtime = f"onnxruntime {found.get('onnxruntime')}"
        return f"profile of {where}, {runtime}, {self.threads} thread(s), {self.date}"


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile, atomically."""
    write_json(path, {"kind": KIND, **_compact(profile)})


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        BenchError: the file is missing, damaged, of another schema, or not a profile.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(
            f"{path}: {error.strerror or error}", tip="write one with: edgeprune profile"
        ) from None
    except ValueError:
        raise BenchError(f"{path}: damaged, not JSON", tip="measure again: edgeprune profile") from None
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise BenchError(f"{path}: not a latency profile", tip="write one with: edgeprune profile")
    if raw.get("schema") != SCHEMA:
        raise BenchError(
            f"{path}: a profile of schema {raw.get('schema')!r}, this edgeprune reads {SCHEMA}",
            tip="measure again, or upgrade the older edgeprune",
        )
    try:
        return _restore(raw)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BenchError(
            f"{path}: damaged: {type(error).__name__} {error}", tip="measure again: edgeprune profile"
        ) from None


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


def _row(found: Interval) -> list[float]:
    return [round(found.value, 6), round(found.low, 6), round(found.high, 6)]


def _restore(raw: Mapping[str, Any]) -> Profile:
    layers = tuple(
        Layer(x["node"], x["operator"], x["shape"], Width(**x["inputs"]), Width(**x["outputs"]))
        for x in raw["layers"]
    )
    points = tuple(
        ProfilePoint(int(s), int(i), int(o), int(n), _interval(ms)) for s, i, o, n, *ms in raw["points"]
    )
    wholes = tuple(
        Whole(
            tuple((int(i), int(o)) for i, o in w["widths"]),
            _interval(w["p50_ms"]),
            float(w["operators_ms"]),
            float(w["head_ms"]),
            int(w["operators"]),
            int(w["lot"]),
        )
        for w in raw["wholes"]
    )
    shapes = tuple(str(s) for s in raw["shapes"])
    if not wholes or not layers or any(not 0 <= p.shape < len(shapes) for p in points):
        raise ValueError("no network, no layer, or a point of no layer")
    if any(layer.shape not in shapes for layer in layers) or any(
        len(w.widths) != len(layers) for w in wholes
    ):
        raise ValueError("layers and shapes do not belong together")
    lots = tuple((float(wall), float(operators)) for wall, operators in raw["lots"])
    if any(not 0 <= w.lot < len(lots) for w in wholes) or any(min(lot) <= 0 for lot in lots):
        raise ValueError("networks and lots do not belong together")
    machine = raw["machine"]
    if not isinstance(machine, dict):
        raise TypeError("machine is not a table")
    return Profile(
        target=str(raw["target"]),
        board=raw["board"],
        machine=machine,
        threads=int(raw["threads"]),
        date=str(raw["date"]),
        model=str(raw["model"]),
        layers=layers,
        shapes=shapes,
        points=points,
        wholes=wholes,
        lots=lots,
        planned=int(raw["planned"]),
        request=str(raw["request"]),
        network=None if raw.get("network") is None else str(raw["network"]),
        warnings=tuple(str(w) for w in raw["warnings"]),
    )


def _interval(row: Any) -> Interval:
    value, low, high = (float(x) for x in row)
    if not 0 <= low <= value <= high:
        raise ValueError(f"not an interval: {row}")
    return Interval(value, low, high)
