"""The frozen values that stages hand to each other.

A record holds results and nothing that computes. `to_json` gives the plain form
that the run folder, `--json` and the report share; arrays travel as npz beside it.
"""

from __future__ import annotations

from edgeprune.records.base import Interval, to_json
from edgeprune.records.data import Splits
from edgeprune.records.devices import Finding, InstructionCount, Shipment, Target, TargetField, VerifyResult
from edgeprune.records.files import (
    OnnxArtifact,
    OutputParity,
    ParityResult,
    QuantisedLayer,
    QuantiseResult,
    SimplifyResult,
)
from edgeprune.records.interface import INTERFACE_FILE, Interface
from edgeprune.records.times import (
    BenchResult,
    FileProfile,
    LayerChange,
    LayerSize,
    ModelTiming,
    OperatorProfile,
    OperatorTime,
    TimingRatio,
    WhyResult,
)

__all__ = [
    "INTERFACE_FILE",
    "BenchResult",
    "FileProfile",
    "Finding",
    "InstructionCount",
    "Interface",
    "Interval",
    "LayerChange",
    "LayerSize",
    "ModelTiming",
    "OnnxArtifact",
    "OperatorProfile",
    "OperatorTime",
    "OutputParity",
    "ParityResult",
    "QuantiseResult",
    "QuantisedLayer",
    "Shipment",
    "SimplifyResult",
    "Splits",
    "Target",
    "TargetField",
    "TimingRatio",
    "VerifyResult",
    "WhyResult",
    "to_json",
]
