"""`edgeprune compress`: the whole pipeline."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.common import (
    choice_options,
    data_options,
    existing_data,
    load_with_mask,
    model_options,
    open_for,
    share_option,
    target_name,
    task_option,
)
from edgeprune.cli.device import board_options, open_board
from edgeprune.cli.grouped import GroupedCommand, in_group

EPILOG = """Examples:

\b
  edgeprune compress model.pt2 --data photos/ --target rpi4 --max-drop 0.5
  edgeprune compress net.safetensors --model nets:build --input-shape 3,224,224 \\
    --data val.npz --speedup 2 --board pi@raspberrypi
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@in_group("Model and data", model_options, data_options, task_option)
@in_group(
    "Budget",
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="POINTS",
        help="Accuracy that may be lost: points of a share, percent of an error [1].",
    ),
    click.option(
        "--macs", callback=share_option, help="Share of the MACs to keep (0.5) or factor fewer (3x)."
    ),
    click.option("--params", callback=share_option, help="Share of the parameters, or factor fewer."),
    click.option("--target-ms", type=float, help="Median latency on the target, ms."),
    click.option("--deadline-ms", type=float, help="99th percentile of the latency, ms."),
    click.option("--speedup", type=float, help="Dense latency over the result's."),
    click.option("--size-mb", type=float, help="The ONNX file, MB."),
)
@in_group(
    "Target and timing",
    click.option(
        "--target",
        default="host",
        show_default=True,
        callback=target_name,
        help="What it will run on; see `edgeprune targets`.",
    ),
    click.option(
        "--board",
        "destination",
        metavar="[USER@]HOST",
        help="Measure on this board over ssh: pi@raspberrypi.",
    ),
    board_options,
    click.option(
        "--profile",
        type=click.Path(exists=True, dir_okay=False),
        help="Latency profile of this network; see `edgeprune profile`.",
    ),
    click.option(
        "--profile-seconds",
        default=20.0,
        show_default=True,
        help="Time to measure a profile if none is given.",
    ),
    click.option(
        "--estimate",
        type=click.Choice(["roofline", "instructions"]),
        default="roofline",
        show_default=True,
        help="Latency model to use when the target is not connected.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["latency", "macs"]),
        default="latency",
        show_default=True,
        help="Cost to minimise when only --max-drop is given.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads when timing [of the profile or board, else 1]."
    ),
    click.option("--bench-seconds", default=5.0, show_default=True, help="Time of the final benchmark."),
    click.option("--why", is_flag=True, help="Report where the time goes even if the file is faster."),
)
@in_group(
    "Scoring and search",
    click.option("--criterion", default="ib-gauss", show_default=True, help="What ranks channels."),
    click.option(
        "--theta", default=0.0, show_default=True, help="Signed weight of H(T|Y) in ib-edge and ib-jmi."
    ),
    click.option(
        "--allocation",
        type=click.Choice(["sensitivity", "uniform"]),
        default="sensitivity",
        show_default=True,
        help="How much each group gives up: by measured loss, or the same share.",
    ),
    click.option(
        "--mask",
        "mask_spec",
        metavar="FILE|weights",
        help="Unstructured mask: components go by its evidence.",
    ),
    click.option("--rounds", default=2, show_default=True, help="Prune-recover rounds to a size or latency."),
    click.option("--calibration", default=1024, show_default=True, help="Samples that scores are taken on."),
    click.option("--validation", default=0.15, show_default=True, help="Share of the training part."),
    click.option("--keep", multiple=True, metavar="LAYER", help="Layers whose channels all stay."),
    choice_options,
    click.option(
        "--prune-inputs", is_flag=True, help="Features of the inputs may go; the file gathers those it reads."
    ),
    click.option(
        "--align", type=click.IntRange(min=1), help="Multiple that widths are kept to [measured on the host]."
    ),
)
@in_group(
    "Recovery",
    click.option(
        "--train",
        "train_spec",
        metavar="MODULE:FUNCTION",
        help="Your own training, called in each round instead of fine-tuning.",
    ),
    click.option("--epochs", default=3, show_default=True, help="Fine-tuning epochs in each round."),
    click.option("--lr", "learning_rate", default=2e-3, show_default=True, help="Learning rate."),
    click.option("--batch-size", default=128, show_default=True, help="Batch of fine-tuning."),
    click.option("--distil", default=0.7, show_default=True, help="Weight of the dense model in the loss."),
    click.option(
        "--features", default=0.0, show_default=True, help="Weight of the dense model's features in the loss."
    ),
    click.option(
        "--ib-beta",
        default=0.0,
        show_default=True,
        help="Weight of the noisy activations' entropy in the loss.",
    ),
)
@in_group(
    "Computing",
    click.option(
        "--accelerator",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]|mps|xpu",
        help="Where data are computed; export and timing stay on the CPU.",
    ),
)
@in_group(
    "Files and reports",
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="NAME|MODULE:FUNCTION",
        help="Measures of the task; the first decides.",
    ),
    click.option("--eval-data", multiple=True, metavar="NAME=DATA", help="Further sets for the report."),
    click.option(
        "--front",
        type=click.IntRange(0, 6),
        default=6,
        show_default=True,
        help="Further points of the Pareto front to write.",
    ),
    click.option(
        "--int8",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="8 bits: if faster within the budget, always, or never.",
    ),
    click.option("--opset", default=18, show_default=True, help="ONNX opset."),
    click.option("--fixed-batch", type=click.IntRange(min=1), help="Export with this batch size."),
    click.option("--seed", default=0, show_default=True, help="Of splits, sampling and training."),
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder [./MODEL-edgeprune]."),
    click.option("--force", is_flag=True, help="Start over if the folder holds a run of another request."),
    click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout."),
)
def compress(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    data: str | None,
    mean: str | None,
    std: str | None,
    max_drop: float | None,
    macs: float | None,
    params: float | None,
    target_ms: float | None,
    speedup: float | None,
    deadline_ms: float | None,
    size_mb: float | None,
    mask_spec: str | None,
    train_spec: str | None,
    metrics: tuple[str, ...],
    eval_data: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
    destination: str | None,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
    **settings: Any,
) -> None:
    """Compress MODEL within a budget and write model.onnx with its proof.

    Every finished step is kept: the same command continues where a stopped one was.
    """
    from edgeprune.session.budget import Budget
    from edgeprune.session.options import Options

    budget = Budget(max_drop, macs, params, target_ms, speedup, deadline_ms, size_mb)
    options = Options(budget=budget, metrics=metrics, **settings)
    sets = _named_sets(eval_data)
    existing_data(data)

    from edgeprune.cli.masks import read_mask_option
    from edgeprune.cli.progress import Terminal
    from edgeprune.report import render_table
    from edgeprune.run.compress import Request, compress_loaded, with_defaults
    from edgeprune.session.user_training import import_train

    loaded, hooks = load_with_mask(model, factory, input_shapes, trust_pickle)
    dataset = None if data is None else open_for(data, loaded, mean, std)
    further = {name: open_for(spec, loaded, mean, std) for name, spec in sets.items()}
    mask = read_mask_option(mask_spec, hooks, loaded)
    train = None if train_spec is None else import_train(train_spec)
    progress = Terminal()
    board = None
    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)
        if destination is not None:
            board = open_board(destination, board_python, ssh_config, accept_new_host_key)
            stack.enter_context(board.remote)
        request = Request(loaded, dataset, with_defaults(options), further, mask, board, train)
        folder = output or Path(f"{model.stem}-edgeprune")
        result = compress_loaded(request, folder, progress=progress, force=force)
    if as_json:
        click.echo(json.dumps(result.report, indent=1))
        return
    click.echo(render_table(result.report))
    click.echo(f"\n{result.onnx}  the file to ship\n{result.folder / 'report.html'}  the proof")


def _named_sets(eval_data: tuple[str, ...]) -> dict[str, str]:
    """--eval-data NAME=DATA by name."""
    sets = {}
    for text in eval_data:
        name, separator, spec = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text}: expected NAME=DATA", param_hint="--eval-data")
        existing_data(spec, "--eval-data")
        sets[name] = spec
    return sets
