"""`edgeprune prune`: remove components by score or by a mask; writes a .pt2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.common import (
    choice_options,
    data_options,
    existing_data,
    load_with_mask,
    model_options,
    open_for,
    share_option,
    task_option,
    writable,
)
from edgeprune.cli.masks import MASK_HELP

if TYPE_CHECKING:
    from edgeprune.run.prune import Pruned


@click.command()
@model_options
@data_options
@task_option
@click.option("--macs", callback=share_option, help="Share of the MACs to keep (0.5) or factor fewer (3x).")
@click.option("--params", callback=share_option, help="Share of the parameters to keep, or factor fewer.")
@click.option("--mask", "mask_spec", metavar="FILE|weights", help=MASK_HELP)
@click.option("--criterion", help="What ranks channels [ib-gauss; l2 for a mask without data].")
@click.option("--theta", default=0.0, show_default=True, help="Signed weight of H(T|Y) in ib-edge, ib-jmi.")
@click.option(
    "--allocation", type=click.Choice(["sensitivity", "uniform"]), default="sensitivity", show_default=True
)
@click.option("--recover/--no-recover", default=True, show_default=True, help="Refit what stays; needs data.")
@click.option("--calibration", default=1024, show_default=True, help="Samples that scores are taken on.")
@click.option("--validation", default=0.15, show_default=True, help="Share of the training part.")
@click.option("--metric", help="A measure of the task, or MODULE:FUNCTION.")
@click.option("--keep", multiple=True, help="Layers whose channels all stay.")
@choice_options
@click.option(
    "--prune-inputs", is_flag=True, help="Features of the inputs may go; the file gathers those it reads."
)
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File [./MODEL-pruned.pt2].")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def prune(
    model: Path,
    factory: str | None,
    input_shapes: tuple[str, ...],
    trust_pickle: bool,
    data: str | None,
    mean: str | None,
    std: str | None,
    macs: float | None,
    params: float | None,
    mask_spec: str | None,
    criterion: str | None,
    recover: bool,
    metric: str | None,
    output: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Remove components of MODEL without training; writes a .pt2 and the recipe beside it.

    What a mask makes dead, constant or doubled goes first, without changing any output. With --macs or
    --params more goes, until the budget is met. Masks of torch.nn.utils.prune in a state dict are found.
    """
    from edgeprune.session.budget import Budget
    from edgeprune.session.options import Options

    metrics = () if metric is None else (metric,)
    options = Options(budget=Budget(None, macs, params), metrics=metrics, epochs=0, **settings)
    path = output or Path(f"{model.stem}-pruned.pt2")
    writable(path)
    existing_data(data)

    from edgeprune.cli.masks import read_mask_option
    from edgeprune.cli.progress import Terminal
    from edgeprune.records import to_json
    from edgeprune.run.analysis import analyse_model
    from edgeprune.run.prune import default_criterion, prune_model, write_pruned
    from edgeprune.session.options import with_criterion
    from edgeprune.session.progress import Clock

    loaded, hooks = load_with_mask(model, factory, input_shapes, trust_pickle)
    if mask_spec is None and hooks is None and not options.budget.sized:
        raise click.UsageError("say how much or what to remove: --macs 0.5, --params 0.5 or --mask FILE")
    dataset = None if data is None else open_for(data, loaded, mean, std)
    mask = read_mask_option(mask_spec, hooks, loaded)
    options = with_criterion(options, criterion or default_criterion(dataset, mask))
    progress = Terminal()
    clock = Clock(progress)
    try:
        analysis = analyse_model(loaded, options, clock=clock)
        pruned = prune_model(analysis, dataset, mask, options, recover=recover, clock=clock)
    finally:
        progress.close()
    beside = write_pruned(pruned, path)
    plain = _plain(pruned, path, beside, (*analysis.loaded.notes, *pruned.notes))
    click.echo(json.dumps(to_json(plain), indent=1) if as_json else "\n".join(lines_of(to_json(plain))))


def _plain(pruned: Pruned, path: Path, beside: Path, notes: tuple[str, ...]) -> dict[str, Any]:
    coverage = pruned.coverage
    return {
        "output": str(path),
        "recipe": str(beside),
        "components": {"before": len(pruned.removed), "removed": int(pruned.removed.sum())},
        "macs": {"before": pruned.macs[0], "after": pruned.macs[1]},
        "params": {"before": pruned.params[0], "after": pruned.params[1]},
        "lossless": pruned.lossless,
        "inputs": pruned.recipe.get("inputs", []),
        "criterion": pruned.criterion,
        "recovered": pruned.recovered,
        "mask": None
        if coverage is None
        else {
            "density": pruned.mask_density,
            "masked": coverage.masked,
            "removed": coverage.removed,
            "given_up": coverage.given_up,
            "live_removed": coverage.live_removed,
            "share": coverage.share,
            "live_components": coverage.live_components,
            "tensors": coverage.tensors,
        },
        "validation": pruned.validation,
        "notes": list(notes),
    }


def lines_of(plain: dict[str, Any]) -> list[str]:
    """The result as lines of text."""
    from edgeprune.report.words import fewer, kept_inputs_line, short_count

    lossless, parts = plain["lossless"], plain["components"]
    lines = [
        f"{parts['removed']} of {parts['before']} components removed;"
        f" {lossless['removed']} of them without changing an output"
        f" ({lossless['unused']} unused, {lossless['constant']} constant, {lossless['merged']} doubled;"
        f" largest difference {lossless['max_abs']:.2g})"
    ]
    for key, name in (("macs", "MACs"), ("params", "parameters")):
        before, after = plain[key]["before"], plain[key]["after"]
        lines.append(f"{name}: {short_count(before)} → {short_count(after)}, {fewer(before, after, 'fewer')}")
    lines += [kept_inputs_line(entry) for entry in plain["inputs"]]
    mask = plain["mask"]
    if mask is not None and not mask["masked"]:
        lines.append("mask: it prunes nothing")
    elif mask is not None:
        lines.append(
            f"mask: {mask['share']:.1%} of {short_count(mask['masked'])} masked weights were removed,"
            f" {short_count(mask['given_up'])} stay as zeros;"
            f" {short_count(mask['live_removed'])} live weights went with them"
        )
    if plain["criterion"]:
        how = "refitted in closed form" if plain["recovered"] else "not recovered"
        lines.append(f"ranked by {plain['criterion']}, {how}, not trained")
    if plain["validation"] is not None:
        lines.append(_validation_line(plain["validation"]))
    lines += [f"note: {text}" for text in plain["notes"]]
    return [*lines, "", f"{plain['output']}  the pruned model", f"{plain['recipe']}  which indices stay"]


def _validation_line(validation: dict[str, Any]) -> str:
    shown = "{:.2%}" if validation["unit"] == "points" else "{:.4g}"
    steps = [(k, validation[k]) for k in ("given", "masked", "pruned") if validation[k] is not None]
    path = " → ".join(f"{name} {shown.format(value)}" for name, value in steps)
    return f"{validation['measured_as']} on {validation['samples']} validation samples: {path}"
