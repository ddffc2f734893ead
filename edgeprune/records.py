"""The frozen values that stages hand to each other.

A record holds results and nothing that computes. `to_json` gives the plain form
that the run folder, `--json` and the report share; arrays travel as npz beside it.
"""

from __future__ import annotations

import dataclasses
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
