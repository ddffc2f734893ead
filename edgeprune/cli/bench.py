"""`edgeprune bench`: ONNX files taking turns on this machine, as a table or as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.device import BoardCommand, board_options, open_board, say

if TYPE_CHECKING:
    from edgeprune.records import BenchResult, Interval, LayerChange, WhyResult


@click.command(cls=BoardCommand)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--threads", default=1, show_default=True, help="Threads, and cores the process is bound to.")
@click.option("--seconds", default=5.0, show_default=True, help="Time spent on rounds.")
@click.option("--batch", default=1, show_default=True, help="Size of a dynamic batch dimension.")
@click.option("--seed", default=0, show_default=True, help="Seed of random inputs and of the order of turns.")
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="Recorded inputs (npz) instead of random ones."
)
@click.option("--shape", "shapes", multiple=True, help="NAME=1,3,224,224 for inputs with free dimensions.")
@click.option("--rate", type=float, help="Also feed inputs at this many a second, ready or not.")
@click.option("--deadline-ms", type=float, help="With --rate: an answer later than this is missed.")
@click.option("--board", "destination", help="Time on a board instead, as for ssh: pi@raspberrypi.")
@click.option("--why", "explain", is_flag=True, help="Compare two files operator by operator.")
@click.option("--limit", "limit_s", default=120.0, show_default=True, help="Seconds for a first inference.")
@click.option(
    "--fail-if-slower", is_flag=True, help="Exit code 1 unless every file is faster than the first."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@board_options
def bench(
    destination: str | None,
    explain: bool,
    fail_if_slower: bool,
    as_json: bool,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
    **settings: Any,
) -> int:
    """Time ONNX files on this machine or a board and compare each to the first.

    The files take turns in one process, in an order shuffled each round; intervals are 95%. If a second
    file is not faster, its operators are compared with the first one's, as by --why.
    """
    from edgeprune.errors import BenchError
    from edgeprune.measure.host import run_bench
    from edgeprune.measure.request import BenchRequest
    from edgeprune.records import to_json

    request = BenchRequest(**settings)
    if explain and (len(request.models) != 2 or destination is not None):
        raise BenchError(
            "--why compares two files on this machine",
            tip="give two files and no --board; the staircase and the profiler are the host's",
        )
    if fail_if_slower and len(request.models) < 2:
        raise BenchError("--fail-if-slower compares files with the first", tip="give two files or more")
    if destination is None:
        result = run_bench(request)
    else:
        from edgeprune.deploy.remote import board_bench

        board = open_board(destination, board_python, ssh_config, accept_new_host_key)
        with board.remote:
            say(f"looking at {destination} …")
            result = board_bench(board, request)
    if fail_if_slower and result.emulated:
        raise BenchError(f"--fail-if-slower: {result.emulated} is emulated", tip="an emulator has no times")
    slower = [row for row in result.ratios if row.ratio.high >= 1]
    reasons = None
    if (explain or (len(request.models) == 2 and destination is None and slower)) and not result.emulated:
        from edgeprune.measure.why import run_report, why

        reasons = why(replace(request, seconds=min(request.seconds, 4.0)), run_report(*request.models))
    if as_json:
        plain = to_json(result) | ({"why": to_json(reasons)} if reasons else {})
        click.echo(json.dumps(plain, indent=1))
    else:
        click.echo("\n".join([*lines_of(result), *(["", *why_lines(reasons)] if reasons else [])]))
    if fail_if_slower and slower:
        names = ", ".join(row.file for row in slower)
        click.echo(f"not faster than {request.models[0]} beyond the interval: {names}", err=True)
        return 1
    return 0


def lines_of(result: BenchResult) -> list[str]:
    """The result as a person reads it."""
    machine = result.machine
    where = machine["board"] or machine["processor"]
    lines = [
        f"{where}, {machine['architecture']}, onnxruntime {machine['onnxruntime']}, "
        f"{result.threads} thread(s), batch {result.batch}, {result.rounds} rounds"
    ]
    if result.board:
        lines[0] = f"{result.board}: {lines[0]}"
    names = [Path(row.file).name for row in result.models]
    names = names if len(set(names)) == len(names) else [row.file for row in result.models]
    if result.emulated:
        lines.append(
            f"emulated ({result.emulated}): the files run; an emulator's times mean nothing and are not shown"
        )
        lines += [
            f"  {name}  {row.file_bytes:,} bytes" for name, row in zip(names, result.models, strict=True)
        ]
        return lines
    ratios = [_ratio(None), *(_ratio(r.ratio) for r in result.ratios)]
    header = ["file", "p50 ms", "p90 ms", "p99 ms", "load ms", "first ms", "peak MB", "file kB", "time ratio"]
    table = [header]
    for name, row, ratio in zip(names, result.models, ratios, strict=True):
        times = [_interval(row.p50_ms), _interval(row.p90_ms), _interval(row.p99_ms)]
        table.append([name, *times, _number(row.load_ms), _number(row.first_ms), _number(row.peak_mb)])
        table[-1] += [f"{row.file_bytes / 1000:.1f}", ratio]
    table.append([f"{names[0]} again (A/A)", *[""] * 7, _ratio(result.same)])
    widths = [max(len(line[c]) for line in table) for c in range(len(header))]
    lines += [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table
    ]
    if any(row.p90_ms is None or row.p99_ms is None for row in result.models):
        lines.append("p90 needs 64 samples and p99 662; more --seconds give more")
    for name, compared in zip(names[1:], result.ratios, strict=True):
        if not compared.changed:
            lines.append(f"{name}: no measurable difference from {names[0]}")
    for name, row in zip(names, result.models, strict=True):
        if row.missed is not None:
            share = f"{row.missed.value:.2%} [{row.missed.low:.2%}, {row.missed.high:.2%}]"
            late = f"{share} later than {result.deadline_ms:g} ms, worst {row.worst_ms:.1f} ms"
            lines.append(f"{name} at {result.rate_hz:g} inputs/s: {late}")
    return lines + [f"warning: {text}" for text in result.warnings]


def why_lines(comparison: WhyResult) -> list[str]:
    """The comparison as a person reads it: a line per layer, then the causes."""
    first, second = comparison.profile.files
    lines = [
        f"by layer, with all that serves it; µs an inference {first.total_us:.1f} → {second.total_us:.1f}, "
        f"{len(first.operators)} → {len(second.operators)} operators, each at least "
        f"{comparison.profile.overhead_us:.2f} µs",
    ]
    table = [["layer", "kind", "channels", "k multiply-adds", "µs", "lost µs", "bound", ""]]
    table += [_layer_cells(row) for row in comparison.layers]
    widths = [max(len(line[c]) for line in table) for c in range(len(table[0]))]
    lines += [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table
    ]
    return lines + [f"{n}. {text}" for n, text in enumerate(comparison.causes, 1)]


def _layer_cells(row: LayerChange) -> list[str]:
    wide = f"{row.width_before or '-'} → {row.width_after or '-'}"
    counts = " → ".join("-" if m is None else f"{m / 1e3:.0f}" for m in (row.macs_before, row.macs_after))
    times = " → ".join("-" if t is None else f"{t:.1f}" for t in (row.us_before, row.us_after))
    notes = [row.note] if row.note else []
    if row.misaligned is not None:
        notes.append(f"misaligned, {row.misaligned:.2f}× the next step")
    return [row.name, row.operator, wide, counts, times, f"{row.lost_us:+.1f}", row.bound, "; ".join(notes)]


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def _ratio(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
