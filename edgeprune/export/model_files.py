"""Which files an ONNX model consists of.

Gives the model file and the external data it names, and refuses names that leave its folder:
a hostile model could otherwise make a copy or an upload read any file of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from edgeprune.errors import BenchError, EdgepruneError


def model_files(path: Path, *, error: type[EdgepruneError] = BenchError) -> tuple[Path, ...]:
    """List the model file first, then its external data files, each once.

    Raises:
        `error`: the file is missing, empty, cut short or not ONNX; external data is missing, is a
            link, or lies outside the model's folder.
    """
    import onnx

    if not path.exists():
        raise error(f"{path}: no such file", tip="give the path of an ONNX model")
    if not path.is_file():
        raise error(f"{path}: is not a file", tip="give the path of an ONNX model")
    if path.stat().st_size == 0:
        raise error(f"{path}: the file is empty", tip="export the model again")
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":  # what torch.save and torch.export.save write
            raise error(
                f"{path}: is a PyTorch file, not ONNX", tip=f"make one of it: edgeprune export {path.name}"
            )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError is not public API
        raise error(f"{path}: not an ONNX model, or cut short", tip="export the model again") from None
    if not model.graph.node and not model.graph.output:
        raise error(f"{path}: holds no graph", tip="export the model again")
    files: dict[Path, None] = {path: None}
    for name in _external_names(model.graph):
        files[_inside(path, name, error)] = None
    return tuple(files)


def model_bytes(path: Path) -> int:
    """Size of the model with its external data."""
    return sum(file.stat().st_size for file in model_files(path))


def _external_names(graph: Any) -> Iterator[str]:
    tensors = [*graph.initializer]
    for sparse in graph.sparse_initializer:
        tensors += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node or inner.initializer:
                    yield from _external_names(inner)
    for tensor in tensors:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _inside(model: Path, name: str, error: type[EdgepruneError]) -> Path:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise error(
            f"{model}: its external data {name!r} lies outside the model's folder", tip="export it again"
        )
    file = model.parent / pure
    links = [part for part in (file, *file.parents) if part.is_symlink() and model.parent in part.parents]
    if links or not file.is_file():
        what = "is a link" if links else "is missing"
        raise error(f"{model}: its external data {name!r} {what}", tip=f"keep {name} beside the model")
    return file
