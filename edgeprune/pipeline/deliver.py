"""The result as files, with the proof: ONNX, parity, accuracy of the file, timing.

What is measured here is the shipped file itself: accuracy on the test split comes from
onnxruntime, latency from paired rounds of the dense and the shipped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.bench import run_bench
from edgeprune.data import Dataset
from edgeprune.device.remote import Device, device_bench
from edgeprune.device.verify import verify_for_target, verify_on_device
from edgeprune.errors import ParityError
from edgeprune.model.run import outputs
from edgeprune.pipeline.exporting import export_trace
from edgeprune.pipeline.options import Clock, Options
from edgeprune.pipeline.prepare import BATCH, Prepared
from edgeprune.pipeline.state import State
from edgeprune.records import BenchResult, OnnxArtifact, VerifyResult
from edgeprune.recovery import compensate, recalibrate
from edgeprune.store import RunFolder, write_json, write_npz
from edgeprune.surgery import cut
from edgeprune.targets import load_target

GOLDEN = 4


@dataclass(frozen=True)
class Delivery:
    """Artefacts and measurements of a finished run."""

    dense: OnnxArtifact
    shipped: OnnxArtifact
    bench: BenchResult
    test: dict[str, npt.NDArray[np.float32]]  # step -> outputs on the test split
    evaluation: dict[str, npt.NDArray[np.float32]]  # set -> outputs of the shipped file
    verified: (
        VerifyResult | str | None
    )  # on the target's processor; the reason where it was not, None for the host


def deliver(
    prepared: Prepared,
    final: State,
    options: Options,
    folder: RunFolder,
    clock: Clock,
    device: Device | None = None,
) -> Delivery:
    """Write model.onnx, golden.npz and preprocess.json, and measure them.

    Raises:
        ParityError: a file does not compute what its graph computes.
    """
    assert prepared.file is not None
    dense, calls = prepared.file, list(prepared.calls)
    made: dict[str, Any] = {"fixed_batch": options.fixed_batch, "opset": options.opset}
    with clock.stage("export"):
        shipped = export_trace(final.trace, calls, folder.path / "model.onnx", **made)
    target = load_target(options.target)
    with clock.stage("bench"):
        timing: dict[str, Any] = {
            "threads": options.threads,
            "seconds": options.bench_seconds,
            "seed": options.seed,
        }
        pair = [dense.path, shipped.path]
        if device is None:
            bench = run_bench(pair, **timing)
        else:
            arch = None if target.local else target.arch
            bench = device_bench(device, pair, architecture=arch, **timing)
    verified: VerifyResult | str | None = None
    if not target.local:
        with clock.stage("verify"):
            verified = (
                verify_for_target(shipped.path, target)
                if device is None
                else verify_on_device(shipped.path, device)
            )
    test: dict[str, npt.NDArray[np.float32]] = {}
    evaluation: dict[str, npt.NDArray[np.float32]] = {}
    if prepared.dataset is not None and prepared.splits is not None:
        with clock.stage("test"):
            test = _steps(prepared, final)
            test["dense"] = prepared.dense["test"]
            indices = prepared.splits.test
            test["shipped"] = file_outputs(shipped.path, prepared.dataset, indices, clock)
            for name, other in prepared.evaluation.items():
                evaluation[name] = file_outputs(shipped.path, other, np.arange(len(other)), clock)
    _golden(prepared, shipped, calls, folder.path)
    return Delivery(dense, shipped, bench, test, evaluation, verified)


def file_outputs(
    path: Path, dataset: Dataset, indices: npt.NDArray[np.int64], clock: Clock
) -> npt.NDArray[np.float32]:
    """First output of an ONNX file for every sample, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    fixed = session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else BATCH
    found = []
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        whole = (
            np.concatenate([part, np.repeat(part[-1:], size - len(part))]) if isinstance(fixed, int) else part
        )
        out = session.run(None, dict(zip(names, dataset.batch(whole), strict=True)))[0]
        found.append(out[: len(part)])
        clock.progress.step(start + len(part), len(indices))
    return np.concatenate(found).astype(np.float32)


def _steps(prepared: Prepared, final: State) -> dict[str, npt.NDArray[np.float32]]:
    """Test outputs with the same components gone and no recovery, and with closed-form recovery alone."""
    assert prepared.dataset is not None and prepared.splits is not None
    indices = prepared.splits.test
    pruned = cut(prepared.trace, prepared.couplings, final.removed)
    found = {"pruned": outputs(pruned.graph, prepared.dataset, indices, BATCH)}
    calibration = prepared.calibration()
    closed, _ = compensate(prepared.trace, prepared.couplings, final.removed, calibration)
    found["compensated"] = outputs(recalibrate(closed, calibration).graph, prepared.dataset, indices, BATCH)
    return found


def _golden(
    prepared: Prepared, shipped: OnnxArtifact, calls: list[tuple[npt.NDArray[Any], ...]], path: Path
) -> None:
    """Recorded inputs and outputs that a device checks itself against, and how inputs are made."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(shipped.path), providers=["CPUExecutionProvider"])
    fixed = session.get_inputs()[0].shape[0]
    call = calls[0] if isinstance(fixed, int) else tuple(x[:GOLDEN] for x in calls[0])
    out = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), call, strict=True)})
    if not all(np.isfinite(o).all() for o in out if o.dtype.kind == "f"):
        raise ParityError(f"{shipped.path}: puts out NaN or infinity on recorded inputs")
    arrays = {f"input_{i}": x for i, x in enumerate(call)} | {f"output_{i}": x for i, x in enumerate(out)}
    write_npz(path / "golden.npz", arrays)
    dataset = prepared.dataset
    write_json(
        path / "preprocess.json",
        {
            "inputs": [{"name": i.name, "shape": i.shape, "dtype": i.type} for i in session.get_inputs()],
            "outputs": [{"name": o.name, "shape": o.shape, "dtype": o.type} for o in session.get_outputs()],
            "preprocessing": dataset.preprocessing if dataset is not None else {},
            "class_names": list(dataset.class_names or ()) if dataset is not None else [],
        },
    )
