"""`edgeprune export`: a model as ONNX, with parity proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.common import data_options, existing_data, load, model_options, open_for, writable

if TYPE_CHECKING:
    from edgeprune.records import OnnxArtifact


@click.command()
@model_options
@data_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="ONNX file [./MODEL.onnx].")
@click.option("--opset", default=18, show_default=True)
@click.option("--fixed-batch", type=click.IntRange(min=1), help="Fix the batch [free if the model allows].")
@click.option("--simplify/--no-simplify", default=True, show_default=True, help="Run onnxsim, guarded.")
@click.option("--seed", default=0, show_default=True, help="Of random inputs, or of which samples are used.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def export(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    data: str | None,
    mean: str | None,
    std: str | None,
    output: Path | None,
    opset: int,
    fixed_batch: int | None,
    simplify: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Export MODEL to ONNX and prove that the file computes what the model computes.

    Parity is checked on samples of --data, else on seeded noise. Takes any model, also a pruned .pt2.
    """
    path = output or Path(f"{model.stem}.onnx")
    writable(path)
    existing_data(data)

    from edgeprune.cli.progress import Terminal
    from edgeprune.records import to_json
    from edgeprune.run.analysis import analyse_model
    from edgeprune.run.stages import export_model
    from edgeprune.session.options import Options
    from edgeprune.session.progress import Clock

    loaded = load(model, factory, input_shapes, trust_pickle)
    dataset = None if data is None else open_for(data, loaded, mean, std)
    progress = Terminal()
    clock = Clock(progress)
    try:
        analysis = analyse_model(loaded, Options(seed=seed), clock=clock)
        artifact = export_model(
            analysis,
            dataset,
            path,
            opset=opset,
            fixed_batch=fixed_batch,
            simplify=simplify,
            seed=seed,
            clock=clock,
        )
    finally:
        progress.close()
    if as_json:
        inputs = "data" if dataset is not None else "seeded noise"
        plain = {**to_json(artifact), "parity_inputs": inputs, "notes": list(analysis.loaded.notes)}
        click.echo(json.dumps(plain, indent=1))
        return
    click.echo("\n".join(lines_of(artifact, dataset is not None)))
    for text in analysis.loaded.notes:
        click.echo(f"note: {text}")


def lines_of(artifact: OnnxArtifact, real: bool) -> list[str]:
    """The result as lines of text."""
    from edgeprune.report.words import size

    parity = artifact.parity
    assert parity is not None
    agreement = "" if parity.top1_agreement is None else f", top-1 agreement {parity.top1_agreement:.2%}"
    inputs = "samples of the data" if real else "random samples"
    return [
        f"{artifact.path}  {size(artifact.bytes)}, opset {artifact.opset}, {artifact.nodes} nodes,"
        f" batch {'free' if artifact.dynamic_batch else 'fixed'}",
        f"parity: differs by at most {parity.max_abs:.2g} (allowed {parity.atol:.2g})"
        f" on {parity.samples} {inputs}{agreement}",
        f"sha256 {artifact.sha256}",
        artifact.note,
    ]
