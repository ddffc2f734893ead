"""What was timed of files: whole inferences, their ratios, single operators and layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgeprune.records.base import Interval


@dataclass(frozen=True)
class ModelTiming:
    """One ONNX file as measured; every time is None where the target was emulated.

    Load time, first inference and peak memory are medians over fresh processes; a percentile
    that has too few samples to mean anything is None.
    """

    file: str
    file_bytes: int
    samples: int = 0
    p50_ms: Interval | None = None
    p90_ms: Interval | None = None
    p99_ms: Interval | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_mb: float | None = None
    missed: Interval | None = None  # share of answers later than the deadline, at the rate asked
    worst_ms: float | None = None


@dataclass(frozen=True)
class TimingRatio:
    """Time of `file` as a share of `base`'s, paired by round; `changed` when the interval leaves 1 out."""

    file: str
    base: str
    ratio: Interval

    @property
    def changed(self) -> bool:
        return not self.ratio.low <= 1.0 <= self.ratio.high


@dataclass(frozen=True)
class BenchResult:
    """Timings of ONNX files that took turns on one machine.

    `same` is the A/A row: the first file against itself, so its distance from 1 is what this
    machine could not resolve. `warnings` say what makes the numbers less trustworthy.
    An emulated target gives no latency, and this record refuses to hold one.
    """

    models: tuple[ModelTiming, ...]
    ratios: tuple[TimingRatio, ...]
    same: Interval | None
    rounds: int
    threads: int
    batch: int
    seed: int
    machine: dict[str, Any]
    cores: tuple[int, ...] = ()
    emulated: str | None = None
    board: str | None = None
    before: dict[str, Any] = dataclasses.field(default_factory=dict)
    after: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rate_hz: float | None = None
    deadline_ms: float | None = None
    schema: int = 1

    def __post_init__(self) -> None:
        if self.emulated is None:
            return
        times = ("p50_ms", "p90_ms", "p99_ms", "load_ms", "first_ms", "missed", "worst_ms")
        held = [name for row in self.models for name in times if getattr(row, name) is not None]
        if held or self.ratios or self.same is not None:
            raise ValueError(f"an emulated target ({self.emulated}) has no latency, but got {held}")


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the optimised graph as the runtime ran it.

    `layer` is the layer that it computes, None for anything else; `serves` the layer whose output it
    treats (an activation, an addition, a change of layout) or whose input it converts. `us` is the time
    of one run, `bytes` what it reads and writes at least, `shape` that of its first output.
    """

    name: str
    operator: str
    layer: str | None
    serves: str | None
    us: float
    bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerSize:
    """A layer as its file has it: multiply-adds at the batch that ran, channels, bytes of weights."""

    name: str
    operator: str
    macs: int
    inputs: int
    width: int
    weight_bytes: int
    quantised: bool


@dataclass(frozen=True)
class FileProfile:
    """Operators of one file on one processor.

    `total_us` is an inference without the profiler, whose own cost per operator has been taken off.
    """

    file: str
    total_us: float
    operators: tuple[OperatorTime, ...]
    layers: tuple[LayerSize, ...]


@dataclass(frozen=True)
class OperatorProfile:
    """Files that took turns under the profiler, and what the processor can do.

    `bandwidth` is (bytes, GB/s) of copies by size; `overhead_us` what starting an operator costs.
    """

    files: tuple[FileProfile, ...]
    bandwidth: tuple[tuple[int, float], ...]
    overhead_us: float
    machine: dict[str, Any]
    threads: int
    batch: int


@dataclass(frozen=True)
class LayerChange:
    """A layer before and after: microseconds with all that serves it, multiply-adds, channels.

    `misaligned` is the measured cost of this width by that of the next free one; None where it is free
    or no convolution. `bound` says what the time is mostly made of: compute, memory or overhead. `lost_us`
    is the time above what the layer would take had it fallen with its multiply-adds. A side where the
    layer is missing has None.
    """

    name: str
    operator: str
    us_before: float | None
    us_after: float | None
    macs_before: int | None
    macs_after: int | None
    inputs_before: int | None
    inputs_after: int | None
    width_before: int | None
    width_after: int | None
    misaligned: float | None
    bound: str
    lost_us: float
    note: str


@dataclass(frozen=True)
class WhyResult:
    """Why a file is as fast as it is against another; `causes` are sentences, the costliest first."""

    profile: OperatorProfile
    layers: tuple[LayerChange, ...]
    causes: tuple[str, ...]
    schema: int = 1
