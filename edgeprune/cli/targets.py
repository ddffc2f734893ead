"""`edgeprune targets`: the computers that edgeprune knows, and what it knows of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprune.errors import TargetError
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
    from edgeprune.targets import list_targets, load_target, misnamed

    if name:
        target = load_target(name)
        click.echo(json.dumps(to_json(target), indent=1) if as_json else _explain(target))
        return
    rows: list[Target | tuple[str, TargetError]] = []
    for each in list_targets():
        try:
            rows.append(load_target(each))
        except TargetError as e:  # one bad file of the user's must not hide the others, nor itself
            rows.append((each, e))
    rows += [(path.stem, _misnamed(path)) for path in misnamed()]
    click.echo(json.dumps([_plain(row) for row in rows], indent=1) if as_json else _table(rows))


def _misnamed(path: Path) -> TargetError:
    from edgeprune.errors import TargetError

    return TargetError(
        f"{path}: ignored; a target's name has small letters, digits and . _ + - only",
        tip=f"call it {path.stem.lower().replace(' ', '-')}.toml",
    )


def _plain(row: Target | tuple[str, TargetError]) -> dict[str, Any]:
    """A target as JSON has it; of one that cannot be used the name and why."""
    from edgeprune.records import to_json

    if isinstance(row, tuple):
        return {"name": row[0], "error": {"message": row[1].message, "tip": row[1].tip}}
    plain: dict[str, Any] = to_json(row)
    return plain


def _table(rows: list[Target | tuple[str, TargetError]]) -> str:
    head = ("target", "processor", "cores", "GHz", "RAM", "GB/s", "INT8", "from")
    lines = [
        (row[0], "cannot be used, see below", *[""] * 5, "user")
        if isinstance(row, tuple)
        else (
            row.name,
            row.core,
            f"{row.cores}+{row.little_cores}" if row.little_cores else str(row.cores),
            f"{row.clock_ghz:g}",
            f"{row.memory_mb / 1024:.3g} GB",
            f"{row.bandwidth_gb_s:g}",
            row.int8_policy,
            "user" if row.user else "edgeprune",
        )
        for row in rows
    ]
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *lines)
    ]
    broken = [str(row[1]) for row in rows if isinstance(row, tuple)]
    last = "edgeprune targets NAME explains one: each value with its basis and source."
    return "\n".join([*text, "", *broken, last])


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
