"""ONNX files that were written, and the proof that came with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OutputParity:
    """How one output of an ONNX file compares with its reference, over all inputs given.

    `max_abs` is the largest absolute difference and `atol` what was allowed. `spread` is the root
    mean square, over positions, of the reference's standard deviation over samples: how much the
    output moves with the input. `spread_ratio` is spread / max_abs (None when they agree bit for bit).
    `top1_agreement` is the share of samples with the same argmax over axis 1; None where that has no meaning.
    `channel` names the value that is nearest to what its own channel is allowed, `channel_max_abs` its
    difference and `channel_atol` what was allowed there.
    """

    name: str
    max_abs: float
    atol: float
    max_reference: float
    spread: float
    spread_ratio: float | None
    top1_agreement: float | None
    channel: str = ""
    channel_max_abs: float = 0.0
    channel_atol: float = 0.0


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
