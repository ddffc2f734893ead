"""Everything that is fixed before the first removal: trace, couplings, data, dense outputs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.data import Dataset, check_labels, split
from edgeprune.errors import DataError, ModelError
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.execution import outputs
from edgeprune.graph.features import open_features
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace, run
from edgeprune.measure.staircase import staircase
from edgeprune.records import Splits
from edgeprune.run.open_trace import open_trace, require_free_batch
from edgeprune.search.costs import refuse_unreachable
from edgeprune.session.dense import Measure, Prepared
from edgeprune.session.exporting import BATCH, export_trace, parity_inputs
from edgeprune.session.latency_model import open_latency
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Clock, Options
from edgeprune.store import RunFolder
from edgeprune.tasks.metrics import resolve_metric


def prepare(
    loaded: LoadedModel,
    dataset: Dataset | None,
    evaluation: Mapping[str, Dataset],
    options: Options,
    folder: RunFolder,
    clock: Clock,
    board: MeasurementTarget,
) -> Prepared:
    """Trace, couple, split, run the dense model once over the parts, and export it.

    Raises:
        TraceError, DataError: as the stages do; labels that the model cannot have.
        BudgetError: the budget lies below what structure allows; said before anything is computed.
        ExportError, ParityError: the dense model does not become a faithful ONNX file.
    """
    with clock.stage("trace"):
        given, notes = open_trace(loaded)
        if dataset is not None:
            require_free_batch(given)
        traced = given
        if options.prune_inputs:
            traced, stay = open_features(given)
            notes = (*notes, *stay)
    with clock.stage("coupling"):
        check_keep(traced, options.keep)
        choice = FactorChoice(options.heads, options.groups)
        couplings = analyse(traced, keep=options.keep, seed=options.seed, choice=choice)
    refuse_unreachable(traced, couplings, options.budget)
    splits, dense = None, {}
    metrics = tuple(resolve_metric(name) for name in options.metrics)
    if dataset is not None:
        with torch.no_grad():
            example = run(traced.graph, traced.inputs)[0]
        if example.dim() == 2:
            check_labels(dataset, example.shape[1])
            for other in evaluation.values():
                check_labels(other, example.shape[1], varied=False)
        elif not metrics:
            raise DataError(
                f"the model's output has shape {tuple(example.shape)}; accuracy needs (samples, classes)",
                tip="give --metric package.module:function",
            )
        splits = split(
            dataset, seed=options.seed, calibration=options.calibration, validation=options.validation
        )
        for note in _lone_groups(dataset, splits):
            clock.progress.note(note)
            notes = (*notes, note)
        with clock.stage("dense outputs"):
            dense = _dense_outputs(traced, dataset, splits, evaluation, folder, clock)
    labelled = dataset is not None and dataset.labels is not None
    first = (metrics[0] if metrics else resolve_metric("accuracy")) if labelled else None
    if first is not None and dataset is not None and dataset.labels is not None and splits is not None:
        value = first(dense["validation"], dataset.labels[splits.validation]).value
        if not 0.0 <= value <= 1.0:
            raise DataError(
                f"--metric {first.name}: gave {value:.4g} for the dense model; the first metric has to be a"
                " share from 0 to 1",
                tip="scale it, or name it second: further metrics may be any number",
            )
    real = None if splits is None else splits.validation
    made: dict[str, Any] = {"fixed_batch": options.fixed_batch}
    calls = parity_inputs(traced, dataset, real, seed=options.seed, **made)
    with clock.stage("export dense"):
        file = export_trace(given, calls, folder.path / "dense.onnx", opset=options.opset, **made)
    latency = open_latency(traced, couplings, file.path, options, folder, clock, board)
    if isinstance(latency, str):
        clock.progress.note(latency)
        notes, latency = (*notes, latency), None
    return Prepared(
        traced, couplings, dataset, splits,
        Measure(first.name if first else "agreement with the dense model", first),
        metrics[1:], dict(evaluation), dense, _alignment(options, folder, clock, board), notes, file,
        tuple(calls), latency,
    )  # fmt: skip


def _lone_groups(dataset: Dataset, splits: Splits) -> tuple[str, ...]:
    """What to know where an interval counts samples although they belong together."""
    found = []
    for part in ("validation", "test"):
        groups = dataset.groups_of(getattr(splits, part))
        if groups is not None and len(np.unique(groups)) == 1:
            found.append(
                f"the {part} part is one group: its interval counts samples, and says little of other groups"
            )
    return tuple(found)


def check_keep(traced: Trace, keep: Sequence[str]) -> None:
    """Refuse a --keep that names nothing: what the user wanted kept would silently be free.

    Raises:
        ModelError: no layer of that name; the nearest are offered.
    """
    tensors = state_tensors(traced.graph)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    for name in keep:
        if name not in tensors and not any(t.startswith(f"{name}.") for t in tensors):
            near = difflib.get_close_matches(name, layers, 3, cutoff=0.4) or layers[:3]
            raise ModelError(
                f"--keep {name}: the model has no layer of that name",
                tip=f"did you mean {' or '.join(near)}? `edgeprune inspect` lists them",
            )


def _alignment(options: Options, folder: RunFolder, clock: Clock, board: MeasurementTarget) -> int:
    """Widths that onnxruntime runs without waste: measured here for the host, 1 for other targets.

    The measurement is a record of the run, so that a resumed run plans as it began.
    """
    if options.align is not None:
        return options.align
    if not board.target.local:
        return 1
    found = folder.load("staircase")
    if found is None:
        with clock.stage("staircase"):
            folder.save("staircase", staircase(threads=board.threads))
        found = folder.load("staircase")
    return int(found["alignment"]) if found else 1


def _dense_outputs(
    traced: Trace,
    dataset: Dataset,
    splits: Splits,
    evaluation: Mapping[str, Dataset],
    folder: RunFolder,
    clock: Clock,
) -> dict[str, npt.NDArray[np.float32]]:
    """First output of the dense model on train (the teacher), validation, test and further sets."""
    if folder.load("dense") is not None:
        return folder.arrays("dense")
    found = {}
    for part in ("validation", "test", "train"):
        clock.progress.stage(f"dense outputs: {part}")
        indices = getattr(splits, part)
        found[part] = outputs(traced.graph, dataset, indices, BATCH, progress=clock.progress.step)
    for name, other in evaluation.items():
        found[f"eval:{name}"] = outputs(traced.graph, other, np.arange(len(other)), BATCH)
    folder.save("dense", {"splits": splits.to_json()}, arrays=found)
    return found
