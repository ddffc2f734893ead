"""The frozen values that stages hand to each other.

A record holds results and nothing that computes. `to_json` gives the plain form
that the run folder, `--json` and the report share; arrays travel as npz beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval; `level` is the two-sided coverage."""

    value: float
    low: float
    high: float
    level: float = 0.95


def to_json(value: Any) -> Any:
    """Turn records, arrays, paths and NumPy scalars into what `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value


@dataclass(frozen=True)
class OutputParity:
    """How one output of an ONNX file compares with its reference, over all inputs given.

    `max_abs` is the largest absolute difference and `atol` what was allowed. `spread` is the root
    mean square, over positions, of the reference's standard deviation over samples: how much the
    output moves with the input. `spread_ratio` is spread / max_abs (None when they agree bit for bit).
    `top1_agreement` is the share of samples with the same argmax over axis 1; None where that has no meaning.
    """

    name: str
    max_abs: float
    atol: float
    max_reference: float
    spread: float
    spread_ratio: float | None
    top1_agreement: float | None


@dataclass(frozen=True)
class ParityResult:
    """Proof that an ONNX file computes what its reference computes; the headline is the worst output."""

    max_abs: float
    atol: float
    rtol: float
    top1_agreement: float | None
    output_spread: float
    spread_ratio: float | None
    samples: int
    runtime: str
    outputs: tuple[OutputParity, ...]


@dataclass(frozen=True)
class SimplifyResult:
    """What onnxsim made of a file. `path` is the candidate to swap in, None where the original stays.

    `note` says in one line what happened; it is the reason when `path` is None.
    """

    path: Path | None
    nodes_before: int | None
    nodes_after: int | None
    seconds: float
    note: str


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file that was written and checked.

    `files` lists (name, sha256, bytes) of the model and, for a very large one, of its external data;
    `bytes` is their sum, `sha256` that of the model file. `nodes_exported` counts before simplification.
    """

    path: Path
    sha256: str
    bytes: int
    files: tuple[tuple[str, str, int], ...]
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_batch: bool
    nodes: int
    nodes_exported: int
    simplified: bool
    note: str
    parity: ParityResult | None


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
    device: str | None = None
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
class Splits:
    """Four disjoint, sorted index arrays into one dataset (int64).

    `test_origin` says where the test part comes from: the source itself, or held out by the seed.
    """

    seed: int
    train: np.ndarray[Any, np.dtype[np.int64]]
    calibration: np.ndarray[Any, np.dtype[np.int64]]
    validation: np.ndarray[Any, np.dtype[np.int64]]
    test: np.ndarray[Any, np.dtype[np.int64]]
    test_origin: str

    def to_json(self) -> dict[str, Any]:
        """Sizes and the sha256 of each part's indices, in place of the indices themselves."""
        parts = {name: getattr(self, name) for name in ("train", "calibration", "validation", "test")}
        return {
            "seed": self.seed,
            "test_origin": self.test_origin,
            "sizes": {name: len(indices) for name, indices in parts.items()},
            "sha256": {
                name: hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
                for name, indices in parts.items()
            },
        }


@dataclass(frozen=True)
class TargetField:
    """One stated fact of a target. `basis` is measured, datasheet or assumed; `note` names its source."""

    name: str
    value: Any
    unit: str
    basis: str
    note: str


@dataclass(frozen=True)
class Target:
    """A small computer as planning sees it. Sizes in KiB and MiB, GHz, GB/s of memcpy on one core.

    `cores` counts the cores that inference should use (the big ones), `l2_sharing` the cores that
    share one L2; a cache of 0 KiB is absent. `local` is true of the machine that edgeprune runs on;
    `emulated_cpu` is the qemu name that picks the same kernels, None where there is none.
    `fields` repeats every value with its basis and its source.
    """

    name: str
    title: str
    path: Path
    user: bool
    local: bool
    arch: str
    core: str
    cores: int
    little_cores: int
    clock_ghz: float
    isa: tuple[str, ...]
    fp32_flops_per_cycle: int
    l1d_kb: int
    l2_kb: int
    l2_sharing: int
    l3_kb: int
    memory_mb: int
    bandwidth_gb_s: float
    threads: int
    optimization_level: str
    int8_policy: str
    int8_activations: str
    int8_reduce_range: bool
    emulated_cpu: str | None
    fields: tuple[TargetField, ...]
    schema: int


@dataclass(frozen=True)
class InstructionCount:
    """Emulated instructions of one inference on one thread; a ranking signal, not a time."""

    cpu: str
    per_inference: float
    runs: tuple[int, int]
    totals: tuple[int, ...]


@dataclass(frozen=True)
class VerifyResult:
    """An ONNX file's outputs elsewhere against this machine's. There is no field for a latency."""

    model: Path
    where: str
    emulated: bool
    parity: ParityResult
    instructions: InstructionCount | None


@dataclass(frozen=True)
class Shipment:
    """A release that is current on a device, after its files and its outputs were proven there."""

    name: str
    identity: str
    destination: str
    path: str
    previous: str | None
    bytes: int
    uploaded: bool
    smoke_max_abs: float


@dataclass(frozen=True)
class Finding:
    """One line of `edgeprune doctor`: what was looked at, whether it is well, what is there, what to do."""

    what: str
    ok: bool
    found: str
    tip: str
    needed: bool = True


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer of a quantised file. `reason` says why it stayed in float; it is empty for 8 bits.

    `harm` is the output error with this layer alone in 8 bits, as a share of the output's variance;
    `time_ratio` its time in 8 bits, conversions at its borders included, by that in float. None where
    it was not measured.
    """

    name: str
    operator: str
    quantised: bool
    reason: str
    harm: float | None
    time_ratio: float | None


@dataclass(frozen=True)
class QuantiseResult:
    """An 8-bit file with its proof.

    artifact: the file; its `parity` compares it with the same quantised graph run unoptimised.
    activations, weights, reduce_range, method: the types and the calibration that were chosen.
    output_error: mean square difference from the float file's outputs by their variance.
    before, after: what `evaluate` gave for the float file and for this one, where it was given.
    time_ratio: this file's time by the float file's, as measured by the caller's timer.
    """

    artifact: OnnxArtifact
    source: Path
    source_bytes: int
    layers: tuple[QuantisedLayer, ...]
    activations: str
    weights: str
    reduce_range: bool
    method: str
    samples: int
    output_error: float
    top1_agreement: float | None
    before: float | None
    after: float | None
    time_ratio: float | None
    evaluations: int
    notes: tuple[str, ...]


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
