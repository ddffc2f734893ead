"""Make a bundle from the folder that compress wrote.

Guarantee: the same run gives the same bytes, so its identity does not depend on when or where it
was bundled. Elsewhere: whether the model keeps to its records (bundle.py proves that).
"""

from __future__ import annotations

import hashlib
import io
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.deploy.agent import MANIFEST
from edgeprune.deploy.bundle_parts import (
    KIND,
    SCHEMA,
    TIP,
    Bundle,
    Preprocess,
    entry_of,
    read_arrays,
    read_object,
    safe,
)
from edgeprune.deploy.usage import usage_cpp, usage_python
from edgeprune.deploy.verify import FLOAT_TOLERANCE, INTEGER_TOLERANCE, is_quantised
from edgeprune.errors import ShipError, TargetError
from edgeprune.export.channels import allowed_gap
from edgeprune.export.model_files import model_files
from edgeprune.measure import runner
from edgeprune.measure.host import RUNNER
from edgeprune.records.schema import read_as
from edgeprune.targets import load_target

GOLDEN = "golden/call0.npz"


def build(folder: Path, name: str | None, architecture: str | None) -> Bundle:
    """Gather model, records, runner and examples, and describe them in a manifest.

    Raises:
        ShipError: model.onnx or golden.npz is missing, damaged or a link, or they do not fit.
    """
    for needed in ("model.onnx", "golden.npz"):
        file = folder / needed
        if file.is_symlink() or not file.is_file():
            what = "is a link" if file.is_symlink() else "is missing"
            raise ShipError(f"{folder}: {needed} {what}", tip="give the folder that compress wrote")
    model, *external = model_files(folder / "model.onnx", error=ShipError)
    report, path = read_object(folder / "report.json"), folder / "preprocess.json"
    facts = read_as(Preprocess, read_object(path), str(path), error=ShipError, tip=TIP)
    golden = read_arrays(folder / "golden.npz")
    try:
        session = runner.open_session(model, 1)
    except runner.RunnerError as error:
        raise ShipError(str(error), tip="compress again") from None
    inputs = [_tensor(item.name, golden, f"input_{n}") for n, item in enumerate(session.get_inputs())]
    outputs = [_tensor(item.name, golden, f"output_{n}") for n, item in enumerate(session.get_outputs())]
    tolerance = INTEGER_TOLERANCE if is_quantised(model) else FLOAT_TOLERANCE
    classes = [str(label) for label in facts.class_names or ()]
    files: dict[str, Path | bytes] = {"model.onnx": model, "runner.py": RUNNER.read_bytes()}
    files |= {file.relative_to(folder).as_posix(): file for file in external}
    files[GOLDEN] = _npz(golden | _allowed(golden, tolerance))
    files |= {f"golden/{key}.bin": _raw(value) for key, value in golden.items()}
    files["usage.py"] = usage_python()
    files["usage.cpp"] = usage_cpp("model.onnx", inputs, outputs, classes, tolerance)
    if report:
        files["report.json"] = folder / "report.json"
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KIND,
        "name": name or _name(report, folder),
        "model": "model.onnx",
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": facts.preprocessing or {},
        "kept_inputs": facts.kept_inputs or [],  # what need not be in it was never read
        "class_names": classes,
        "architecture": _architecture(report, architecture),
        "versions": {
            "edgeprune": metadata.version("edgeprune"),
            "onnxruntime": _runtime(),
            "opset": _opset(model),
        },
        "smoke": {"runner": "runner.py", "model": "model.onnx", "golden": [GOLDEN], "tolerance": tolerance},
        "files": {key: entry_of(files[key]) for key in sorted(files)},
    }
    for key in files:
        safe(key)
    text = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    return Bundle(manifest["name"], hashlib.sha256(text).hexdigest(), manifest, {**files, MANIFEST: text})


def _allowed(golden: dict[str, np.ndarray], tolerance: float) -> dict[str, np.ndarray]:
    """`allowed_0` ...: how far each channel of an output may be off on the board, for the runner."""
    return {
        f"allowed_{key.removeprefix('output_')}": allowed_gap(value, tolerance)
        for key, value in golden.items()
        if key.startswith("output_") and value.dtype.kind == "f"
    }


def _tensor(name: str, golden: dict[str, np.ndarray], key: str) -> dict[str, Any]:
    if key not in golden:
        raise ShipError(f"golden.npz holds no {key} for {name!r}", tip="compress again")
    return {"name": name, "shape": list(golden[key].shape), "dtype": str(golden[key].dtype)}


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz of fixed bytes: numpy stamps no time into it."""
    buffer = io.BytesIO()
    content: dict[str, Any] = dict(arrays)
    np.savez(buffer, **content)
    return buffer.getvalue()


def _raw(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def _name(report: dict[str, Any], folder: Path) -> str:
    model = report.get("model")
    named = model.get("name") if isinstance(model, dict) else model
    return str(named) if named else folder.resolve().name


def _architecture(report: dict[str, Any], asked: str | None) -> str | None:
    """What was asked for, else that of the target in the report; None where any will do."""
    if asked is not None:
        return None if asked == "any" else asked
    target = report.get("target")
    named = target.get("name") if isinstance(target, dict) else None
    if named in (None, "host"):
        return None
    try:
        return load_target(str(named)).arch
    except TargetError as error:
        raise ShipError(
            f"the report's target: {error.message}", tip="say it: --architecture aarch64"
        ) from None


def _runtime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _opset(model: Path) -> int:
    import onnx

    loaded = onnx.load(model, load_external_data=False)
    return max((entry.version for entry in loaded.opset_import if entry.domain in ("", "ai.onnx")), default=0)
