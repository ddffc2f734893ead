"""The whole way from program to shipped ONNX file, with proof at each step.

    export → parity → simplify → parity → swap

Guarantee: everything happens in a temporary folder beside the destination; what is moved in at the end
has passed parity, and a simplified graph that fails it is dropped in favour of the plain one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ParityError
from edgeprune.export.export import export_onnx
from edgeprune.export.files import artifact_record, load_onnx, move_into_place, workshop
from edgeprune.export.parity import Arrays, check_parity
from edgeprune.export.simplification import simplify
from edgeprune.records import OnnxArtifact

if TYPE_CHECKING:
    import torch


def produce(
    program: torch.export.ExportedProgram,
    reference: Callable[[Arrays], Arrays],
    inputs: Sequence[Arrays],
    path: Path,
    *,
    opset: int = 18,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    batch_name: str = "batch",
    rtol: float = 1e-4,
    simplify_graph: bool = True,
    timeout_s: float = 120,
    memory_mb: int = 4096,
) -> OnnxArtifact:
    """Export `program` to `path` and prove it against `reference` on `inputs`.

    A file with a dynamic batch is also run on a single sample, since a batch that was frozen by
    accident still agrees on the size it was traced with.

    Raises:
        ExportError, OutputError: as `export_onnx`.
        ParityError, DataError: as `check_parity`; nothing is left at `path` then but what was there.
    """
    path = Path(path)
    with workshop(path) as folder:
        draft = folder / path.name
        exported = export_onnx(
            program,
            draft,
            opset=opset,
            input_names=input_names,
            output_names=output_names,
            batch_name=batch_name,
        )
        calls = [*inputs, *single_sample(draft, inputs)]
        parity = check_parity(reference, draft, calls, rtol=rtol)
        chosen, simplified, note = draft, False, "not simplified: not asked for"
        if simplify_graph:
            candidate = folder / "simplified" / path.name
            candidate.parent.mkdir()
            result = simplify(draft, timeout_s=timeout_s, memory_mb=memory_mb, destination=candidate)
            note = result.note
            if result.path is not None:
                try:
                    parity = check_parity(reference, result.path, calls, rtol=rtol)
                    chosen, simplified = result.path, True
                except ParityError as e:
                    note = f"not simplified: onnxsim's file failed parity ({e.message})"
        move_into_place(chosen, path)
    return dataclasses.replace(
        artifact_record(path, note=note, nodes_exported=exported.nodes), simplified=simplified, parity=parity
    )


def single_sample(path: Path, inputs: Sequence[Arrays]) -> list[Arrays]:
    """The first call cut to one sample along every dynamic leading dimension, where it holds more."""
    dynamic = [
        bool(d) and not d[0].HasField("dim_value")
        for d in (v.type.tensor_type.shape.dim for v in load_onnx(path, external_data=False).graph.input)
    ]
    if not inputs or not any(dynamic) or len(dynamic) != len(inputs[0]):
        return []
    call = tuple(
        np.asarray(a)[:1] if cut else np.asarray(a) for a, cut in zip(inputs[0], dynamic, strict=True)
    )
    return [] if all(a.shape == np.shape(b) for a, b in zip(call, inputs[0], strict=True)) else [call]
