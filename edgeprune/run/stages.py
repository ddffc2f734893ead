"""Single stages over one analysed model: scores of what can go, an ONNX file.

    scored = score_model(analysis, dataset, options)    keep scores of every component and connection
    export_model(analysis, dataset, path)               ONNX, proven

Guarantee: the same seed and sizes give the calibration samples that `compress` takes.
Elsewhere: tracing and coupling (analysis), what can be removed (inspect), removal alone (prune).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeprune.calibration.capture import Statistics, capture
from edgeprune.coupling.components import Couplings
from edgeprune.criteria import Context, Scores, score
from edgeprune.criteria.label import channel_label_information
from edgeprune.criteria.registry import check_theta
from edgeprune.data import Dataset
from edgeprune.graph.compute import open_compute
from edgeprune.graph.features import SELECTION, is_selection
from edgeprune.records import OnnxArtifact
from edgeprune.run.analysis import Analysis, open_run_data
from edgeprune.search.costs import refuse_pinned
from edgeprune.search.sensitivity import split_images
from edgeprune.session.exporting import export_trace, parity_inputs
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.store import write_npz

PARITY_SAMPLES = 256


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


def score_model(
    analysis: Analysis,
    dataset: Dataset | None,
    options: Options,
    *,
    clock: Clock | None = None,
) -> Scored:
    """Score every component and connection of an analysed model by `options.criterion`.

    Raises:
        CriterionError: unknown, or it needs data.
        DataError: data that this model cannot have been trained on, or too little of it.
        PinnedError: there is nothing to score.
    """
    clock = clock or Clock()
    couplings = analysis.couplings
    refuse_pinned(couplings)
    check_theta(options.criterion, options.theta)
    statistics: Statistics | None = None
    if dataset is not None:
        data = open_run_data(analysis.trace, dataset, options)
        with clock.stage("capture"):
            statistics = capture(
                analysis.trace, couplings, dataset, split_images(data.splits.calibration)[0], task=data.task,
                seed=options.seed, compute=open_compute(options.accelerator), progress=clock.progress.step,
            )  # fmt: skip
    with clock.stage("score"):
        context = Context(analysis.trace, couplings, statistics, options.seed, options.theta)
        scores = score(options.criterion, context)
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
    for layer in couplings.layers:
        arrays[f"channels/{layer.name}"] = couplings.channel_maps[layer.outputs]
    write_npz(path, arrays)


def export_model(
    analysis: Analysis,
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
    calls = parity_inputs(analysis.trace, dataset, real, fixed_batch=fixed_batch, seed=seed)
    with (clock or Clock()).stage("export"):
        return export_trace(
            analysis.trace, calls, path, opset=opset, fixed_batch=fixed_batch, simplify=simplify
        )


def channel_names(couplings: Couplings) -> dict[int, str]:
    """Component -> the first output channel that it holds, as LAYER:CHANNEL, or feature of an input."""
    names: dict[int, str] = {}
    for name, dims in couplings.tensors.items():
        if is_selection(name) and dims[0] is not None:
            for feature, component in enumerate(couplings.channel_maps[dims[0]].tolist()):
                if component >= 0:
                    names[component] = f"input {name.removeprefix(SELECTION)}:{feature}"
    for layer in couplings.layers:
        for channel, component in enumerate(couplings.channel_maps[layer.outputs].tolist()):
            if component >= 0:
                names.setdefault(component, f"{layer.name}:{channel}")
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
