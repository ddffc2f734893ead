"""The content of report.json as values; `to_json(report)` is the file, `report.schema` checks one.

Shares are in 0..1, losses in points of 100 or percent of the dense error (see `unit`), times in ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from edgeprune.records.base import Interval
from edgeprune.records.schema import Range

REPORT_SCHEMA: Literal[3] = 3
Recovery: TypeAlias = Literal["fine-tuned", "closed form", "none"]
Unit: TypeAlias = Literal["points", "percent"]
Count: TypeAlias = Annotated[int, Range(0)]
Positive: TypeAlias = Annotated[int, Range(1)]
Amount: TypeAlias = Annotated[float, Range(0)]
Share: TypeAlias = Annotated[float, Range(0, 1)]
Ratio: TypeAlias = Annotated[float, Range(1e-9)]


@dataclass(frozen=True)
class Pair:
    """A count of the dense and of the shipped network or file."""

    dense: Count
    shipped: Count


@dataclass(frozen=True)
class PartAccuracy:
    """One measure on the test part: of one output, where a model has several."""

    measure: str
    unit: Unit
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
    unit: Unit
    task: str
    task_note: str
    samples: Positive
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

    basis: Literal["measured", "estimate", "emulated"]
    where: str
    on_target: bool
    threads: Positive | None
    batch: Positive | None
    dense_p50_ms: Amount | None
    shipped_p50_ms: Amount | None
    ratio: Ratio
    ratio_low: Ratio
    ratio_high: Ratio


@dataclass(frozen=True)
class Estimate:
    """Latency of a target that was not timed, in the unit of the estimate; never called a time."""

    unit: str
    source: str
    dense: Amount
    shipped: Amount


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
    asked: Amount | None
    predicted: Amount
    measured: Amount


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer before and after."""

    name: str
    kind: str
    before: Positive
    after: Count
    note: str | None = None


@dataclass(frozen=True)
class PinnedChannels:
    """Channels that stay whatever is planned, with the reason."""

    channels: Count
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
    accuracy: Share | None
    drop: Interval | None
    macs: Count
    params: Count
    file_bytes: Count
    predicted: Amount | None
    ratio: Amount | None
    ratio_low: Amount | None
    ratio_high: Amount | None
    latency_ms: Amount | None
    recovery: Recovery
    int8: bool
    dominated: bool
    file: str
    chosen: bool


@dataclass(frozen=True)
class FileEntry:
    """A file of the run folder."""

    name: str
    bytes: Count
    sha256: str


@dataclass(frozen=True)
class Stage:
    """Wall time in seconds and peak resident memory in MB of one stage."""

    name: str
    seconds: Amount
    peak_mb: Amount | None


@dataclass(frozen=True)
class ParityRow:
    """The largest difference of the file from its reference, and the share of equal decisions."""

    max_abs: Amount
    top1_agreement: Share | None
    reference: str = "PyTorch"
    atol: Amount | None = None
    samples: Positive | None = None
    output_spread: Amount | None = None


@dataclass(frozen=True)
class CriterionRow:
    """The criterion and its settings."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class NamedModel:
    """The model that was compressed."""

    name: str
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class NamedTarget:
    """The target that it was compressed for."""

    name: str
    title: str = ""


@dataclass(frozen=True)
class KeptInput:
    """Which features of an input the file reads."""

    input: str
    shape: list[Positive]
    of: str
    count: Positive
    kept: list[Count]


@dataclass(frozen=True)
class ChangedSample:
    """A test sample that got worse. sample: its number in the data.

    dense, shipped: the decisions, or the measure of this sample. target: the true class; empty without one.
    thumbnail: base64 PNG of an input that is a picture, else empty.
    """

    sample: Count
    target: str
    dense: str
    shipped: str
    thumbnail: str = ""


@dataclass(frozen=True)
class ClassLoss:
    """A class that lost: shares of its test samples that were answered correctly."""

    name: str
    samples: Positive
    dense: Share
    shipped: Share


@dataclass(frozen=True)
class Changes:
    """Test samples that got worse and better by the measure. decisions: one class per sample is decided."""

    measure: str
    decisions: bool
    worse: Count
    better: Count
    samples: Count
    examples: tuple[ChangedSample, ...] = ()
    classes: tuple[ClassLoss, ...] = ()


@dataclass(frozen=True)
class FirstRemoved:
    """One of the channels that went first. rank: 1 goes first of `of` peers; random: their mean score."""

    layer: str
    channel: Count
    score: float
    unit: str
    rank: Positive
    of: Positive
    random: float
    p_value: Share | None = None


@dataclass(frozen=True)
class Report:
    """Everything that a finished run reports. Keys that are not listed here are ignored when it is read.

    warnings: those of the notes that limit the result or need to be acted on.
    """

    created: str
    model: NamedModel
    target: NamedTarget
    seed: Count
    versions: dict[str, str]
    machine: dict[str, Any]
    criterion: CriterionRow
    budget: dict[str, Any]
    accuracy: Accuracy | None
    macs: Pair
    params: Pair
    file_bytes: Pair
    parity: ParityRow
    latency: LatencyRow | None
    estimate: Estimate | None
    timing: TimingSummary
    planned: tuple[PlannedShare, ...]
    layers: tuple[LayerWidth, ...]
    pinned: tuple[PinnedChannels, ...]
    stages: tuple[Stage, ...]
    metrics: tuple[MetricRow, ...]
    front: tuple[FrontRow, ...]
    schema: Literal[3] = 3
    files: tuple[FileEntry, ...] = ()
    notes: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    inputs: tuple[KeptInput, ...] = ()
    verified: Any = None
    rounds: list[Any] = field(default_factory=list)
    splits: Any = None
    bench: Any = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    changes: Changes | None = None
    first_removed: tuple[FirstRemoved, ...] = ()
