"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeprune.data import Dataset
    from edgeprune.model.load import LoadedModel

Command = Callable[..., Any]
SHAPE_HELP = "Of one input, without batch; once per input."
FACTORY_HELP = "Builds the module that a state dict belongs to."


def model_options(command: Command) -> Command:
    """MODEL and how to read it."""
    for decorate in (
        click.option("--trust-pickle", is_flag=True, help="Unpickle the file, which runs the code in it."),
        click.option(
            "--input-shape", "input_shapes", multiple=True, metavar="[DTYPE:]C,H,W", help=SHAPE_HELP
        ),
        click.option("--model", "factory", metavar="MODULE:FUNCTION", help=FACTORY_HELP),
        click.argument("model", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def data_options(command: Command) -> Command:
    """--data and its normalisation."""
    for decorate in (
        click.option("--std", help="Per channel, after scaling to 0..1: 0.229,0.224,0.225."),
        click.option("--mean", help="Per channel, after scaling to 0..1: 0.485,0.456,0.406."),
        click.option("--data", help="npz, idx folder, class folders of images, or MODULE:FUNCTION."),
    ):
        command = decorate(command)
    return command


def load(model: Path, factory: str | None, input_shapes: tuple[str, ...], trust_pickle: bool) -> LoadedModel:
    """Load a model as the options say."""
    from edgeprune.model.examples import parse_input_shape
    from edgeprune.model.load import load_model

    parsed = [parse_input_shape(text) for text in input_shapes]
    shapes, dtypes = [shape for shape, _ in parsed], [dtype for _, dtype in parsed]
    return load_model(
        model,
        factory=factory,
        input_shapes=shapes or None,
        input_dtypes=dtypes or None,
        trust_pickle=trust_pickle,
    )


def open_for(spec: str, loaded: LoadedModel, mean: str | None, std: str | None) -> Dataset:
    """Open data as this model takes it."""
    from edgeprune.data import open_data

    shapes = [tuple(x.shape[1:]) for x in loaded.example_inputs]
    return open_data(spec, input_shapes=shapes, mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"))


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(t) for t in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: expected numbers, as in 0.5,0.5,0.5", param_hint=option) from None
