"""`edgeprune finish`: a pruned network that you trained yourself becomes a proven ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.common import data_options, existing_data, parse_numbers, task_option

if TYPE_CHECKING:
    from edgeprune.run.finish import Finished


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("trained", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_options
@task_option
@click.option("--metric", help="A measure of the task, or MODULE:FUNCTION.")
@click.option("--max-drop", type=click.FloatRange(min=0), help="Fail if the bound on validation is above.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads when timing [1].")
@click.option("--bench-seconds", default=5.0, show_default=True, help="Time of the benchmark.")
@click.option("--calibration", default=1024, show_default=True, help="As given to compress.")
@click.option("--validation", default=0.15, show_default=True, help="As given to compress.")
@click.option("--seed", default=0, show_default=True, help="Of the splits; as given to compress.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="New folder [RUN-finished].")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def finish(
    run: Path,
    trained: Path,
    data: str | None,
    mean: str | None,
    std: str | None,
    task: str | None,
    metric: str | None,
    max_drop: float | None,
    threads: int | None,
    bench_seconds: float,
    calibration: int,
    validation: float,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Export TRAINED weights of RUN's pruned network, prove the file, and bound what it lost.

    TRAINED is a checkpoint of the pruned network: of model.pt2, or of your own class after `apply`.
    """
    from edgeprune.session.options import Options

    options = Options(
        task=task, metrics=() if metric is None else (metric,), threads=threads, bench_seconds=bench_seconds,
        calibration=calibration, validation=validation, seed=seed,
    )  # fmt: skip
    existing_data(data)

    from edgeprune.cli.progress import Terminal
    from edgeprune.data import open_data
    from edgeprune.errors import BudgetError
    from edgeprune.records import to_json
    from edgeprune.run.finish import finish_run
    from edgeprune.session.progress import Clock

    dataset = None
    if data is not None:
        dataset = open_data(data, mean=parse_numbers(mean, "--mean"), std=parse_numbers(std, "--std"))
    folder = output or run.with_name(f"{run.resolve().name}-finished")
    progress = Terminal()
    try:
        done = finish_run(run, trained, dataset, folder, options, clock=Clock(progress))
    finally:
        progress.close()
    click.echo(json.dumps(to_json(done), indent=1) if as_json else "\n".join(lines_of(done)))
    if max_drop is not None and done.validation is not None and done.validation.high > max_drop:
        lost = done.validation
        raise BudgetError(
            f"--max-drop {max_drop:g}: {lost.value:.2f} {lost.unit} were lost on validation (up to"
            f" {lost.high:.2f}); the file was written to {folder}",
            tip="train longer, or allow more",
        )


def lines_of(done: Finished) -> list[str]:
    """The result as lines of text."""
    from edgeprune.report.words import size

    lines = [f"{done.onnx}  {size(done.artifact.bytes)}"]
    parity = done.artifact.parity
    if parity is not None:
        lines.append(f"parity: differs from PyTorch by at most {parity.max_abs:.2g}")
    for name, loss in (("validation", done.validation), ("test", done.test)):
        for part in loss.parts if loss is not None else ():
            shown = "{:.2%}" if part.unit == "points" else "{:.4g}"
            lines.append(
                f"{name}, {part.measure}: {shown.format(part.dense)} → {shown.format(part.value)},"
                f" {part.drop.value:+.2f} {part.unit} lost (at most {part.drop.high:.2f} at 90%)"
            )
    if done.bench.ratios:
        ratio = done.bench.ratios[0].ratio
        lines.append(f"time: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of the dense file's")
    return [*lines, *(f"note: {text}" for text in done.notes)]
