"""Compose the stages: load → score → mask → surgery → recovery → ONNX → proof → report.

    prepare   model, data, splits, dense outputs
    rounds    one prune-recover round; the search over budgets owns the loop
    deliver   ONNX files, parity, accuracy of the shipped file, timing, report

Each step's record is in the run folder, so that a killed run goes on where it was.
"""

from __future__ import annotations

from edgeprune.pipeline.compress import Result, compress
from edgeprune.pipeline.options import Options, Progress

__all__ = ["Options", "Progress", "Result", "compress"]
