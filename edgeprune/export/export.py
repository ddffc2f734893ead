"""Write a `torch.export` program as a plain ONNX file.

Guarantee: the file has the opset asked for (the exporter silently gives another one when it cannot
convert), passes onnx.checker, and holds no stack traces, source paths or module names of the run that
wrote it, so the same program gives the same bytes anywhere. Nothing is printed and no warning leaks.
Elsewhere: whether the numbers are right (parity). Batch norm folding is the exporter's own.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ExportError, OutputError
from edgeprune.export.files import (
    DATA_SUFFIX,
    artifact_record,
    check_onnx,
    load_onnx,
    move_into_place,
    opset_of,
    workshop,
)
from edgeprune.records import OnnxArtifact

if TYPE_CHECKING:
    import onnx
    import torch

EXTERNAL_ABOVE_BYTES = 1_500_000_000  # protobuf stops at 2 GiB; below this one file is easier to ship


def export_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    opset: int = 18,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    batch_name: str = "batch",
    external_above: int = EXTERNAL_ABOVE_BYTES,
) -> OnnxArtifact:
    """Export `program` to `path`, atomically.

    A dynamic batch stays dynamic (its dimension is named `batch_name`), a fixed one stays fixed.

    Args:
        opset: version of the default operator set that the file must have; at least 18.
        external_above: weights of more bytes than this go to `path` + ".data".

    Raises:
        ExportError: torch.onnx refused the program, or the file is not what was asked for.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    external = _weight_bytes(program) > external_above
    with workshop(path) as folder:
        draft = folder / path.name
        converted = _convert(program, opset, input_names, output_names)
        try:
            with _quiet():
                converted.save(str(draft), external_data=external)
            _tidy(draft, external, batch_name)
        except OSError as e:
            raise OutputError(f"cannot write {path}: {e.strerror or e}", tip="free some space") from e
        actual = opset_of(load_onnx(draft, external_data=False))
        if actual != opset:
            raise ExportError(
                f"asked for opset {opset}; the exporter gave {actual}", tip=f"use opset {max(actual, 18)}"
            )
        check_onnx(draft)
        move_into_place(draft, path)
    return artifact_record(path, note="exported")


def _convert(
    program: torch.export.ExportedProgram,
    opset: int,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> Any:
    import torch

    try:
        with _quiet():
            return torch.onnx.export(
                program,
                dynamo=True,
                optimize=True,
                opset_version=opset,
                input_names=list(input_names) if input_names else None,
                output_names=list(output_names) if output_names else None,
                verbose=False,
            )
    except Exception as e:  # the exporter wraps causes in several unrelated classes
        raise ExportError(
            f"torch.onnx could not export the graph: {_first_line(e)}",
            tip="run `edgeprune inspect` to see the operators; keep the .pt2 if ONNX has no such operator",
        ) from e


def _tidy(path: Path, external: bool, batch_name: str) -> None:
    """Drop traces of the exporting machine and name the batch dimension."""
    import onnx

    model = load_onnx(path)
    for holder in _holders(model):
        del holder.metadata_props[:]  # also differs between a program in memory and the same one read back
    _name_batch(model, batch_name)
    if external:
        data = path.with_name(path.name + DATA_SUFFIX)
        data.unlink(missing_ok=True)  # onnx.save appends to an existing data file
        onnx.save(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    else:
        onnx.save(model, str(path))


def _holders(model: onnx.ModelProto) -> Iterator[Any]:
    yield model
    yield from _graph_holders(model.graph)
    for function in model.functions:
        yield function
        yield from function.node


def _graph_holders(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph
    for group in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from group
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    yield from _graph_holders(inner)


def _name_batch(model: onnx.ModelProto, wanted: str) -> None:
    """Give the symbolic leading dimension of the first dynamic input this name wherever it occurs."""
    dims: Iterable[Any] = (v.type.tensor_type.shape.dim for v in model.graph.input)
    names = [d[0].dim_param for d in dims if len(d) and d[0].dim_param]
    if not names or names[0] == wanted:
        return
    word = re.compile(rf"\b{re.escape(names[0])}\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = word.sub(wanted, dim.dim_param)


def _weight_bytes(program: torch.export.ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if hasattr(t, "element_size"))


def _first_line(error: BaseException) -> str:
    """The innermost cause in one line: the exporter's own text is a page about reporting bugs."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what the exporter prints, logs and warns. Process-wide, so not for use in several threads."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
