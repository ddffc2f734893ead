"""`edgeprune prune`: remove components by score or by a mask; writes a .pt2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.common import (
    choice_options,
    data_options,
    load_with_mask,
    model_options,
    open_for,
    writable,
)

if TYPE_CHECKING:
    from edgeprune.frontend.load import LoadedModel
    from edgeprune.masks import Mask
    from edgeprune.run.prune import Pruned

MASK_HELP = "npz of zeros and ones per weight, or `weights`: what is zero in them already."


@click.command()
@model_options
@data_options
@click.option("--macs", help="Share of the MACs to keep (0.5) or factor fewer (3x).")
@click.option("--params", help="Share of the parameters to keep, or factor fewer.")
@click.option("--mask", "mask_spec", metavar="FILE|weights", help=MASK_HELP)
@click.option("--criterion", help="What ranks channels [ib-gauss; l2 for a mask without data].")
@click.option("--theta", default=0.0, show_default=True, help="Signed weight of H(T|Y) in ib-edge, ib-jmi.")
@click.option(
    "--allocation", type=click.Choice(["sensitivity", "uniform"]), default="sensitivity", show_default=True
)
@click.option("--recover/--no-recover", default=True, show_default=True, help="Refit what stays; needs data.")
@click.option("--calibration", default=1024, show_default=True, help="Samples that scores are taken on.")
@click.option("--validation", default=0.15, show_default=True, help="Share of the training part.")
@click.option("--metric", help="accuracy, top5 or MODULE:FUNCTION [accuracy].")
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
    macs: str | None,
    params: str | None,
    mask_spec: str | None,
    keep: tuple[str, ...],
    heads: str,
    groups: str,
    prune_inputs: bool,
    output: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Remove components of MODEL without training; writes a .pt2 and the recipe beside it.

    What a mask makes dead, constant or doubled goes first, without changing any output. With --macs or
    --params more goes, until the budget is met. Masks of torch.nn.utils.prune in a state dict are found.
    """
    from edgeprune.cli.progress import Terminal
    from edgeprune.run.prune import PruneSettings, prune_model, write_pruned
    from edgeprune.run.stages import analyse_model
    from edgeprune.session.budget import parse_share
    from edgeprune.session.options import Clock

    shares = {
        k: None if v is None else parse_share(v, f"--{k}") for k, v in (("macs", macs), ("params", params))
    }
    path = output or Path(f"{model.stem}-pruned.pt2")
    writable(path)
    loaded, hooks = load_with_mask(model, factory, input_shapes, trust_pickle)
    if mask_spec is None and hooks is None and not any(shares.values()):
        raise click.UsageError("say how much or what to remove: --macs 0.5, --params 0.5 or --mask FILE")
    dataset = None if data is None else open_for(data, loaded, mean, std)
    progress = Terminal()
    clock = Clock(progress)
    try:
        found = analyse_model(
            loaded, keep=keep, prune_inputs=prune_inputs, heads=heads, groups=groups,
            seed=settings["seed"], clock=clock,
        )  # fmt: skip
        mask = _mask(mask_spec, hooks, loaded, found.trace.graph)
        pruned = prune_model(found, dataset, mask, PruneSettings(**{**settings, **shares}), clock=clock)
    finally:
        progress.close()
    beside = write_pruned(pruned, path)
    plain = _plain(pruned, path, beside, found.loaded)
    click.echo(json.dumps(plain, indent=1) if as_json else "\n".join(lines_of(plain)))


def _mask(spec: str | None, hooks: Mask | None, loaded: LoadedModel, graph: Any) -> Mask | None:
    """The mask asked for; prune hooks that the file holds count too."""
    from edgeprune.graph.module import state_tensors
    from edgeprune.masks import mask_from_zeros, read_mask

    if spec is None:
        return hooks
    if spec == "weights":
        tensors = state_tensors(graph).items()
        return mask_from_zeros({name: t for name, t in tensors if t.is_floating_point()})
    mask = read_mask(Path(spec))
    if hooks is None:
        return mask
    both = {**hooks.keep, **mask.keep}
    shared = {n: mask.keep[n] & hooks.keep[n] for n in mask.keep.keys() & hooks.keep.keys()}
    return type(mask)({**both, **shared})


def _plain(pruned: Pruned, path: Path, beside: Path, loaded: LoadedModel) -> dict[str, Any]:
    from edgeprune.records import to_json

    honoured = None
    if pruned.honoured is not None:
        found = pruned.honoured
        honoured = {
            "density": pruned.mask_density,
            "masked": found.masked,
            "removed": found.removed,
            "given_up": found.given_up,
            "live_removed": found.live_removed,
            "share": found.share,
            "live_components": to_json(found.live_components),
            "tensors": to_json(found.tensors),
        }
    return {
        "output": str(path),
        "recipe": str(beside),
        "components": {"before": len(pruned.removed), "removed": int(pruned.removed.sum())},
        "macs": {"before": pruned.macs[0], "after": pruned.macs[1]},
        "params": {"before": pruned.params[0], "after": pruned.params[1]},
        "lossless": to_json(pruned.lossless),
        "inputs": pruned.recipe.get("inputs", []),
        "criterion": pruned.criterion,
        "recovered": pruned.recovered,
        "mask": honoured,
        "validation": to_json(pruned.validation),
        "notes": list(loaded.notes),
    }


def lines_of(plain: dict[str, Any]) -> list[str]:
    """The result as a person reads it."""
    from edgeprune.report.words import count, fewer, kept_inputs_line

    lossless, parts = plain["lossless"], plain["components"]
    lines = [
        f"{parts['removed']} of {parts['before']} components removed;"
        f" {lossless['removed']} of them without changing an output"
        f" ({lossless['unused']} unused, {lossless['constant']} constant, {lossless['merged']} doubled;"
        f" largest difference {lossless['max_abs']:.2g})"
    ]
    for key, name in (("macs", "MACs"), ("params", "parameters")):
        before, after = plain[key]["before"], plain[key]["after"]
        lines.append(f"{name}: {count(before)} → {count(after)}, {fewer(before, after, 'fewer')}")
    lines += [kept_inputs_line(entry) for entry in plain["inputs"]]
    mask = plain["mask"]
    if mask is not None and not mask["masked"]:
        lines.append("mask: it prunes nothing")
    elif mask is not None:
        lines.append(
            f"mask: {mask['share']:.1%} of {count(mask['masked'])} masked weights are really gone,"
            f" {count(mask['given_up'])} stay as zeros;"
            f" {count(mask['live_removed'])} live weights went with them"
        )
    if plain["criterion"]:
        how = "refitted in closed form" if plain["recovered"] else "not recovered"
        lines.append(f"ranked by {plain['criterion']}, {how}, not trained")
    found = plain["validation"]
    if found is not None:
        steps = " → ".join(f"{k} {found[k]:.2%}" for k in ("given", "masked", "pruned") if k in found)
        lines.append(f"{found['measured_as']} on {found['samples']} validation samples: {steps}")
    lines += [f"note: {text}" for text in plain["notes"]]
    return [*lines, "", f"{plain['output']}  the pruned model", f"{plain['recipe']}  which indices stay"]
