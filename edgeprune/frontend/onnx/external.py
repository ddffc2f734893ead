"""Weights that an ONNX file keeps in files beside it.

Guarantee: only regular files of the model's own folder are opened, and at most 2 GB are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.errors import ModelError

INLINED = 2_000_000_000  # bytes; protobuf stops at 2 GiB


def inline_external(model: Any, folder: Path, source: str) -> tuple[Path, ...]:
    """Read weights that lie beside the file, from its own folder only; gives their paths.

    Raises:
        ModelError: outside of the folder, missing, too short, or more than 2 GB.
    """
    import onnx
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    paths: dict[str, Path] = {}
    total = 0
    for tensor in _get_all_tensors(model):
        if not uses_external_data(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        path = folder / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink():
            raise ModelError(
                f"{source}: weight {tensor.name!r} lies in {name!r}, outside of the file's folder",
                tip="put the data file beside the model and name it without folders",
            )
        if path.resolve().parent != folder.resolve() or not path.is_file():
            raise ModelError(
                f"{source}: weight {tensor.name!r} lies in {name!r}, which is not a file beside it",
                tip="copy the data file together with the model",
            )
        paths[name] = path
        start, length = _whole(entries.get("offset")), _whole(entries.get("length"))
        there = path.stat().st_size
        length = there - start if "length" not in entries else length
        if start < 0 or length < 0 or start + length > there:
            raise ModelError(
                f"{source}: weight {tensor.name!r} needs bytes {start} to {start + length} of {name}, which"
                f" has {there}",
                tip="copy the data file again",
            )
        total += length
        if total > INLINED:
            raise ModelError(
                f"{source}: has more than {INLINED / 1e9:.0f} GB of weights beside it",
                tip="prune the PyTorch model instead",
            )
        with path.open("rb") as handle:
            handle.seek(start)
            tensor.raw_data = handle.read(length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    return tuple(paths.values())


def _whole(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return -1
