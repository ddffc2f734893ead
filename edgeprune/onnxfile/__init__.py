"""Turn a `torch.export` program into an ONNX file that is proven to compute the same.

    produce = export_onnx → check_parity → simplify → check_parity → swap

Guarantee: a file that `produce` leaves at its path has passed `onnx.checker` and parity on inputs
that move its output; on any failure the path holds what it held before.
`quantise` makes an 8-bit file of a float one, with layers that 8 bits hurt left in float.
Elsewhere: timing the file (bench), delivering it (ship).
"""

from __future__ import annotations

from edgeprune.onnxfile.export import export_onnx
from edgeprune.onnxfile.files import describe
from edgeprune.onnxfile.parity import check_parity
from edgeprune.onnxfile.production import produce
from edgeprune.onnxfile.quantisation import quantise
from edgeprune.onnxfile.quantisation_policy import int8_settings, require_gain
from edgeprune.onnxfile.simplification import simplify

__all__ = [
    "check_parity",
    "describe",
    "export_onnx",
    "int8_settings",
    "produce",
    "quantise",
    "require_gain",
    "simplify",
]
