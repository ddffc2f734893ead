"""`edgeprune quantise`: an ONNX file in 8 bits, with parity, accuracy and time measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.common import data_options, numbers, writable

if TYPE_CHECKING:
    from edgeprune.records import BenchResult, Interval, QuantiseResult


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_options
@click.option("--target", default="host", show_default=True, help="Device; see `edgeprune targets`.")
@click.option("--anyway", is_flag=True, help="Also for cores that gain little from 8 bits.")
@click.option("--max-drop", type=float, help="Points that may be lost on the validation part.")
@click.option("--metric", help="accuracy, top5 or MODULE:FUNCTION [accuracy where there are labels].")
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
    from edgeprune.cli.progress import Terminal
    from edgeprune.data import check_labels, open_data, split
    from edgeprune.errors import DataError
    from edgeprune.export.files import load
    from edgeprune.export.quantisation import quantise as run
    from edgeprune.export.quantisation_policy import int8_settings, require_gain
    from edgeprune.measure.host import run_bench
    from edgeprune.measure.operators import HostTimer
    from edgeprune.records import to_json
    from edgeprune.session.exporting import file_outputs
    from edgeprune.session.progress import Clock
    from edgeprune.targets import load_target
    from edgeprune.tasks.bounds import paired_drop, share_interval
    from edgeprune.tasks.metrics import resolve_metric

    device = load_target(target)
    if not anyway:
        require_gain(device)
    path = output or Path(f"{model.stem}-int8.onnx")
    writable(path)
    if data is None:
        raise DataError("8 bits need data to take ranges from", tip="give the calibration data with --data")
    graph = load(model, external_data=False).graph
    shapes = [tuple(d.dim_value for d in v.type.tensor_type.shape.dim[1:]) for v in graph.input]
    dataset = open_data(data, input_shapes=shapes, mean=numbers(mean, "--mean"), std=numbers(std, "--std"))
    parts = split(dataset, seed=seed, calibration=calibration, validation=validation)
    if dataset.labels is None and (max_drop is not None or metric is not None):
        raise DataError(f"{data}: has no labels, which --max-drop and --metric need")
    measure = None if dataset.labels is None else resolve_metric(metric or "accuracy")
    progress = Terminal()
    clock = Clock(progress)

    def value(file: Path, indices: Any) -> Any:
        assert measure is not None and dataset.labels is not None
        return measure(file_outputs(file, dataset, indices, clock), dataset.labels[indices])

    fixed = graph.input[0].type.tensor_type.shape.dim[0]
    size = fixed.dim_value if fixed.HasField("dim_value") else 64
    starts = range(0, len(parts.calibration) - size + 1, size) or range(1)
    settings: dict[str, Any] = {**int8_settings(device)}
    if measure is not None:
        first = file_outputs(model, dataset, parts.calibration[:size], clock)
        if first.ndim == 2:
            check_labels(dataset, first.shape[1])
        settings["evaluate"] = lambda file: 100.0 * value(file, parts.validation).value
    try:
        with clock.stage("quantise"):
            made = run(
                model,
                (dataset.batch(parts.calibration[s : s + size]) for s in starts),
                path,
                max_drop=max_drop,
                evaluations=evaluations,
                keep_float=dict.fromkeys(keep, "kept by --keep"),
                timer=HostTimer(threads=threads, seconds=min(bench_seconds, 3.0)) if device.local else None,
                sensitivity=sensitivity,
                **settings,
            )
        accuracy: dict[str, Interval] = {}
        if measure is not None:
            with clock.stage("test"):
                before, after = value(model, parts.test), value(path, parts.test)
            if before.per_sample is not None and after.per_sample is not None:
                accuracy = {
                    "before": share_interval(before.per_sample),
                    "after": share_interval(after.per_sample),
                    "drop": paired_drop(
                        before.per_sample, after.per_sample, groups=dataset.groups_of(parts.test)
                    ),
                }
        timing: BenchResult | None = None
        if device.local:
            with clock.stage("bench"):
                timing = run_bench([model, path], threads=threads, seconds=bench_seconds, seed=seed)
    finally:
        progress.close()
    if as_json:
        plain = {"target": device.name, "accuracy": to_json(accuracy), "bench": to_json(timing)}
        click.echo(json.dumps({**to_json(made), **plain}, indent=1))
        return
    click.echo("\n".join(lines_of(made, accuracy, timing)))


def lines_of(made: QuantiseResult, accuracy: dict[str, Interval], timing: BenchResult | None) -> list[str]:
    """The result as a person reads it."""
    from edgeprune.report.words import size

    parity = made.artifact.parity
    assert parity is not None
    kind = f"{made.activations} activations, {made.weights}{', 7-bit range' if made.reduce_range else ''}"
    lines = [
        f"{made.artifact.path}  {size(made.artifact.bytes)} of {size(made.source_bytes)},"
        f" {made.artifact.note}, {kind}, calibrated by {made.method} on {made.samples} samples",
        f"parity with the same graph unoptimised: differs by at most {parity.max_abs:.2g}"
        f" (allowed {parity.atol:.2g}) on {parity.samples} samples",
        f"outputs move by {made.output_error:.2g} of their variance",
    ]
    if accuracy:
        drop = accuracy["drop"]
        lines.append(
            f"test: {accuracy['before'].value:.2%} → {accuracy['after'].value:.2%},"
            f" {drop.value:.2f} points lost [{drop.low:.2f}, {drop.high:.2f}]"
        )
    if timing is None:
        lines.append("time: not measured, the target is not this machine")
    else:
        ratio = timing.ratios[0].ratio
        lines.append(f"time: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of the float file's")
        if ratio.high >= 1:
            lines.append(f"not faster here; why: edgeprune bench {made.source} {made.artifact.path} --why")
    for layer in made.layers:
        if not layer.quantised:
            lines.append(f"  {layer.name} ({layer.operator}) stays in float: {layer.reason}")
    return lines + [f"note: {text}" for text in made.notes]
