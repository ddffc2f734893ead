"""`edgeprune explain`: why a channel of a finished run was removed or kept."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("layer", metavar="[LAYER[:CHANNEL]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def explain(run: Path, layer: str | None, as_json: bool) -> None:
    """Say why a channel of a finished run was removed or kept: score, evidence, chance, coupling, step.

    Without a layer it lists the layers of the run with their widths before and after.
    """
    from edgeprune.report import render_explanation
    from edgeprune.report.removed import explanation, layers

    if layer is None:
        rows = layers(run)
        width = max((len(row["layer"]) for row in rows), default=0)
        lines = [f"{row['layer']:<{width}}  {row['before']} → {row['after']}" for row in rows]
        click.echo(json.dumps(rows, indent=1) if as_json else "\n".join(lines))
        return
    entry = explanation(run, layer)
    click.echo(json.dumps(entry, indent=1) if as_json else render_explanation(entry))
