"""Options that several commands share, and what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeprune.data import Dataset
    from edgeprune.frontend.load import LoadedModel
    from edgeprune.masks import Mask

Command = Callable[..., Any]
SHAPE_HELP = "Of one input, without batch; once per input."
FACTORY_HELP = "Builds the module that a state dict belongs to."
STATE = "edgeprune.state"
DEQUANTISE = "edgeprune.dequantise"


def model_options(command: Command) -> Command:
    """MODEL and how to read it."""
    for decorate in (
        click.option(
            "--state",
            expose_value=False,
            callback=_remember_state,
            help="Which state dict of a checkpoint to take: model, ema, …",
        ),
        click.option(
            "--dequantise",
            is_flag=True,
            expose_value=False,
            callback=_remember_dequantise,
            help="Turn an ONNX file of 8-bit layers back into floats.",
        ),
        click.option("--trust-pickle", is_flag=True, help="Unpickle the file, which runs the code in it."),
        click.option(
            "--input-shape", "input_shapes", multiple=True, metavar="[DTYPE:]C,H,W", help=SHAPE_HELP
        ),
        click.option("--model", "factory", metavar="MODULE:FUNCTION", help=FACTORY_HELP),
        click.argument("model", type=click.Path(path_type=Path), callback=existing_model),
    ):
        command = decorate(command)
    return command


def existing_model(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    """Refuse a model path that is not there before torch is imported; what the file is, its content says.

    Raises:
        ModelError: no such file; files of similar names are offered.
    """
    from edgeprune.errors import ModelError

    if not path.expanduser().exists():
        folder = path.expanduser().parent
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, 2)
        raise ModelError(f"{path}: no such file", tip=f"did you mean {' or '.join(near)}?" if near else "")
    return path


def existing_data(spec: str | None, option: str = "--data") -> None:
    """Refuse data that are neither a file, a folder nor MODULE:FUNCTION, before torch is imported.

    Raises:
        DataError: no such file or folder.
    """
    from edgeprune.errors import DataError

    if spec is None or Path(spec).expanduser().exists() or (":" in spec and "/" not in spec):
        return
    raise DataError(f"{spec}: no such file or folder", tip=f"check {option}")


def target_name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse an unknown --target at once; the nearest names are offered.

    Raises:
        TargetError: unknown, or a malformed descriptor.
    """
    from edgeprune.targets import load_target

    load_target(name)
    return name


def share_option(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """`0.5` or `3x` of --macs and --params as the share kept.

    Raises:
        BudgetError: neither.
    """
    from edgeprune.session.budget import parse_share

    return None if text is None else parse_share(text, f"--{parameter.name}")


def task_option(command: Command) -> Command:
    """--task: what the outputs mean."""
    return click.option(
        "--task", metavar="NAME", callback=_known_task,
        help="What the outputs mean: classification, detection, regression, ... [inferred]",
    )(command)  # fmt: skip


def _known_task(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    from edgeprune.tasks.registry import resolve_task

    if name is not None:
        resolve_task(name)
    return name


def choice_options(command: Command) -> Command:
    """--heads and --groups: what is free where two factors share a dimension."""
    for decorate in (
        click.option(
            "--groups",
            type=click.Choice(["whole", "position"]),
            default="whole",
            show_default=True,
            help="Of grouped convolutions: whole ones go, or the same position of each.",
        ),
        click.option(
            "--heads",
            type=click.Choice(["whole", "width"]),
            default="whole",
            show_default=True,
            help="Of attention: whole ones go, or the same width of each.",
        ),
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


def _remember_state(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Kept with the command: `load` alone asks for it."""
    context.meta[STATE] = value


def _remember_dequantise(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Kept with the command, as --state is."""
    context.meta[DEQUANTISE] = value


def load(model: Path, factory: str | None, input_shapes: tuple[str, ...], trust_pickle: bool) -> LoadedModel:
    """Load a model as the options say."""
    return load_with_mask(model, factory, input_shapes, trust_pickle)[0]


def load_with_mask(
    model: Path, factory: str | None, input_shapes: tuple[str, ...], trust_pickle: bool
) -> tuple[LoadedModel, Mask | None]:
    """Load a model as the options say, with the mask that torch.nn.utils.prune left in it."""
    from edgeprune.frontend.examples import parse_input_shape
    from edgeprune.run.torch_prune_compat import load_with_prune_masks

    parsed = [parse_input_shape(text) for text in input_shapes]
    shapes, dtypes = [shape for shape, _ in parsed], [dtype for _, dtype in parsed]
    return load_with_prune_masks(
        model,
        factory=factory,
        input_shapes=shapes or None,
        input_dtypes=dtypes or None,
        trust_pickle=trust_pickle,
        state=click.get_current_context().meta.get(STATE),
        dequantise=bool(click.get_current_context().meta.get(DEQUANTISE)),
    )


def open_for(spec: str, loaded: LoadedModel, mean: str | None, std: str | None) -> Dataset:
    """Open data as this model takes it."""
    from edgeprune.data import open_data

    shapes = [tuple(x.shape[1:]) for x in loaded.example_inputs]
    return open_data(
        spec, input_shapes=shapes, mean=parse_numbers(mean, "--mean"), std=parse_numbers(std, "--std")
    )


def writable(path: Path, option: str = "--output") -> None:
    """Refuse an output file that cannot be written, before any work is done for it.

    Raises:
        OutputError: something that is no regular file is in the way, or its own folder cannot be made or
            written.
    """
    from edgeprune.errors import OutputError
    from edgeprune.paths import require_replaceable, write_file

    require_replaceable(path, option)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        write_file(probe, b"0")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{option} {path}: {error.strerror or error}", tip="choose a place that can be written"
        ) from error


def parse_numbers(text: str | None, option: str) -> list[float] | None:
    """Numbers separated by commas, or a usage error that names the option."""
    if text is None:
        return None
    try:
        return [float(t) for t in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: expected numbers, as in 0.5,0.5,0.5", param_hint=option) from None
