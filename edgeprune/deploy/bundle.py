"""What is shipped: model, manifest, runner, recorded inputs and outputs, usage examples.

    manifest.json   hashes of all other files, inputs, outputs, preprocessing, class names, versions
    model.onnx      and its external data
    golden/         recorded inputs and outputs, as npz and as raw little-endian arrays
    runner.py       the file that times and checks the model, here and on the board
    usage.py, usage.cpp

Guarantees: a bundle is made or opened only when the model gives the recorded outputs here, every
name is a plain relative one, nothing is a link, and nothing is there that the manifest does not
list. A manifest proves that nothing changed since it was made; it is not a signature.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from edgeprune.deploy.agent import MANIFEST
from edgeprune.deploy.bundle_building import build
from edgeprune.deploy.bundle_parts import (
    KIND,
    SCHEMA,
    SEAL,
    Bundle,
    Manifest,
    entry_of,
    read_arrays,
    read_object,
    safe,
)
from edgeprune.deploy.verify import reference_session
from edgeprune.errors import ShipError
from edgeprune.export.model_files import model_files
from edgeprune.measure import runner
from edgeprune.records.schema import read_as
from edgeprune.store import whole_folder


def open_bundle(folder: Path, *, name: str | None = None, architecture: str | None = None) -> Bundle:
    """Take a run folder, or a bundle that `write_bundle` wrote, and check everything about it.

    Args:
        name: what to call the model on the board; otherwise the report's or the folder's.
        architecture: of the board it was made for (aarch64, x86_64), refused elsewhere; "any" for
            any. Otherwise that of the report's target.

    Raises:
        ShipError: something is missing, damaged, a link, of a hostile name, or not what the manifest says.
    """
    if not folder.is_dir():
        raise ShipError(f"{folder}: no such folder", tip="give the folder that compress wrote")
    sealed = (folder / MANIFEST).exists() or (folder / SEAL).exists()
    bundle = _read(folder) if sealed else build(folder, name, architecture)
    _prove(bundle)
    return bundle


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle as a folder, complete or not at all.

    Raises:
        OutputError: the folder exists already or cannot be written.
    """
    with whole_folder(folder) as temporary:
        for name, content in bundle.files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (temporary / SEAL).write_text(f"{bundle.identity}  {MANIFEST}\n")


def _read(folder: Path) -> Bundle:
    """Open a written bundle; an odd name in its manifest is refused before anything is opened."""
    manifest, text = read_object(folder / MANIFEST, needed=True), (folder / MANIFEST).read_bytes()
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
    typed = read_as(Manifest, manifest, str(folder / MANIFEST), error=ShipError, tip=tip)
    listed = {safe(key): entry.sha256 for key, entry in typed.files.items()}
    needed = {typed.smoke.runner, typed.smoke.model, *typed.smoke.golden}
    if not needed <= set(listed):
        raise ShipError(f"{folder}: the manifest does not list {', '.join(needed - set(listed))}", tip=tip)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    if there != {MANIFEST, SEAL, *listed}:
        odd = ", ".join(sorted(there ^ {MANIFEST, SEAL, *listed}))
        raise ShipError(f"{folder}: the files are not those of the manifest: {odd}", tip=tip)
    links = [p for p in folder.rglob("*") if p.is_symlink() or not (p.is_dir() or p.is_file())]
    if links:
        raise ShipError(f"{links[0]}: is a link or a special file", tip=tip)
    for key, digest in listed.items():
        if entry_of(folder / key)["sha256"] != digest:
            raise ShipError(f"{folder / key}: does not have the checksum of the manifest", tip=tip)
    external = model_files(folder / typed.smoke.model, error=ShipError)[1:]
    strays = [file for file in external if file.relative_to(folder).as_posix() not in listed]
    if strays:
        raise ShipError(f"{strays[0]}: external data that the manifest does not list", tip=tip)
    files: dict[str, Path | bytes] = {key: folder / key for key in listed}
    return Bundle(typed.name, identity, manifest, {**files, MANIFEST: text})


def _prove(bundle: Bundle) -> None:
    """Run the recorded inputs here; a model that contradicts its own records must not travel."""
    smoke = bundle.manifest["smoke"]
    model, recorded = bundle.files[smoke["model"]], bundle.files[smoke["golden"][0]]
    assert isinstance(model, Path)
    if isinstance(recorded, bytes):
        golden = read_arrays(io.BytesIO(recorded), smoke["golden"][0])
    else:
        golden = read_arrays(recorded)
    try:
        session = reference_session(model)
        feeds = {item.name: golden[f"input_{n}"] for n, item in enumerate(session.get_inputs())}
        verdict = runner.compare(runner.run_once(model, session, feeds), golden, smoke["tolerance"])
    except (runner.RunnerError, KeyError) as error:
        raise ShipError(f"{model}: cannot run its recorded inputs: {error}", tip="compress again") from None
    if verdict["why"] or not verdict["compared"]:
        why = verdict["why"] or "no output was recorded"
        raise ShipError(f"{model}: contradicts its recorded outputs: {why}", tip="compress again")
