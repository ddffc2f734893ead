"""The usage examples of a bundle, from the texts beside this file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from edgeprune.errors import ShipError

ELEMENTS = {
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "bool": "BOOL",
}


def usage_python() -> bytes:
    """usage.py, which reads everything from the manifest beside it."""
    return Path(__file__).with_name("usage_python.txt").read_bytes()


def usage_cpp(
    model: str,
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    tolerance: float,
) -> bytes:
    """usage.cpp with this model's names, shapes and types written in.

    Raises:
        ShipError: a type that onnxruntime's C API has no plain array for.
    """
    template = Template(Path(__file__).with_name("usage_cpp.txt").read_text())
    values = {
        "model": model,
        "inputs": "\n".join(map(_tensor, inputs)),
        "outputs": "\n".join(map(_tensor, outputs)),
        "class_names": ", ".join(map(_literal, class_names)),
        "tolerance": repr(tolerance),
    }
    return template.substitute(values).encode()


def _tensor(tensor: dict[str, Any]) -> str:
    if tensor["dtype"] not in ELEMENTS:
        raise ShipError(f"{tensor['name']!r} has type {tensor['dtype']}", tip="give it a numeric type")
    shape = ", ".join(map(str, tensor["shape"]))
    element = f"ONNX_TENSOR_ELEMENT_DATA_TYPE_{ELEMENTS[tensor['dtype']]}"
    return f"    {{{_literal(tensor['name'])}, {{{shape}}}, {element}}},"


def _literal(text: str) -> str:
    """A C++ string literal in UTF-8; JSON's escapes are C++'s too, but for surrogate pairs."""
    return json.dumps(text, ensure_ascii=False)
