"""`edgeprune quantise`: an ONNX file in 8 bits, with parity, accuracy and time measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.common import data_options, parse_numbers, task_option, writable

if TYPE_CHECKING:
    from edgeprune.data import Dataset
    from edgeprune.run.quantise import QuantisedFile


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_options
@task_option
@click.option("--target", default="host", show_default=True, help="Device; see `edgeprune targets`.")
@click.option(
    "--anyway", is_flag=True, help="Also for cores that gain little, and if the file is not faster."
)
@click.option("--max-drop", type=float, help="Loss allowed on the validation part, in the task's unit.")
@click.option("--metric", help="A measure of the task, or MODULE:FUNCTION.")
@click.option("--calibration", default=1024, show_default=True, help="Samples that ranges are taken from.")
@click.option("--validation", default=0.15, show_default=True, help="Share of the training part.")
@click.option("--keep", multiple=True, help="Layers that stay in float.")
@click.option("--evaluations", default=16, show_default=True, help="Files that accuracy is measured of.")
@click.option("--sensitivity", is_flag=True, help="Measure what each layer alone does to the outputs.")
@click.option("--threads", default=1, show_default=True, help="Threads when timing.")
@click.option("--bench-seconds", default=5.0, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the splits; as `compress` takes them.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="ONNX file [./MODEL-int8.onnx].")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def quantise(
    model: Path,
    data: str | None,
    mean: str | None,
    std: str | None,
    task: str | None,
    target: str,
    anyway: bool,
    max_drop: float | None,
    metric: str | None,
    calibration: int,
    validation: float,
    keep: tuple[str, ...],
    evaluations: int,
    sensitivity: bool,
    threads: int,
    bench_seconds: float,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL, an ONNX file, in 8 bits with what that costs and gains.

    Layers that 8 bits make slower, or that cost more accuracy than --max-drop, stay in float.
    """
    from edgeprune.errors import DataError, ExportError
    from edgeprune.export.model_files import model_files
    from edgeprune.export.quantisation_policy import require_gain
    from edgeprune.targets import load_target

    board = load_target(target)
    if not anyway:
        require_gain(board)
    path = output or Path(f"{model.stem}-int8.onnx")
    writable(path)
    if data is None:
        raise DataError("8 bits need data to take ranges from", tip="give the calibration data with --data")
    model_files(model, error=ExportError)

    from edgeprune.cli.progress import Terminal
    from edgeprune.data import open_data
    from edgeprune.export.files import input_shapes
    from edgeprune.records import to_json
    from edgeprune.run.quantise import QuantiseSettings, quantise_file
    from edgeprune.session.progress import Clock

    shapes = input_shapes(model)
    dataset = open_data(
        data,
        input_shapes=[s[1:] for s in shapes],
        mean=parse_numbers(mean, "--mean"),
        std=parse_numbers(std, "--std"),
    )
    _require_runnable(model, dataset, shapes[0][0] or 1)
    progress = Terminal()
    settings = QuantiseSettings(
        target=board, task=task, metric=metric, max_drop=max_drop, calibration=calibration,
        validation=validation, keep=keep, evaluations=evaluations, sensitivity=sensitivity,
        write_slower=anyway,
        threads=threads, bench_seconds=bench_seconds, seed=seed,
    )  # fmt: skip
    try:
        done = quantise_file(model, dataset, path, settings, clock=Clock(progress))
    finally:
        progress.close()
    if as_json:
        plain = {"target": board.name, "loss": to_json(done.loss), "bench": to_json(done.bench)}
        click.echo(json.dumps({**to_json(done.result), **plain}, indent=1))
        return
    click.echo("\n".join(lines_of(done)))


def _require_runnable(model: Path, dataset: Dataset, samples: int) -> None:
    """Run the float file once on real samples, in a process of its own: it may crash or never end.

    Raises:
        ExportError: onnxruntime cannot load or run it, or it takes too long.
    """
    import tempfile

    import numpy as np

    from edgeprune.errors import ExportError
    from edgeprune.measure.host import require_runnable
    from edgeprune.measure.request import BenchRequest

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        inputs, call = Path(folder) / "inputs.npz", dataset.batch(np.arange(min(samples, len(dataset))))
        arrays = {f"input_{n}": np.asarray(values) for n, values in enumerate(call)}
        np.savez(inputs, allow_pickle=False, **arrays)
        require_runnable(BenchRequest((model,), inputs=inputs), error=ExportError)


def lines_of(done: QuantisedFile) -> list[str]:
    """The result as lines of text."""
    from edgeprune.report.words import size

    result, parity = done.result, done.result.artifact.parity
    kind = (
        f"{result.activations} activations, {result.weights}{', 7-bit range' if result.reduce_range else ''}"
    )
    lines = [
        f"{result.artifact.path}  {size(result.artifact.bytes)} of {size(result.source_bytes)},"
        f" {result.artifact.note}, {kind}, calibrated by {result.method} on {result.samples} samples"
    ]
    if parity is not None:
        lines.append(
            f"parity with the same graph unoptimised: differs by at most {parity.max_abs:.2g}"
            f" (allowed {parity.atol:.2g}) on {parity.samples} samples"
        )
    lines.append(f"outputs move by {result.output_error:.2g} of their variance")
    for part in done.loss.parts:
        shown = "{:.2%}" if part.unit == "points" else "{:.4g}"
        lines.append(
            f"test, {part.measure}: {shown.format(part.dense)} → {shown.format(part.value)},"
            f" {part.drop.value:.2f} {part.unit} lost [{part.drop.low:.2f}, {part.drop.high:.2f}]"
        )
    if done.bench is None:
        lines.append("time: not measured, the target is not this machine")
    else:
        ratio = done.bench.ratios[0].ratio
        lines.append(f"time: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of the float file's")
        if ratio.high >= 1:
            source = f"{result.source} {result.artifact.path}"
            lines.append(f"not faster here; why: edgeprune bench {source} --why")
    for layer in result.layers:
        if not layer.quantised:
            lines.append(f"  {layer.name} ({layer.operator}) stays in float: {layer.reason}")
    return lines + [f"note: {text}" for text in (done.task_note, *result.notes) if text]
