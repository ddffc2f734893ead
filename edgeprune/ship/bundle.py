"""What is shipped: model, manifest, runner, recorded inputs and outputs, usage examples.

    manifest.json   hashes of all other files, inputs, outputs, preprocessing, class names, versions
    model.onnx      and its external data
    golden/         recorded inputs and outputs, as npz and as raw little-endian arrays
    runner.py       the file that times and checks the model, here and on the device
    usage.py, usage.cpp

Guarantees: the same run gives the same bytes, so a release's identity is the sha256 of its
manifest; a bundle is made or opened only when the model gives the recorded outputs here, every
name is a plain relative one, nothing is a link, and nothing is there that the manifest does not
list. A manifest proves that nothing changed since it was made; it is not a signature.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgeprune
from edgeprune.bench import runner
from edgeprune.bench.files import model_files
from edgeprune.bench.host import RUNNER
from edgeprune.device.agent import MANIFEST, Refused, safe_name
from edgeprune.device.verify import FLOAT_TOLERANCE, INTEGER_TOLERANCE, is_quantised, reference_session
from edgeprune.errors import OutputError, ShipError, TargetError
from edgeprune.ship.usage import usage_cpp, usage_python
from edgeprune.targets import load_target

SCHEMA, KIND, SEAL = 1, "edgeprune-bundle", "manifest.sha256"
GOLDEN = "golden/call0.npz"


@dataclass(frozen=True)
class Bundle:
    """Files by name, the manifest among them; `identity` is the manifest's sha256."""

    name: str
    identity: str
    manifest: dict[str, Any]
    files: Mapping[str, Path | bytes]

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.manifest["files"].values())


def open_bundle(folder: Path, *, name: str | None = None, architecture: str | None = None) -> Bundle:
    """Take a run folder, or a bundle that `write_bundle` wrote, and check everything about it.

    Args:
        name: what to call the model on the device; otherwise the report's or the folder's.
        architecture: of the device it was made for (aarch64, x86_64), refused elsewhere; "any" for
            any. Otherwise that of the report's target.

    Raises:
        ShipError: something is missing, damaged, a link, of a hostile name, or not what the manifest says.
    """
    if not folder.is_dir():
        raise ShipError(f"{folder}: no such folder", tip="give the folder that compress wrote")
    sealed = (folder / MANIFEST).exists() or (folder / SEAL).exists()
    bundle = _read(folder) if sealed else _build(folder, name, architecture)
    _prove(bundle)
    return bundle


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle as a folder, complete or not at all.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already", tip="remove it or name another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for name, content in bundle.files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (temporary / SEAL).write_text(f"{bundle.identity}  {MANIFEST}\n")
        os.replace(temporary, folder)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}", tip="check the disk and the path"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(folder: Path, name: str | None, architecture: str | None) -> Bundle:
    for needed in ("model.onnx", "golden.npz"):
        file = folder / needed
        if file.is_symlink() or not file.is_file():
            what = "is a link" if file.is_symlink() else "is missing"
            raise ShipError(f"{folder}: {needed} {what}", tip="give the folder that compress wrote")
    model, *external = model_files(folder / "model.onnx", error=ShipError)
    report, facts = _json(folder / "report.json"), _json(folder / "preprocess.json")
    golden = _arrays(folder / "golden.npz")
    try:
        session = runner.open_session(model, 1)
    except runner.RunnerError as error:
        raise ShipError(str(error), tip="compress again") from None
    inputs = [_tensor(item.name, golden, f"input_{n}") for n, item in enumerate(session.get_inputs())]
    outputs = [_tensor(item.name, golden, f"output_{n}") for n, item in enumerate(session.get_outputs())]
    tolerance = INTEGER_TOLERANCE if is_quantised(model) else FLOAT_TOLERANCE
    classes = [str(label) for label in facts.get("class_names") or []]
    files: dict[str, Path | bytes] = {"model.onnx": model, "runner.py": RUNNER.read_bytes()}
    files |= {file.relative_to(folder).as_posix(): file for file in external}
    files[GOLDEN] = _npz(golden)
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
        "preprocessing": facts.get("preprocessing") or {},
        "class_names": classes,
        "architecture": _architecture(report, architecture),
        "versions": {"edgeprune": edgeprune.__version__, "onnxruntime": _runtime(), "opset": _opset(model)},
        "smoke": {"runner": "runner.py", "model": "model.onnx", "golden": [GOLDEN], "tolerance": tolerance},
        "files": {key: _entry(files[key]) for key in sorted(files)},
    }
    for key in files:
        _safe(key)
    text = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    return Bundle(manifest["name"], hashlib.sha256(text).hexdigest(), manifest, {**files, MANIFEST: text})


def _read(folder: Path) -> Bundle:
    """Open a written bundle; an odd name in its manifest is refused before anything is opened."""
    manifest, text = _json(folder / MANIFEST, needed=True), (folder / MANIFEST).read_bytes()
    identity = hashlib.sha256(text).hexdigest()
    tip = "build the bundle again from the run folder"
    try:
        sealed = (folder / SEAL).read_text().split()[0]
    except (OSError, IndexError):
        raise ShipError(f"{folder}: {SEAL} is missing", tip=tip) from None
    if sealed != identity:
        raise ShipError(f"{folder}: the manifest was changed after it was made", tip=tip)
    if manifest.get("kind") != KIND or manifest.get("schema") != SCHEMA:
        raise ShipError(f"{folder}: not a bundle of schema {SCHEMA}", tip="use the edgeprune that made it")
    try:
        listed = {_safe(key): (entry["sha256"], entry["bytes"]) for key, entry in manifest["files"].items()}
        smoke = manifest["smoke"]
        needed = {smoke["runner"], smoke["model"], *smoke["golden"]}
        float(smoke["tolerance"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ShipError(f"{folder}: the manifest lacks a field", tip=tip) from None
    if not needed <= set(listed):
        raise ShipError(f"{folder}: the manifest does not list {', '.join(needed - set(listed))}", tip=tip)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    if there != {MANIFEST, SEAL, *listed}:
        odd = ", ".join(sorted(there ^ {MANIFEST, SEAL, *listed}))
        raise ShipError(f"{folder}: the files are not those of the manifest: {odd}", tip=tip)
    links = [p for p in folder.rglob("*") if p.is_symlink() or not (p.is_dir() or p.is_file())]
    if links:
        raise ShipError(f"{links[0]}: is a link or a special file", tip=tip)
    for key, (digest, _) in listed.items():
        if _entry(folder / key)["sha256"] != digest:
            raise ShipError(f"{folder / key}: does not have the checksum of the manifest", tip=tip)
    external = model_files(folder / smoke["model"], error=ShipError)[1:]
    strays = [file for file in external if file.relative_to(folder).as_posix() not in listed]
    if strays:
        raise ShipError(f"{strays[0]}: external data that the manifest does not list", tip=tip)
    files: dict[str, Path | bytes] = {key: folder / key for key in listed}
    return Bundle(str(manifest.get("name", folder.name)), identity, manifest, {**files, MANIFEST: text})


def _prove(bundle: Bundle) -> None:
    """Run the recorded inputs here; a model that contradicts its own records must not travel."""
    smoke = bundle.manifest["smoke"]
    model, recorded = bundle.files[smoke["model"]], bundle.files[smoke["golden"][0]]
    assert isinstance(model, Path)
    source: Any = io.BytesIO(recorded) if isinstance(recorded, bytes) else recorded
    golden = _arrays(source)
    try:
        session = reference_session(model)
        feeds = {item.name: golden[f"input_{n}"] for n, item in enumerate(session.get_inputs())}
        verdict = runner.compare(runner.run_once(model, session, feeds), golden, smoke["tolerance"])
    except (runner.RunnerError, KeyError) as error:
        raise ShipError(f"{model}: cannot run its recorded inputs: {error}", tip="compress again") from None
    if verdict["why"] or not verdict["compared"]:
        why = verdict["why"] or "no output was recorded"
        raise ShipError(f"{model}: contradicts its recorded outputs: {why}", tip="compress again")


def _safe(name: str) -> str:
    try:
        return safe_name(name)
    except Refused as refused:
        raise ShipError(str(refused), tip=refused.tip) from None


def _json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    if path.is_symlink():
        raise ShipError(f"{path}: is a link", tip="put the file itself there")
    if not path.exists() and not needed:
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShipError(f"{path}: not readable JSON: {error}", tip="compress again") from None
    if not isinstance(found, dict):
        raise ShipError(f"{path}: not a JSON object", tip="compress again")
    return found


def _arrays(source: Any) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as saved:
            return {key: saved[key] for key in sorted(saved.files)}
    except Exception as error:  # zip, zlib and format errors share no base
        raise ShipError(f"{source}: not a readable npz file: {error}", tip="compress again") from None


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


def _entry(content: Path | bytes) -> dict[str, Any]:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


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
