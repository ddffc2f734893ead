"""`edgeprune compress`: the whole pipeline."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.common import choice_options, data_options, load, model_options, open_for
from edgeprune.cli.device import device_options, open_device


@click.command()
@model_options
@data_options
@click.option("--max-drop", type=float, help="Points that may be lost [1 without other budgets].")
@click.option("--macs", help="Share of the MACs to keep (0.5) or factor fewer (3x).")
@click.option("--params", help="Share of the parameters to keep, or factor fewer.")
@click.option("--target-ms", type=float, help="Median latency on the target, ms, batch 1.")
@click.option("--speedup", type=float, help="Times faster than the dense file: 2.")
@click.option("--deadline-ms", type=float, help="99th percentile of the latency, ms.")
@click.option("--size-mb", type=float, help="Size of the ONNX file, MB.")
@click.option("--target", default="host", show_default=True, help="Device; see `edgeprune targets`.")
@click.option("--criterion", default="ib-gauss", show_default=True, help="What ranks channels.")
@click.option("--theta", default=0.0, show_default=True, help="Signed weight of H(T|Y) in ib-edge, ib-jmi.")
@click.option(
    "--allocation", type=click.Choice(["sensitivity", "uniform"]), default="sensitivity", show_default=True
)
@click.option(
    "--objective",
    type=click.Choice(["latency", "macs"]),
    default="latency",
    show_default=True,
    help="What --max-drop alone brings down.",
)
@click.option("--profile", type=click.Path(), help="Latency profile to plan with; see `edgeprune profile`.")
@click.option(
    "--estimate",
    type=click.Choice(["roofline", "instructions"]),
    default="roofline",
    show_default=True,
    help="What ranks widths for a target that is not at hand.",
)
@click.option(
    "--profile-seconds", default=20.0, show_default=True, help="Time to measure one in, without --profile."
)
@click.option("--rounds", default=2, show_default=True, help="Prune-recover rounds to a size budget.")
@click.option("--epochs", default=3, show_default=True, help="Fine-tuning epochs per round; 0 for none.")
@click.option("--lr", "learning_rate", default=2e-3, show_default=True, help="Peak, of AdamW.")
@click.option("--batch-size", default=128, show_default=True, help="Of fine-tuning.")
@click.option("--distil", default=0.7, show_default=True, help="Weight of the dense model in the loss.")
@click.option(
    "--features", default=0.0, show_default=True, help="Weight of the dense model's features in the loss."
)
@click.option(
    "--ib-beta",
    default=0.0,
    show_default=True,
    help="Weight of the noisy activations' entropy in the loss.",
)
@click.option("--calibration", default=1024, show_default=True, help="Samples that scores are taken on.")
@click.option("--validation", default=0.15, show_default=True, help="Share of the training part.")
@click.option("--metric", "metrics", multiple=True, help="accuracy, top5, MODULE:FUNCTION; first decides.")
@click.option("--eval-data", multiple=True, metavar="NAME=DATA", help="Further sets, reported too.")
@click.option("--keep", multiple=True, help="Layers whose channels all stay.")
@choice_options
@click.option(
    "--prune-inputs", is_flag=True, help="Features of the inputs may go; the file gathers those it reads."
)
@click.option(
    "--align", type=click.IntRange(min=1), help="Multiple that widths are kept to [measured on the host]."
)
@click.option("--threads", type=int, help="Threads when timing [of the profile or device, else 1].")
@click.option("--bench-seconds", default=5.0, show_default=True)
@click.option(
    "--front", type=click.IntRange(0, 6), default=6, show_default=True, help="Files to choose from beside it."
)
@click.option(
    "--int8",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="8 bits: where faster within the budget, always, or never.",
)
@click.option("--why", is_flag=True, help="Say where the time goes; done anyway where nothing was gained.")
@click.option("--opset", default=18, show_default=True)
@click.option("--fixed-batch", type=click.IntRange(min=1), help="Export with this batch size.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder [./MODEL-edgeprune].")
@click.option("--force", is_flag=True, help="Start over where a run of another request is in the folder.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.option("--device", "destination", help="Measure on this board, as for ssh: pi@raspberrypi.")
@device_options
def compress(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    data: str | None,
    mean: str | None,
    std: str | None,
    max_drop: float | None,
    macs: str | None,
    params: str | None,
    target_ms: float | None,
    speedup: float | None,
    deadline_ms: float | None,
    size_mb: float | None,
    metrics: tuple[str, ...],
    eval_data: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
    destination: str | None,
    device_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
    **settings: Any,
) -> None:
    """Compress MODEL within a budget and write model.onnx with its proof.

    Every finished step is kept: the same command goes on where a stopped one was.
    """
    from edgeprune.cli.progress import Terminal
    from edgeprune.report import render_table
    from edgeprune.run.compress import compress_loaded
    from edgeprune.session.budget import Budget, parse_share
    from edgeprune.session.options import Options

    shares = {"macs": macs, "params": params}
    parsed = {k: None if v is None else parse_share(v, f"--{k}") for k, v in shares.items()}
    budget = Budget(max_drop, **parsed, target_ms=target_ms, speedup=speedup,
                    deadline_ms=deadline_ms, size_mb=size_mb)  # fmt: skip
    if max_drop is None and not budget.sized:
        budget = Budget(max_drop=1.0)
    loaded = load(model, factory, input_shapes, trust_pickle)
    dataset = None if data is None else open_for(data, loaded, mean, std)
    further = {}
    for text in eval_data:
        name, found, spec = text.partition("=")
        if not found:
            raise click.BadParameter(f"{text}: expected NAME=DATA", param_hint="--eval-data")
        further[name] = open_for(spec, loaded, mean, std)
    progress = Terminal()
    folder = output or Path(f"{model.stem}-edgeprune")
    options = Options(budget=budget, metrics=metrics, **settings)
    device = None
    with contextlib.ExitStack() as opened:
        opened.callback(progress.close)
        if destination is not None:
            device = open_device(destination, device_python, ssh_config, accept_new_host_key)
            opened.enter_context(device.remote)
        result = compress_loaded(
            loaded,
            dataset,
            folder,
            options,
            evaluation=further,
            progress=progress,
            force=force,
            device=device,
        )
    if as_json:
        click.echo(json.dumps(result.report, indent=1))
        return
    click.echo(render_table(result.report))
    click.echo(f"\n{result.onnx}  the file to ship\n{result.folder / 'report.html'}  the proof")
