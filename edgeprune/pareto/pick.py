"""Another file of a finished run's front, as a folder that `verify`, `bench` and `ship` take.

    choices(run)                     the points of the front, fastest first, as report.json has them
    pick(run, "plan-48", folder)     model.onnx, recorded inputs and outputs, how inputs are made

Guarantee: the run stays as it is; the folder is complete or not there. What is known of a point (loss on
validation, latency by the dense file's) goes along as point.json; accuracy on the test part was measured
of the shipped file alone. Elsewhere: making the front (pipeline.front).
"""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.deploy.bundle_parts import Preprocess, read_arrays
from edgeprune.deploy.verify import reference_session
from edgeprune.errors import RunError
from edgeprune.export.model_files import model_files
from edgeprune.measure.runner import RunnerError, run_once
from edgeprune.records import to_json
from edgeprune.records.report import FrontRow, NamedModel, NamedTarget
from edgeprune.records.schema import parse_json, read_as, read_json
from edgeprune.store import sha256_file, whole_folder, write_json, write_npz

AGAIN = "compress again with --force"


@dataclass(frozen=True)
class _Run:
    """What a point takes along of report.json."""

    model: NamedModel
    target: NamedTarget
    seed: int
    front: tuple[FrontRow, ...] = ()


def choices(run: Path) -> tuple[FrontRow, ...]:
    """The points of a run's front, fastest first.

    Raises:
        RunError: no finished run, a damaged report, or a run without a front.
    """
    return _report(run).front


def pick(run: Path, name: str, folder: Path) -> FrontRow:
    """Write the folder of one point and give the point.

    Raises:
        RunError: no such point (all are listed), or its file is gone, was changed, or lies elsewhere.
        OutputError: the folder exists or cannot be written.
    """
    report = _report(run)
    points = {point.name: point for point in report.front}
    if name not in points:
        near = difflib.get_close_matches(name, points, 1, 0.3)
        guess = f"did you mean {near[0]}? " if near else ""
        raise RunError(f"{run}: no point {name!r} in its front", tip=f"{guess}it has {', '.join(points)}")
    point = points[name]
    source = run / point.file
    if run.resolve() not in source.resolve().parents:
        raise RunError(f"{run}: the file of {name} lies outside the run: {point.file!r}", tip=AGAIN)
    files = model_files(source, error=RunError)
    if sum(f.stat().st_size for f in files) != point.file_bytes:
        raise RunError(f"{source}: is not the file that was measured", tip=AGAIN)
    facts = parse_json(run / "preprocess.json", error=RunError, tip=AGAIN)
    read_as(Preprocess, facts, str(run / "preprocess.json"), tip=AGAIN)
    with whole_folder(folder) as temporary:
        for file in files[1:]:
            (temporary / file.relative_to(source.parent)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, temporary / file.relative_to(source.parent))
        shutil.copyfile(source, temporary / "model.onnx")
        write_npz(temporary / "golden.npz", recorded_outputs(run / "golden.npz", temporary / "model.onnx"))
        write_json(temporary / "preprocess.json", {**facts, "kept_inputs": None})
        origin = {"model": to_json(report.model), "target": to_json(report.target), "seed": report.seed}
        digest = sha256_file(temporary / "model.onnx")
        write_json(temporary / "point.json", {"point": to_json(point), "run": origin, "sha256": digest})
    return point


def _report(run: Path) -> _Run:
    report = read_json(_Run, run / "report.json", tip="give the folder that `edgeprune compress` wrote")
    if not report.front:
        raise RunError(f"{run}: has no front to pick from", tip="compress again with --front 6")
    return report


def recorded_outputs(golden: Path, model: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The run's recorded inputs with this file's outputs."""
    arrays = {key: value for key, value in read_arrays(golden).items() if key.startswith("input_")}
    try:
        session = reference_session(model)
        feeds = {item.name: arrays[f"input_{n}"] for n, item in enumerate(session.get_inputs())}
        outputs = run_once(model, session, feeds)
    except (RunnerError, KeyError) as error:
        raise RunError(f"{golden}: does not fit {model.name}: {error}", tip=AGAIN) from None
    return arrays | {f"output_{n}": out for n, out in enumerate(outputs)}
