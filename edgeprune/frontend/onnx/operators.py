"""The table of ONNX operators with every entry in it: importing this module imports all functions."""

from __future__ import annotations

from edgeprune.frontend.onnx import (  # noqa: F401  # importing them registers their entries
    attention,
    convolution,
    elementwise,
    norms,
    recurrent,
    reductions,
    resize,
    shapes,
)
from edgeprune.frontend.onnx.table import TABLE

__all__ = ["TABLE"]
