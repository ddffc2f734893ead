"""From a Trace to a parity-checked ONNX file, with the batch free or fixed.

Guarantee: the inputs of the parity check are real where there is data, else seeded noise
shaped like the example; a batch size that the graph cannot have is refused.
Elsewhere: the exporter and the proof themselves (onnxfile).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.data import Dataset
from edgeprune.errors import ExportError
from edgeprune.export.production import produce
from edgeprune.graph.execution import reference, samples_first
from edgeprune.graph.features import drop_identity_selections
from edgeprune.graph.trace import Trace, reexport
from edgeprune.measure import runner
from edgeprune.records import OnnxArtifact
from edgeprune.session.progress import Progress
from edgeprune.tasks.base import Outputs

BATCH = 128
PARITY_CALLS, PARITY_BATCH = 4, 8
ALL_CORES = 0  # onnxruntime chooses
TIP = "check it with onnx.checker, or export it again"
InputArrays = tuple[npt.NDArray[Any], ...]


def export_trace(
    traced: Trace,
    calls: list[InputArrays],
    path: Path,
    *,
    opset: int,
    fixed_batch: int | None = None,
    simplify: bool = True,
) -> OnnxArtifact:
    """Write `path` and prove it on `calls`; a selection of input features that selects all is left out.

    Args:
        fixed_batch: the batch of the file; None leaves a free batch free, and keeps that of an ONNX source.

    Raises:
        ExportError: the graph has another fixed batch; and as `produce`.
        ParityError, OutputError: as `produce`.
    """
    traced = drop_identity_selections(traced)
    inputs, dynamic = traced.inputs, traced.dynamic
    fixed_batch = file_batch(traced, fixed_batch)
    if fixed_batch is not None:
        stuck = [len(x) for x, d in zip(inputs, dynamic, strict=True) if not d and x.dim()]
        if stuck and stuck[0] != fixed_batch:
            raise ExportError(
                f"--fixed-batch {fixed_batch}: the graph has a fixed batch of {stuck[0]}",
                tip="leave --fixed-batch out, or torch.export the model again with a dynamic batch",
            )
        inputs = tuple(_sized(x, fixed_batch) if d else x for x, d in zip(inputs, dynamic, strict=True))
        dynamic = (False,) * len(dynamic)
    program = reexport(traced.graph, inputs, dynamic)
    names = traced.interface
    return produce(
        program, reference(traced.graph), calls, path, opset=opset, simplify_graph=simplify,
        input_names=None if names is None else names.inputs,
        output_names=None if names is None else names.outputs,
        batch_name="batch" if names is None else names.batch_name,
    )  # fmt: skip


def file_batch(traced: Trace, asked: int | None) -> int | None:
    """The fixed batch of the files of a network: the one asked for, else that of its ONNX source."""
    return traced.interface.fixed_batch if asked is None and traced.interface is not None else asked


def parity_inputs(
    traced: Trace,
    dataset: Dataset | None,
    indices: npt.NDArray[np.int64] | None,
    *,
    fixed_batch: int | None = None,
    seed: int = 0,
) -> list[InputArrays]:
    """Calls for the parity check: samples `indices` of the data, else seeded noise of the example's type."""
    size = file_batch(traced, fixed_batch) or (PARITY_BATCH if all(traced.dynamic) else len(traced.inputs[0]))
    if dataset is not None and indices is not None:
        pool = np.resize(indices, PARITY_CALLS * size)
        return [dataset.batch(pool[i * size : (i + 1) * size]) for i in range(PARITY_CALLS)]
    rng = np.random.default_rng(seed)
    calls = []
    for _ in range(PARITY_CALLS):
        call = []
        for x, d in zip(traced.inputs, traced.dynamic, strict=True):
            shape = (size, *x.shape[1:]) if d else tuple(x.shape)
            if x.is_floating_point():
                call.append(rng.standard_normal(shape).astype(np.float32))
            else:
                top = int(x.max()) + 1 if x.numel() else 1
                call.append(rng.integers(0, max(top, 1), shape).astype(x.numpy().dtype))
        calls.append(tuple(call))
    return calls


def file_outputs(path: Path, dataset: Dataset, indices: npt.NDArray[np.int64], progress: Progress) -> Outputs:
    """All outputs of an ONNX file for some samples, by onnxruntime; samples first, floats as float32.

    Raises:
        ExportError: onnxruntime cannot load or run the file, or it takes other inputs than the data hold.
    """
    try:
        session = runner.open_session(path, ALL_CORES)
    except runner.RunnerError as error:
        raise ExportError(str(error), tip=TIP) from None
    names = [i.name for i in session.get_inputs()]
    fixed = session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else BATCH
    parts: list[Outputs] = []
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        padded = np.resize(chosen, size) if isinstance(fixed, int) else chosen
        call = dataset.batch(padded)
        if len(call) != len(names):
            raise ExportError(f"{path}: takes {len(names)} inputs; {dataset.name} gives {len(call)}")
        results = _run(path, session, dict(zip(names, call, strict=True)))
        first = (samples_first(torch.from_numpy(np.asarray(x)), len(padded)).numpy() for x in results)
        parts.append(tuple(x[: len(chosen)] for x in first))
        progress.step(start + len(chosen), len(indices))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _run(path: Path, session: Any, feeds: dict[str, npt.NDArray[Any]]) -> list[Any]:
    try:
        return runner.run_once(path, session, feeds)
    except runner.RunnerError as error:
        raise ExportError(str(error), tip=TIP) from None


def _sized(x: torch.Tensor, batch: int) -> torch.Tensor:
    return x.repeat(-(-batch // len(x)), *[1] * (x.dim() - 1))[:batch].contiguous()
