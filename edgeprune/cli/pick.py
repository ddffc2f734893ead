"""`edgeprune pick`: look at the choices of a finished run, and take another than the budget did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("point", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="New folder [RUN-POINT].")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def pick(run: Path, point: str | None, output: Path | None, as_json: bool) -> None:
    """List the files that a finished run offers, or write one of them as a folder to ship.

    \b
    edgeprune pick RUN                      what there is: loss, latency, size
    edgeprune pick RUN plan-48              writes RUN-plan-48 with model.onnx
    """
    from edgeprune.pareto.pick import choices
    from edgeprune.pareto.pick import pick as take

    if point is None:
        found = choices(run)
        click.echo(json.dumps(found, indent=1) if as_json else _table(found))
        return
    folder = output or run.with_name(f"{run.resolve().name}-{point}")
    taken = take(run, point, folder)
    done = {"folder": str(folder), "point": taken}
    click.echo(json.dumps(done, indent=1) if as_json else f"{folder}: {_said(taken)}")


def _said(point: dict[str, Any]) -> str:
    parts = [str(point["name"])]
    if point.get("ratio"):
        parts.append(f"{1 / point['ratio']:.2f} times as fast as the dense file")
    if point.get("drop"):
        parts.append(f"{point['drop']['value']:+.2f} points lost on validation")
    return ", ".join(parts)


def _table(points: list[dict[str, Any]]) -> str:
    rows = [("", "point", "faster", "points lost", "MACs", "parameters", "kB", "")]
    for p in points:
        drop = p.get("drop")
        kinds = [str(p.get("recovery", ""))]
        kinds += [
            word for word, is_so in (("8 bits", p.get("int8")), ("beaten", p.get("dominated"))) if is_so
        ]
        rows.append(
            (
                "*" if p["chosen"] else "",
                str(p["name"]),
                "–" if not p.get("ratio") else f"{1 / p['ratio']:.2f}×",
                "–" if not drop else f"{drop['value']:+.2f} [{drop['low']:+.2f}, {drop['high']:+.2f}]",
                f"{p['macs'] / 1e6:.3g} M",
                f"{p['params'] / 1e3:.4g} k",
                f"{p['file_bytes'] / 1e3:.0f}",
                ", ".join(filter(None, kinds)),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*lines, "", "* was shipped; losses are on validation; beaten: another of that recovery is as good"]
    )
