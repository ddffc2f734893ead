"""Devices: what is known of them, what was seen and delivered there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.records.files import ParityResult


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
