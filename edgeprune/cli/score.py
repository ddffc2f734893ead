"""`edgeprune score`: every component and connection by one criterion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.common import (
    data_options,
    existing_data,
    load,
    model_options,
    open_for,
    task_option,
    writable,
)
from edgeprune.cli.text import aligned

if TYPE_CHECKING:
    from edgeprune.run.stages import Scored


@click.command()
@model_options
@data_options
@task_option
@click.option("--criterion", default="ib-gauss", show_default=True, help="What ranks channels.")
@click.option("--theta", default=0.0, show_default=True, help="Signed weight of H(T|Y) in ib-edge, ib-jmi.")
@click.option("--calibration", default=1024, show_default=True, help="Samples that scores are taken on.")
@click.option("--validation", default=0.15, show_default=True, help="Share of the training part, unused.")
@click.option("--keep", multiple=True, help="Layers whose channels all stay.")
@click.option("--prune-inputs", is_flag=True, help="Score the features of the inputs too.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write all scores as npz.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def score(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    data: str | None,
    mean: str | None,
    std: str | None,
    output: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Score every component and connection of MODEL with one criterion.

    With the same seed and sizes the samples are those that `edgeprune compress` takes.
    """
    from edgeprune.session.options import Options

    options = Options(**settings)
    existing_data(data)
    if output is not None:
        writable(output)

    from edgeprune.cli.progress import Terminal
    from edgeprune.run.analysis import analyse_model
    from edgeprune.run.stages import score_model, write_scores
    from edgeprune.session.progress import Clock

    loaded = load(model, factory, input_shapes, trust_pickle)
    dataset = None if data is None else open_for(data, loaded, mean, std)
    progress = Terminal()
    clock = Clock(progress)
    try:
        scored = score_model(analyse_model(loaded, options, clock=clock), dataset, options, clock=clock)
    finally:
        progress.close()
    if output is not None:
        write_scores(scored, output)
    click.echo(json.dumps(_plain(scored, output), indent=1) if as_json else "\n".join(lines_of(scored)))
    if output is not None and not as_json:
        click.echo(f"\n{output}  component scores, ranks and connections")


def lines_of(scored: Scored) -> list[str]:
    """The result as a person reads it."""
    scores = scored.scores
    unit = "" if scores.unit == "1" else f", {scores.unit}"
    lines = [f"{scores.criterion}: {scores.estimator}, {scores.samples} samples{unit}"]
    rows = [("group", "components", "lowest", "median", "highest", "goes first", "stays longest")]
    rows += [
        (
            r.group,
            str(r.components),
            f"{r.lowest:.4g}",
            f"{r.median:.4g}",
            f"{r.highest:.4g}",
            r.first,
            r.last,
        )
        for r in scored.rows
    ]
    lines += aligned(rows, right=(1, 2, 3, 4))
    return [*lines, "scores rank within a group; how much each gives up is planning's business"]


def _plain(scored: Scored, output: Path | None) -> dict[str, object]:
    from edgeprune.records import to_json

    scores = scored.scores
    return {
        "criterion": scores.criterion,
        "settings": to_json(scores.settings),
        "estimator": scores.estimator,
        "unit": scores.unit,
        "samples": scores.samples,
        "labels": scored.label_source,
        "groups": to_json(scored.rows),
        "components": {
            "group": to_json(scored.couplings.group),
            "score": to_json(scores.component),
            "rank": to_json(scores.rank),
        },
        "output": None if output is None else str(output),
    }
