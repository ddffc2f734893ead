"""`edgeprune targets`: the computers that edgeprune knows, and what it knows of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprune.records import Target


@click.command("targets")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def targets(name: str | None, as_json: bool) -> None:
    """List the known targets, or explain one: every value with its basis and source.

    NAME is a target or a path to a descriptor of your own. Your descriptors go to
    $EDGEPRUNE_TARGETS, else ~/.config/edgeprune/targets, and override those shipped.
    """
    from edgeprune.errors import TargetError
    from edgeprune.records import to_json
    from edgeprune.targets import list_targets, load_target

    if name:
        target = load_target(name)
        click.echo(json.dumps(to_json(target), indent=1) if as_json else _explain(target))
        return
    known, broken = [], []
    for each in list_targets():
        try:
            known.append(load_target(each))
        except TargetError as e:  # one bad file of the user's must not hide the others
            broken.append(e)
    click.echo(json.dumps(to_json(known), indent=1) if as_json else _table(known))
    for error in broken:
        click.echo(f"skipped {error}", err=True)


def _table(rows: list[Target]) -> str:
    head = ("target", "processor", "cores", "GHz", "RAM", "GB/s", "INT8", "from")
    lines = [
        (
            t.name,
            t.core,
            f"{t.cores}+{t.little_cores}" if t.little_cores else str(t.cores),
            f"{t.clock_ghz:g}",
            f"{t.memory_mb / 1024:.3g} GB",
            f"{t.bandwidth_gb_s:g}",
            t.int8_policy,
            "user" if t.user else "edgeprune",
        )
        for t in rows
    ]
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *lines)
    ]
    return "\n".join(
        [*text, "", "edgeprune targets NAME explains one: each value with its basis and source."]
    )


def _explain(t: Target) -> str:
    rows = [(f.name, _shown(f.value, f.unit), f.basis, f.note) for f in t.fields]
    widths = [min(36, max(len(row[i]) for row in rows)) for i in range(3)]  # names of boards may be long
    counts = {b: sum(f.basis == b for f in t.fields) for b in ("measured", "datasheet", "assumed")}
    text = [f"{t.name}: {t.title}", f"{t.path}", ""]
    for *cells, note in rows:
        text.append("  ".join([*(c.ljust(w) for c, w in zip(cells, widths, strict=True)), note]).rstrip())
    text += ["", ", ".join(f"{n} {basis}" for basis, n in counts.items())]
    if not t.local:
        text.append(
            "Latency on this target is known only from the device itself; from here it is an estimate."
        )
    return "\n".join(text)


def _shown(value: object, unit: str) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value} {unit}".strip()
