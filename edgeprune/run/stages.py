"""Single stages of the pipeline over one model: what can go, what it scores, an ONNX file.

    found = analyse_model(loaded)          trace and coupling, no data needed
    score_model(found, dataset, "l2")      keep scores of every component and connection
    export_model(found, dataset, path)     ONNX, proven

Guarantee: the same seed and sizes give the calibration samples that `compress` takes.
Elsewhere: what can be removed at all (inspection), removal alone (pruning), the loop over
rounds (search), printing (cli).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import Couplings, FactorChoice
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.label import channel_label_information
from edgeprune.criteria.registry import check_theta
from edgeprune.data import Dataset, check_labels, split
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.features import SELECTION, is_selection, open_features
from edgeprune.graph.trace import Trace, run
from edgeprune.records import OnnxArtifact, Splits
from edgeprune.run.open_trace import open_trace, require_free_batch
from edgeprune.run.prepare import check_keep
from edgeprune.search.costs import refuse_pinned
from edgeprune.session.exporting import export_trace, parity_inputs
from edgeprune.session.options import Clock, Progress
from edgeprune.store import write_npz

PARITY_SAMPLES = 256


@dataclass(frozen=True)
class Analysis:
    """A model that was traced and coupled; `keep` names the layers whose channels all stay."""

    loaded: LoadedModel
    trace: Trace
    couplings: Couplings
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreRow:
    """Scores within one group; `first` and `last` name a channel that goes first or stays longest."""

    group: str
    components: int
    lowest: float
    median: float
    highest: float
    first: str
    last: str


@dataclass(frozen=True)
class Scored:
    """Keep scores of a model, a row per group, and what each channel says of the label by itself."""

    scores: Scores
    rows: tuple[ScoreRow, ...]
    couplings: Couplings
    label_source: str | None
    label_nats: npt.NDArray[np.float64] | None
    p_value: npt.NDArray[np.float64] | None


def analyse_model(
    loaded: LoadedModel,
    *,
    keep: Sequence[str] = (),
    prune_inputs: bool = False,
    heads: str = "whole",
    groups: str = "whole",
    seed: int = 0,
    clock: Clock | None = None,
) -> Analysis:
    """Trace and couple a loaded model; with `prune_inputs` the features of its inputs may go too.

    Args:
        heads, groups: what to free where two factors share a dimension, see `coupling.components.Choice`.

    Raises:
        TraceError: torch.export refused it.
        ModelError: `keep` names no layer; inputs whose features cannot be told apart.
    """
    clock = clock or Clock(Progress())
    with clock.stage("trace"):
        traced, notes = open_trace(loaded)
        if prune_inputs:
            traced, stay = open_features(traced)
            notes = (*notes, *stay)
    with clock.stage("coupling"):
        check_keep(traced, keep)
        couplings = analyse(traced, keep=keep, seed=seed, choice=FactorChoice(heads, groups))
    return Analysis(replace(loaded, notes=notes), traced, couplings, tuple(keep))


def score_model(
    found: Analysis,
    dataset: Dataset | None,
    criterion: str,
    *,
    theta: float = 0.0,
    calibration: int = 1024,
    validation: float = 0.15,
    seed: int = 0,
    clock: Clock | None = None,
) -> Scored:
    """Score every component and connection of an analysed model.

    Raises:
        CriterionError: unknown, or it needs data.
        DataError: data that this model cannot have been trained on, or too little of it.
        PinnedError: there is nothing to score.
    """
    clock = clock or Clock(Progress())
    couplings = found.couplings
    refuse_pinned(couplings)
    check_theta(criterion, theta)
    statistics: Statistics | None = None
    if dataset is not None:
        parts = checked_split(found.trace, dataset, calibration=calibration, validation=validation, seed=seed)
        with clock.stage("capture"):
            statistics = capture(
                found.trace, couplings, dataset, parts.calibration, seed=seed, progress=clock.progress.step
            )
    with clock.stage("score"):
        context = Context(found.trace, couplings, statistics, seed, theta)
        scores = score(criterion, context)
        nats, p_value = channel_label_information(context) or (None, None)
    source = statistics.label_source if statistics is not None else None
    return Scored(scores, _score_rows(couplings, scores), couplings, source, nats, p_value)


def write_scores(scored: Scored, path: Path) -> None:
    """Write scores as npz: component, rank, group, group_names, connections/…, channels/…, detail/….

    `channels/LAYER` holds the component of each output channel, −1 where it stays.
    """
    couplings, scores = scored.couplings, scored.scores
    arrays: dict[str, np.ndarray] = {
        "component": scores.component,
        "rank": scores.rank,
        "group": couplings.group,
        "group_names": np.array(couplings.group_names, dtype=np.str_),
    }
    if scored.label_nats is not None and scored.p_value is not None:
        arrays |= {"label_nats": scored.label_nats, "p_value": scored.p_value}
    arrays |= {f"connections/{name}": values for name, values in scores.connections.items()}
    arrays |= {f"detail/{name}": values for name, values in scores.details.items()}
    for i, layer in enumerate(couplings.layers):
        arrays[f"channels/{layer_name(couplings, i)}"] = couplings.channel_maps[layer.outputs]
    write_npz(path, arrays)


def export_model(
    found: Analysis,
    dataset: Dataset | None,
    path: Path,
    *,
    opset: int = 18,
    fixed_batch: int | None = None,
    simplify: bool = True,
    seed: int = 0,
    clock: Clock | None = None,
) -> OnnxArtifact:
    """Export an analysed model to ONNX and prove it on real inputs, or on seeded noise without data.

    Raises:
        ExportError, ParityError, OutputError: as `export_trace`.
    """
    real = None
    if dataset is not None:
        count = min(PARITY_SAMPLES, len(dataset))
        real = np.random.default_rng(seed).permutation(len(dataset))[:count]
    calls = parity_inputs(found.trace, dataset, real, fixed_batch=fixed_batch, seed=seed)
    with (clock or Clock(Progress())).stage("export"):
        return export_trace(found.trace, calls, path, opset=opset, fixed_batch=fixed_batch, simplify=simplify)


def checked_split(
    traced: Trace, dataset: Dataset, *, calibration: int = 1024, validation: float = 0.15, seed: int = 0
) -> Splits:
    """The parts of a dataset, after its labels were checked against the model's first output.

    Raises:
        DataError: labels out of range, one class, or too few samples.
        TraceError: the network takes one batch size only.
    """
    require_free_batch(traced)
    with torch.no_grad():
        out = run(traced.graph, traced.inputs)[0]
    if out.dim() == 2:
        check_labels(dataset, out.shape[1])
    return split(dataset, seed=seed, calibration=calibration, validation=validation)


def layer_name(couplings: Couplings, index: int) -> str:
    """What a layer is called: its weight's name without `.weight`, or its node."""
    layer = couplings.layers[index]
    return (layer.weight or layer.node).removesuffix(".weight")


def channel_names(couplings: Couplings) -> dict[int, str]:
    """Component -> the first output channel that it holds, as LAYER:CHANNEL, or feature of an input."""
    names: dict[int, str] = {}
    for name, dims in couplings.tensors.items():
        if is_selection(name) and dims[0] is not None:
            for feature, component in enumerate(couplings.channel_maps[dims[0]].tolist()):
                if component >= 0:
                    names[component] = f"input {name.removeprefix(SELECTION)}:{feature}"
    for i, layer in enumerate(couplings.layers):
        for channel, component in enumerate(couplings.channel_maps[layer.outputs].tolist()):
            if component >= 0:
                names.setdefault(component, f"{layer_name(couplings, i)}:{channel}")
    return names


def _score_rows(couplings: Couplings, scores: Scores) -> tuple[ScoreRow, ...]:
    names = channel_names(couplings)
    rows = []
    for g, name in enumerate(couplings.group_names):
        members = np.flatnonzero(couplings.group == g)
        order = members[np.argsort(scores.rank[members], kind="stable")]
        values = scores.component[members]
        first, last = (names.get(int(c), f"component {c}") for c in (order[0], order[-1]))
        low, middle, high = values.min(), np.median(values), values.max()
        rows.append(ScoreRow(name, len(members), float(low), float(middle), float(high), first, last))
    return tuple(rows)
