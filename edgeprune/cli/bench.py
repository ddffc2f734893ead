"""`edgeprune bench`: ONNX files taking turns on this machine, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.device import device_options, open_device, say

if TYPE_CHECKING:
    from edgeprune.records import BenchResult, Interval, LayerChange, WhyResult


@click.command()
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
@click.option("--device", "destination", help="Time on a board instead, as for ssh: pi@raspberrypi.")
@click.option("--why", "explain", is_flag=True, help="Compare two files operator by operator.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@device_options
def bench(
    models: tuple[Path, ...],
    threads: int,
    seconds: float,
    batch: int,
    seed: int,
    inputs: Path | None,
    shapes: tuple[str, ...],
    rate: float | None,
    deadline_ms: float | None,
    destination: str | None,
    explain: bool,
    as_json: bool,
    device_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
) -> None:
    """Time ONNX files on this machine or a device and compare each to the first.

    The files take turns in one process, in an order shuffled each round; intervals are 95%. Where a
    second file is not faster, its operators are compared with the first one's, as by --why.
    """
    from edgeprune.errors import BenchError
    from edgeprune.measure.host import run_bench
    from edgeprune.records import to_json

    if explain and (len(models) != 2 or destination is not None):
        raise BenchError(
            "--why compares two files on this machine",
            tip="give two files and no --device; the staircase and the profiler are the host's",
        )

    settings: dict[str, Any] = {"threads": threads, "seconds": seconds, "batch": batch, "seed": seed}
    settings |= {"inputs": inputs, "shapes": shapes, "rate": rate, "deadline_ms": deadline_ms}
    if destination is None:
        result = run_bench(models, **settings)
    else:
        from edgeprune.deploy.remote import device_bench

        device = open_device(destination, device_python, ssh_config, accept_new_host_key)
        with device.remote:
            say(f"looking at {destination} …")
            result = device_bench(device, models, **settings)
    found = None
    slow = (
        len(models) == 2 and destination is None and bool(result.ratios) and result.ratios[0].ratio.high >= 1
    )
    if (explain or slow) and not result.emulated:
        from edgeprune.measure.why import run_report, why

        names = ("threads", "batch", "seed", "inputs", "shapes")
        asked = {name: settings[name] for name in names} | {"seconds": min(seconds, 4.0)}
        found = why(models[0], models[1], run_report(*models), **asked)
    if as_json:
        plain = to_json(result) | ({"why": to_json(found)} if found else {})
        click.echo(json.dumps(plain, indent=1))
        return
    click.echo("\n".join([*lines_of(result), *(["", *why_lines(found)] if found else [])]))


def lines_of(result: BenchResult) -> list[str]:
    """The result as a person reads it."""
    found = result.machine
    where = found["board"] or found["processor"]
    lines = [
        f"{where}, {found['architecture']}, onnxruntime {found['onnxruntime']}, "
        f"{result.threads} thread(s), batch {result.batch}, {result.rounds} rounds"
    ]
    if result.device:
        lines[0] = f"{result.device}: {lines[0]}"
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


def why_lines(found: WhyResult) -> list[str]:
    """The comparison as a person reads it: a line per layer, then the causes."""
    first, second = found.profile.files
    lines = [
        f"by layer, with all that serves it; µs an inference {first.total_us:.1f} → {second.total_us:.1f}, "
        f"{len(first.operators)} → {len(second.operators)} operators, each at least "
        f"{found.profile.overhead_us:.2f} µs",
    ]
    table = [["layer", "kind", "channels", "k multiply-adds", "µs", "lost µs", "bound", ""]]
    table += [_layer_cells(row) for row in found.layers]
    widths = [max(len(line[c]) for line in table) for c in range(len(table[0]))]
    lines += [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table
    ]
    return lines + [f"{n}. {text}" for n, text in enumerate(found.causes, 1)]


def _layer_cells(row: LayerChange) -> list[str]:
    wide = f"{row.width_before or '-'} → {row.width_after or '-'}"
    counts = " → ".join("-" if m is None else f"{m / 1e3:.0f}" for m in (row.macs_before, row.macs_after))
    times = " → ".join("-" if t is None else f"{t:.1f}" for t in (row.us_before, row.us_after))
    notes = [row.note] if row.note else []
    if row.misaligned is not None:
        notes.append(f"misaligned, {row.misaligned:.2f}× the next step")
    return [row.name, row.operator, wide, counts, times, f"{row.lost_us:+.1f}", row.bound, "; ".join(notes)]


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _ratio(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _number(found: float | None) -> str:
    return "-" if found is None else f"{found:.3g}"
