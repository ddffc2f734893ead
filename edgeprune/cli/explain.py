"""`edgeprune explain`: why a channel of a finished run was removed or kept."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("layer", metavar="LAYER[:CHANNEL]")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def explain(run: Path, layer: str, as_json: bool) -> None:
    """Say why a channel of a finished run was removed or kept: score, evidence, chance, coupling, step."""
    from edgeprune.report import render_explanation
    from edgeprune.report.removed import explanation

    entry = explanation(run, layer)
    click.echo(json.dumps(entry, indent=1) if as_json else render_explanation(entry))
