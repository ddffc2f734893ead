"""What an ONNX file on disk is: its hash, size, opset, nodes and named inputs; and how it gets there.

Guarantee: `artifact_record` reads what is on disk and believes nobody; `move_into_place` replaces the model
and its external data together, or says why it could not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from edgeprune.errors import ExportError, OutputError
from edgeprune.export.model_files import model_files
from edgeprune.paths import require_replaceable
from edgeprune.records import OnnxArtifact

DATA_SUFFIX = ".data"


def artifact_record(path: Path, *, note: str = "", nodes_exported: int | None = None) -> OnnxArtifact:
    """Read an ONNX file into its artefact record, without parity.

    Raises:
        ExportError: the file is missing, unreadable or not an ONNX model.
    """
    model = load_onnx(path, external_data=False)
    files = tuple((p.name, sha256(p), p.stat().st_size) for p in model_files(path, error=ExportError))
    nodes = count_nodes(model)
    return OnnxArtifact(
        path=path,
        sha256=files[0][1],
        bytes=sum(size for _, _, size in files),
        files=files,
        opset=opset_of(model),
        inputs=tuple(v.name for v in model.graph.input),
        outputs=tuple(v.name for v in model.graph.output),
        dynamic_batch=any(_symbolic_batch(v) for v in model.graph.input),
        nodes=nodes,
        nodes_exported=nodes if nodes_exported is None else nodes_exported,
        simplified=False,
        note=note,
        parity=None,
    )


def load_onnx(path: Path, *, external_data: bool = True) -> onnx.ModelProto:
    """`onnx.load` with this project's errors."""
    model_files(path, error=ExportError)
    try:
        return onnx.load(str(path), load_external_data=external_data)
    except Exception as e:  # external data that is too short, say
        raise ExportError(f"{path}: its external data cannot be read: {e}", tip="export it again") from e


def input_shapes(path: Path) -> list[tuple[int, ...]]:
    """The shape of each input, batch first; a free dimension is 0.

    Raises:
        ExportError: the file cannot be read, takes no input, or an input is no tensor with a batch.
    """
    graph = load_onnx(path, external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}  # old files list weights as inputs too
    values = [value for value in graph.input if value.name not in stored]
    if not values:
        raise ExportError(f"{path}: takes no input", tip="give the file of a network")
    for value in values:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.shape.dim:
            raise ExportError(
                f"{path}: input {value.name!r} is no tensor with a batch", tip="export it with a batch"
            )
    return [tuple(int(d.dim_value) for d in v.type.tensor_type.shape.dim) for v in values]


def check_onnx(path: Path) -> None:
    """Run onnx.checker with shape inference on a file.

    Raises:
        ExportError: the checker refused it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as e:
        raise ExportError(f"onnx.checker refused {path.name}: {e}", tip="report this with the model") from e


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default operator set; 0 where the file imports none."""
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes of the main graph, constants included."""
    return len(model.graph.node)


def sha256(path: Path) -> str:
    """The hex digest of a file, read in blocks."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, so that a finished file moves in with one rename.

    Raises:
        OutputError: the folder of `path` cannot be made or written to.
    """
    require_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", tip="choose another --out") from e
    with folder as name:
        yield Path(name)


def move_into_place(source: Path, path: Path) -> None:
    """Move a finished model and its external data to `path`; the data first, so no reader finds half.

    The external data is found by the name inside the model, so `source` must bear the final file name.
    """
    stale = path.with_name(path.name + DATA_SUFFIX)
    try:
        model, *data = model_files(source, error=ExportError)
        for extra in (*data, path):
            require_replaceable(path.parent / extra.name)
        for extra in data:
            os.replace(extra, path.parent / extra.name)
        os.replace(model, path)
        if not data:
            stale.unlink(missing_ok=True)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", tip="choose another --out") from e


def _symbolic_batch(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return bool(dims) and not dims[0].HasField("dim_value")
