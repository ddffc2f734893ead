"""The content of report.json as values; `to_json(report)` is the file, `report.schema` checks one.

Shares are in 0..1, losses in points of 100 or percent of the dense error (see `unit`), times in ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeprune.records.base import Interval

REPORT_SCHEMA = 3


@dataclass(frozen=True)
class Pair:
    """A count of the dense and of the shipped network or file."""

    dense: int
    shipped: int


@dataclass(frozen=True)
class PartAccuracy:
    """One measure on the test part: of one output, where a model has several."""

    measure: str
    unit: str
    dense: float
    shipped: float
    drop: Interval


@dataclass(frozen=True)
class Accuracy:
    """The task's measure on the test part, step by step.

    measured_as: name of the measure. unit: of `drop`: "points" or "percent". task_note: how the task was
    chosen. test_origin: where the test samples come from. pruned: without recovery. compensated: with the
    closed form alone. parts: one entry per output that is judged.
    """

    measured_as: str
    unit: str
    task: str
    task_note: str
    samples: int
    test_origin: str
    dense: Interval
    pruned: Interval
    compensated: Interval | None
    shipped: Interval
    drop: Interval
    parts: tuple[PartAccuracy, ...] = ()


@dataclass(frozen=True)
class LatencyRow:
    """Latency of both files as run. ratio: shipped over dense; on_target: `where` is the target."""

    basis: str
    where: str
    on_target: bool
    threads: int
    batch: int
    dense_p50_ms: float | None
    shipped_p50_ms: float | None
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class Estimate:
    """Latency of a target that was not timed, in the unit of the estimate; never called a time."""

    unit: str
    source: str
    dense: float
    shipped: float


@dataclass(frozen=True)
class TimingSummary:
    """What was timed while planning, and where the final files were (`final` None: nowhere)."""

    planning: tuple[str, ...]
    final: str | None
    on_target: bool
    text: str


@dataclass(frozen=True)
class PlannedShare:
    """Predicted against measured share of the dense latency; `asked` is None for the front."""

    name: str
    asked: float | None
    predicted: float
    measured: float


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer before and after."""

    name: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class PinnedChannels:
    """Channels that stay whatever is planned, with the reason."""

    channels: int
    reason: str
    name: str = ""


@dataclass(frozen=True)
class MetricRow:
    """A further measure of both models."""

    name: str
    dense: float
    shipped: float


@dataclass(frozen=True)
class FrontRow:
    """One file of the front. accuracy: the share on validation, None for other measures and without data."""

    name: str
    accuracy: float | None
    drop: Interval | None
    macs: int
    params: int
    file_bytes: int
    predicted: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    latency_ms: float | None
    recovery: str
    int8: bool
    dominated: bool
    file: str
    chosen: bool


@dataclass(frozen=True)
class FileEntry:
    """A file of the run folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Report:
    """Everything that a finished run reports."""

    created: str
    model: dict[str, str]
    target: dict[str, str]
    seed: int
    versions: dict[str, str]
    machine: dict[str, Any]
    criterion: dict[str, Any]
    budget: dict[str, Any]
    accuracy: Accuracy | None
    macs: Pair
    params: Pair
    file_bytes: Pair
    parity: dict[str, Any]
    latency: LatencyRow | None
    estimate: Estimate | None
    timing: TimingSummary
    planned: tuple[PlannedShare, ...]
    verified: Any
    layers: tuple[LayerWidth, ...]
    inputs: list[dict[str, Any]]
    pinned: tuple[PinnedChannels, ...]
    stages: list[Any]
    metrics: tuple[MetricRow, ...]
    front: tuple[FrontRow, ...]
    rounds: list[Any]
    splits: dict[str, Any] | None
    bench: Any
    files: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    schema: int = REPORT_SCHEMA
