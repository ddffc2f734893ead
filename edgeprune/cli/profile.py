"""`edgeprune profile`: measure a network's layers at many widths, on this machine or a board, as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.common import load, model_options, writable
from edgeprune.cli.device import BoardCommand, board_options, open_board, say

if TYPE_CHECKING:
    from edgeprune.latency import Profile


@click.command(cls=BoardCommand)
@model_options
@click.option("--target", "target_name", default="host", show_default=True, help="Name or .toml file.")
@click.option("--board", "destination", help="The board to measure on, as for ssh: pi@raspberrypi.")
@click.option("--threads", type=int, help="Threads, and cores it is bound to [the board's, here 1].")
@click.option("--networks", default=120, show_default=True, help="Sets of widths to run.")
@click.option("--seconds", default=90.0, show_default=True, help="Time spent on runs, beside loading.")
@click.option("--keep", multiple=True, help="Layers whose channels all stay.")
@click.option("--seed", default=0, show_default=True, help="Seed of the widths.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; by default MODEL.TARGET.profile.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable summary on stdout.")
@board_options
def profile(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    target_name: str,
    destination: str | None,
    threads: int | None,
    networks: int,
    seconds: float,
    keep: tuple[str, ...],
    seed: int,
    output: Path | None,
    as_json: bool,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
) -> None:
    """Measure MODEL's layers at many widths, for planning without the machine at hand.

    The network is run at --networks sets of widths and every operator is timed where it stands. An
    interrupted profile is taken up again by the same command. Plan with it: compress --profile FILE.
    """
    from edgeprune.cli.progress import Terminal
    from edgeprune.deploy.identity import target_of
    from edgeprune.latency import profile_model
    from edgeprune.run.analysis import analyse_model
    from edgeprune.session.options import Options
    from edgeprune.targets import load_target

    target = load_target(target_name)
    place = destination if destination and target.local else target.name
    path = output or Path(f"{model.stem}.{place}.profile.json")
    writable(path)
    analysis = analyse_model(load(model, factory, input_shapes, trust_pickle), Options(keep=keep))
    terminal = Terminal()
    settings: dict[str, Any] = {"path": path, "networks": networks, "seconds": seconds, "seed": seed}
    settings |= {"name": model.name, "progress": terminal.step}
    try:
        if destination is None:
            terminal.stage("sets of widths")
            settings |= {"target": target, "threads": 1 if threads is None else threads}
            measured = profile_model(analysis.trace, analysis.couplings, **settings)
        else:
            board = open_board(destination, board_python, ssh_config, accept_new_host_key)
            with board.remote:
                say(f"looking at {destination} …")
                cores = board.require_fit(None if target.local else target.arch)["cores"]
                target = target_of(board, target)
                settings |= {"target": target}
                settings |= {"threads": min(target.threads, cores) if threads is None else threads}
                terminal.stage("sets of widths")
                measured = profile_model(analysis.trace, analysis.couplings, board=board, **settings)
    finally:
        terminal.close()
    shown = summary(measured, path)
    click.echo(json.dumps(shown, indent=1) if as_json else "\n".join(lines_of(shown)))


def summary(profiled: Profile, path: Path) -> dict[str, Any]:
    """What a profile holds, without its points."""
    from edgeprune.latency import check_compatibility, layer_times, whole_errors
    from edgeprune.records import to_json

    layers, error = layer_times(profiled)
    return {
        "file": str(path),
        "source": profiled.source,
        "target": profiled.target,
        "board": profiled.board,
        "machine": profiled.machine,
        "threads": profiled.threads,
        "networks": len(profiled.wholes),
        "points": len(profiled.points),
        "dense_ms": to_json(profiled.dense_ms),
        "left_out_error": error,
        "whole_error": to_json(whole_errors(profiled)),
        "layers": layers,
        "warnings": list(check_compatibility(profiled)),
    }


def lines_of(shown: dict[str, Any]) -> list[str]:
    """The summary as a person reads it."""
    dense = shown["dense_ms"]
    lines = [
        f"{shown['file']}: {shown['source']}",
        f"{shown['points']:,} points of {len(shown['layers'])} layer shapes, {shown['networks']} networks; "
        f"dense {dense['value']:.3g} ms [{dense['low']:.3g}, {dense['high']:.3g}]",
    ]
    if shown["left_out_error"] is not None:
        lines.append(
            f"a layer's time at widths left out is predicted within {shown['left_out_error']:.1%} (mean)"
        )
    error = shown["whole_error"]
    lines.append(
        "too few networks to say how well whole ones are predicted"
        if error is None
        else f"a whole network at widths left out is predicted within {error['median']:.1%} (median), "
        f"{error['p90']:.1%} (of nine in ten), {error['worst']:.1%} (the worst of {error['networks']})"
    )
    table = [("layer shape", "dense ms", "steps in", "steps out")]
    for layer in shown["layers"]:
        steps = [", ".join(map(str, layer[side])) or "none" for side in ("steps_in", "steps_out")]
        table.append((layer["shape"], f"{layer['dense_ms']:.3g}", *steps))
    widths = [max(len(row[c]) for row in table) for c in range(4)]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return lines + [f"warning: {text}" for text in shown["warnings"]]
