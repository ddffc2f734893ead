"""Turn a `torch.export` program into an ONNX file that is proven to compute the same.

    produce = export_onnx → check_parity → simplify → check_parity → swap

Guarantee: a file that `produce` leaves at its path has passed `onnx.checker` and parity on inputs
that move its output; on any failure the path holds what it held before.
Elsewhere: timing the file (bench), quantising it, delivering it (ship).
"""

from __future__ import annotations

from edgeprune.onnxfile.export import export_onnx
from edgeprune.onnxfile.files import describe
from edgeprune.onnxfile.parity import check_parity
from edgeprune.onnxfile.production import produce
from edgeprune.onnxfile.simplification import simplify

__all__ = ["check_parity", "describe", "export_onnx", "produce", "simplify"]
