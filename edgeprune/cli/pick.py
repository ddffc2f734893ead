"""`edgeprune pick`: list the Pareto front of a finished run, or take another point of it to ship."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprune.records.report import FrontRow


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
    from edgeprune.records import to_json

    if point is None:
        points = choices(run)
        click.echo(json.dumps(to_json(points), indent=1) if as_json else _table(points))
        return
    folder = output or run.with_name(f"{run.resolve().name}-{point}")
    chosen = take(run, point, folder)
    done = {"folder": str(folder), "point": to_json(chosen)}
    click.echo(json.dumps(done, indent=1) if as_json else f"{folder}: {_summary(chosen)}")


def _summary(point: FrontRow) -> str:
    parts = [point.name]
    if point.ratio:
        parts.append(f"{1 / point.ratio:.2f} times as fast as the dense file")
    if point.drop:
        parts.append(f"{point.drop.value:+.2f} points lost on validation")
    return ", ".join(parts)


def _table(points: Sequence[FrontRow]) -> str:
    rows = [("", "point", "faster", "points lost", "MACs", "parameters", "kB", "")]
    for p in points:
        kinds = [p.recovery, *["8 bits"] * p.int8, *["beaten"] * p.dominated]
        lost = "–" if p.drop is None else f"{p.drop.value:+.2f} [{p.drop.low:+.2f}, {p.drop.high:+.2f}]"
        rows.append(
            (
                "*" if p.chosen else "",
                p.name,
                f"{1 / p.ratio:.2f}×" if p.ratio else "–",
                lost,
                f"{p.macs / 1e6:.3g} M",
                f"{p.params / 1e3:.4g} k",
                f"{p.file_bytes / 1e3:.0f}",
                ", ".join(kinds),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*lines, "", "* was shipped; losses are on validation; beaten: another of that recovery is as good"]
    )
