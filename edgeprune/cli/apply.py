"""`edgeprune apply`: slice the user's own class by a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeprune.cli.common import load, model_options, writable


@click.command()
@click.argument("recipe", metavar="RUN|RECIPE", type=click.Path(path_type=Path))
@model_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="safetensors [./MODEL-sliced.safetensors]."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def apply(
    recipe: Path,
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Slice MODEL's own weights by a run's recipe and prove that its class computes what the graph does.

    Needs the class (--model with a state dict, or --trust-pickle). Prints the attributes that changed:
    build the class with those, and the sliced weights load into it.
    """
    from edgeprune.errors import ModelError, OutputError
    from edgeprune.records.recipe import read_recipe
    from edgeprune.report.words import kept_inputs_line
    from edgeprune.surgery.apply import apply_recipe

    recipe = recipe / "recipe.json" if recipe.is_dir() else recipe
    path = output or Path(f"{model.stem}-sliced.safetensors")
    writable(path)
    plan = read_recipe(recipe)
    loaded = load(model, factory, input_shapes, trust_pickle)
    if loaded.interface is not None:
        raise ModelError(
            f"{model}: came from an ONNX file, and apply slices the weights of a PyTorch class",
            tip="the run's model.onnx is the smaller network; nothing is left to apply",
        )
    if loaded.module is None:
        raise ModelError(
            f"{model}: an exported program has no class to slice",
            tip="give the state dict with --model package.module:factory",
        )
    applied = apply_recipe(loaded.module, plan, loaded.example_inputs)
    import safetensors.torch

    partial = path.with_name(f".{path.name}.partial")
    try:
        safetensors.torch.save_model(applied.module, str(partial))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    changed = {name: list(values) for name, values in sorted(applied.attributes.items())}
    if as_json:
        click.echo(
            json.dumps({"output": str(path), "attributes": changed, "max_abs": applied.max_abs}, indent=1)
        )
        return
    for name, (before, after) in changed.items():
        click.echo(f"{name}  {before} -> {after}")
    for entry in plan.get("inputs", []):
        click.echo(f"{kept_inputs_line(entry)}; the sliced class takes those alone")
    click.echo(f"{path}: agrees with the cut graph within {applied.max_abs:.1e}")
