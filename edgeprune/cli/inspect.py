"""`edgeprune inspect`: what can be removed from a model, and what cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.common import choice_options, load, model_options
from edgeprune.cli.text import aligned, shortened

if TYPE_CHECKING:
    from edgeprune.run.inspect import Inspection


@click.command("inspect")
@model_options
@click.option("--keep", multiple=True, help="Layers whose channels all stay.")
@choice_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def inspect(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    keep: tuple[str, ...],
    heads: str,
    groups: str,
    as_json: bool,
) -> None:
    """Show what can be removed from MODEL, and what cannot, with reasons. Needs no data."""
    from edgeprune.records import to_json
    from edgeprune.run.analysis import analyse_model
    from edgeprune.run.inspect import inspect_model
    from edgeprune.session.options import Options

    options = Options(keep=keep, heads=heads, groups=groups)
    loaded = load(model, factory, input_shapes, trust_pickle)
    inspection = inspect_model(analyse_model(loaded, options))
    click.echo(json.dumps(to_json(inspection), indent=1) if as_json else "\n".join(lines_of(inspection)))


def lines_of(inspection: Inspection) -> list[str]:
    """The result as a person reads it."""
    from edgeprune.report.words import short_count
    from edgeprune.search.costs import what_pins

    inputs = ", ".join(
        f"{i['dtype']} {'×'.join(map(str, i['shape'])) or 'scalar'}"
        f" (batch {'free' if i['batch'] is None else 'fixed at ' + str(i['batch'])})"
        for i in inspection.inputs
    )
    lines = [
        f"{inspection.model['path']}: takes {inputs}",
        f"{short_count(inspection.macs)} MACs, {short_count(inspection.params)} parameters,"
        f" {len(inspection.layers)} layers;"
        f" {inspection.free_share:.1%} of the channels are free, in {inspection.components} components",
    ]
    if inspection.components:
        lines.append(
            f"at least {inspection.floor_macs / max(inspection.macs, 1):.1%} of the MACs"
            f" and {inspection.floor_params / max(inspection.params, 1):.1%} of the parameters have to stay"
        )
    else:
        lines.append(f"nothing can be removed from this model: {what_pins(inspection.pinned)}")
    rows = [("layer", "kind", "in", "out", "free", "MACs", "group")]
    rows += [
        (
            r.name,
            r.kind,
            str(r.inputs),
            str(r.outputs),
            str(r.free),
            short_count(r.macs),
            shortened(r.groups) or "-",
        )
        for r in inspection.layers
    ]
    lines += ["", *aligned(rows, right=(2, 3, 4, 5))]
    if inspection.groups:
        groups = [("group", "components", "exact", "MACs removable", "layers")]
        groups += [
            (
                g.name,
                str(g.components),
                str(g.exact),
                f"{g.macs_removable / max(inspection.macs, 1):.1%}",
                shortened(g.layers),
            )
            for g in inspection.groups
        ]
        lines += ["", *aligned(groups, right=(1, 2, 3))]
    if inspection.pinned:
        lines += ["", "pinned:"]
        lines += aligned([(str(p.channels), p.reason) for p in inspection.pinned], right=(0,), indent="  ")
    if inspection.inexact:
        why = shortened(inspection.inexact_reasons)
        lines += ["", f"{inspection.inexact} components change a mean or a norm when they go: {why}"]
    return lines + [f"note: {text}" for text in inspection.notes]
