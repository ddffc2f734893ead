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
from pathlib import Path
from typing import Any

from edgeprune.deploy.verify import reference_session
from edgeprune.errors import RunError
from edgeprune.measure.files import model_files
from edgeprune.store import read_record, sha256_file, whole_folder, write_json, write_npz


def choices(run: Path) -> list[dict[str, Any]]:
    """The points of a run's front, fastest first.

    Raises:
        RunError: no finished run, or one without a front.
    """
    report = read_record(run / "report.json")
    front = report.get("front") if isinstance(report, dict) else None
    if not front:
        raise RunError(f"{run}: has no front to pick from", tip="compress again with --front 6")
    return list(front)


def pick(run: Path, name: str, folder: Path) -> dict[str, Any]:
    """Write the folder of one point and give the point.

    Raises:
        RunError: no such point (the nearest names are offered), or its file is gone or was changed.
        OutputError: the folder exists or cannot be written.
    """
    points = {str(p["name"]): p for p in choices(run)}
    if name not in points:
        near = difflib.get_close_matches(name, points, 1, 0.3)
        guess = f"did you mean {near[0]}? " if near else ""
        raise RunError(f"{run}: no point {name!r} in its front", tip=f"{guess}it has {', '.join(points)}")
    point = points[name]
    source = run / str(point.get("file", ""))
    files = model_files(source, error=RunError)
    if sum(f.stat().st_size for f in files) != point.get("file_bytes"):
        raise RunError(f"{source}: is not the file that was measured", tip="compress again with --force")
    with whole_folder(folder) as made:
        for file in files[1:]:
            shutil.copyfile(file, made / file.name)
        shutil.copyfile(source, made / "model.onnx")
        write_npz(made / "golden.npz", _recorded(run / "golden.npz", made / "model.onnx"))
        facts = read_record(run / "preprocess.json")
        write_json(made / "preprocess.json", {**facts, "kept_inputs": None})
        report = read_record(run / "report.json")
        origin = {"model": report["model"], "target": report["target"], "seed": report["seed"]}
        digest = sha256_file(made / "model.onnx")
        write_json(made / "point.json", {"point": point, "run": origin, "sha256": digest})
    return point


def _recorded(golden: Path, model: Path) -> dict[str, Any]:
    """The run's recorded inputs with this file's outputs."""
    import numpy as np

    with np.load(golden) as stored:
        arrays = {key: stored[key] for key in stored.files if key.startswith("input_")}
    session = reference_session(model)
    call = {item.name: arrays[f"input_{n}"] for n, item in enumerate(session.get_inputs())}
    return arrays | {f"output_{n}": out for n, out in enumerate(session.run(None, call))}
