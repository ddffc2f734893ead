"""Trace and couple a loaded model, and open the data that it is judged on: where every command begins.

    analysis = analyse_model(loaded)                    what can be removed; no data needed
    data = open_run_data(analysis.trace, dataset, ...)  task, splits, checked targets

Elsewhere: the dense outputs and the ONNX file that `compress` needs too (prepare).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import Couplings, FactorChoice
from edgeprune.data import Dataset, split
from edgeprune.data.targets import take
from edgeprune.errors import ModelError
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.execution import outputs, samples_first, tensors
from edgeprune.graph.features import open_features
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.records import Splits
from edgeprune.run.open_trace import open_trace, require_free_batch
from edgeprune.session.dense import RunData
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.tasks.base import Outputs
from edgeprune.tasks.choose import ChosenTask, choose_task
from edgeprune.tasks.user import MeasuredBy

EXAMPLES = 64  # samples that the task is chosen and fitted on


@dataclass(frozen=True)
class Analysis:
    """A model that was traced and coupled.

    original: the trace before features of inputs were made removable. keep: layers whose channels all stay.
    """

    loaded: LoadedModel
    original: Trace
    trace: Trace
    couplings: Couplings
    keep: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def analyse_model(
    loaded: LoadedModel, options: Options | None = None, *, clock: Clock | None = None
) -> Analysis:
    """Trace and couple a loaded model as the options ask (keep, prune_inputs, heads, groups, seed).

    Raises:
        TraceError: torch.export refused it.
        ModelError: `keep` names no layer; inputs whose features cannot be told apart.
    """
    options, clock = options or Options(), clock or Clock()
    with clock.stage("trace"):
        original, notes = open_trace(loaded)
        traced = original
        if options.prune_inputs:
            traced, refused = open_features(original)
            notes = (*notes, *refused)
    with clock.stage("coupling"):
        _check_keep(traced, options.keep)
        choice = FactorChoice(options.heads, options.groups)
        couplings = analyse(traced, keep=options.keep, seed=options.seed, choice=choice)
    return Analysis(replace(loaded, notes=notes), original, traced, couplings, tuple(options.keep), notes)


def check_targets(loaded: LoadedModel, dataset: Dataset, options: Options) -> None:
    """Refuse targets and metrics that cannot be the model's before time goes into tracing it.

    The model itself is run on a few samples. One that does not run on them is left to the tracer, which says
    why; after tracing `open_run_data` checks again on the graph's outputs.

    Raises:
        DataError: targets that the task or the model cannot have, an unclear task, a metric without a
            result.
    """
    module = loaded.module if loaded.module is not None else loaded.program.module()
    some = _examples(dataset)
    try:
        with torch.no_grad():
            raw = module(*tensors(dataset.batch(some)))
    except Exception:  # a fixed batch, another shape, or code that torch.export sees as well
        return
    leaves = [x for x in torch.utils._pytree.tree_leaves(raw) if isinstance(x, torch.Tensor)]
    if leaves:  # a model without outputs is left to the tracer too
        _chosen(tuple(samples_first(x, len(some)).numpy() for x in leaves), dataset, options)


def open_run_data(
    traced: Trace,
    dataset: Dataset,
    options: Options,
    *,
    further: Mapping[str, Dataset] | None = None,
) -> RunData:
    """Choose the task, check the targets against the outputs, and split the data.

    Raises:
        DataError: targets that the task or the model cannot have; too few samples; an unclear task.
        TraceError: the network takes one batch size only.
    """
    require_free_batch(traced)
    some = _examples(dataset)
    example = outputs(traced.graph, dataset, some, len(some))
    chosen = _chosen(example, dataset, options)
    for other in (further or {}).values():
        chosen.task.check(example, other.targets, other.name, varied=False)
    splits = split(dataset, seed=options.seed, calibration=options.calibration, validation=options.validation)
    return RunData(dataset, splits, chosen.task, chosen.note, chosen.further, dict(further or {}))


def _examples(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Samples spread over the data."""
    return np.unique(np.linspace(0, len(dataset) - 1, min(EXAMPLES, len(dataset))).astype(np.int64))


def _chosen(example: Outputs, dataset: Dataset, options: Options) -> ChosenTask:
    """The task, its targets checked on all samples and the user's metrics tried on the examples."""
    targets = take(dataset.targets, _examples(dataset))
    chosen = choose_task(options.task, options.metrics, example, targets, dataset.name)
    chosen.task.check(example, dataset.targets, dataset.name)
    if targets is not None:
        for measured in (chosen.task, *chosen.further):
            if isinstance(measured, MeasuredBy):
                measured.score(example, targets)
    return chosen


def lone_groups(dataset: Dataset, splits: Splits) -> tuple[str, ...]:
    """Notes on parts of a single group, whose interval counts samples that belong together."""
    notes = []
    for part in ("validation", "test"):
        groups = dataset.groups_of(getattr(splits, part))
        if groups is not None and len(np.unique(groups)) == 1:
            notes.append(
                f"the {part} part is one group: its interval counts samples and tells little of other groups"
            )
    return tuple(notes)


def _check_keep(traced: Trace, keep: Sequence[str]) -> None:
    """Refuse a --keep that names nothing: what the user wanted kept would be free without a word.

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
