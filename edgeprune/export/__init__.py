"""Turn a `torch.export` program into an ONNX file that is proven to compute the same.

    produce = export_onnx → check_parity → simplify → check_parity → swap

Guarantee: a file that `produce` leaves at its path has passed `onnx.checker` and parity on inputs
that move its output; on any failure the path holds what it held before.
`quantise` makes an 8-bit file of a float one, with layers that 8 bits hurt left in float.
Elsewhere: timing the file (measure), delivering it (deploy).
"""
