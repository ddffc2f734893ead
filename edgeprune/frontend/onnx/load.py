"""From the bytes of an ONNX file to a LoadedModel.

Free sizes other than the batch need numbers: those of `--input-shape`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.examples import BATCH, SEED
from edgeprune.frontend.loaded import LoadedModel, tensor_bytes
from edgeprune.frontend.onnx.gate import require_agreement
from edgeprune.frontend.onnx.module import OnnxModule
from edgeprune.frontend.onnx.reading import OnnxFile, Port, read_onnx
from edgeprune.records import Interface


def load_onnx(
    content: bytes,
    path: Path,
    source: str,
    digest: str,
    *,
    input_shapes: Sequence[Sequence[int]] | None = None,
    dequantise: bool = False,
) -> LoadedModel:
    """Import an ONNX file and prove that the module computes what the file computes.

    Args:
        input_shapes: sizes without batch, for inputs whose sizes are free in the file.

    Raises:
        ModelError: damaged, not importable (all operators named), or not equal to ONNX Runtime.
    """
    file, model = read_onnx(content, path, source, dequantise=dequantise)
    examples = example_inputs(file, input_shapes, source)
    try:
        module = OnnxModule(file.program, file.statistics).eval()
    except ModelError as error:
        raise ModelError(f"{source}: {error.message}", tip=error.tip) from error
    try:
        worst = require_agreement(module, model, examples, [p.name for p in file.inputs], source)
    except ModelError as error:
        raise (
            error
            if error.message.startswith(source)
            else ModelError(f"{source}: {error.message}", tip=error.tip)
        ) from error
    for beside in file.external:
        digest = hashlib.sha256(f"{digest} {beside.name} ".encode() + beside.read_bytes()).hexdigest()
    notes = (
        f"imported from ONNX (opset {file.opset}, {len(file.program.steps)} nodes); agrees with ONNX Runtime"
        f" to {worst:.1g} of each output's range",
        *file.notes,
        *_contradicted(file, module, examples),
    )
    loaded = LoadedModel(
        kind="module",
        program=None,
        module=module,
        example_inputs=examples,
        sha256=digest,
        source=source,
        parameters_bytes=tensor_bytes([*module.parameters(), *module.buffers()]),
        notes=notes,
    )
    return replace(loaded, interface=interface_of(file))


def _contradicted(file: OnnxFile, module: OnnxModule, examples: tuple[torch.Tensor, ...]) -> list[str]:
    """Notes on outputs whose declared sizes are not those that the nodes give."""
    with torch.no_grad():
        shapes = [tuple(y.shape) for y in module(*examples)]
    return [
        f"output {port.name!r} is declared as {_shown(port)}, but its nodes give {'×'.join(map(str, shape))}"
        for port, shape in zip(file.outputs, shapes, strict=True)
        if len(port.shape) != len(shape) * bool(port.shape)
        or any(isinstance(n, int) and n > 0 and n != m for n, m in zip(port.shape, shape, strict=False))
    ]


def interface_of(file: OnnxFile) -> Interface:
    """Names, batch and its name, as the file has them."""
    batches = {p.shape[0] for p in file.inputs if p.shape}
    fixed = [n for n in batches if isinstance(n, int) and n > 0]
    named = [n for n in batches if isinstance(n, str)]
    return Interface(
        tuple(p.name for p in file.inputs),
        tuple(p.name for p in file.outputs),
        named[0] if named else "batch",
        fixed[0] if fixed and not named else None,
    )


def example_inputs(
    file: OnnxFile, shapes: Sequence[Sequence[int]] | None, source: str
) -> tuple[torch.Tensor, ...]:
    """Seeded inputs: a free batch is 2, other free sizes are those that were given.

    Raises:
        ModelError: free sizes without numbers, or numbers that contradict the file.
    """
    sized = [port for port in file.inputs if port.shape]
    if shapes and len(shapes) == len(sized):
        given = iter(shapes)
        shapes = [next(given) if port.shape else () for port in file.inputs]
    if shapes and len(shapes) != len(file.inputs):
        raise ModelError(
            f"{source}: takes {len(file.inputs)} inputs ({', '.join(p.name for p in file.inputs)}), and"
            f" {len(shapes)} --input-shape were given",
            tip="give one for each input, in order",
        )
    generator = torch.Generator().manual_seed(SEED)
    examples = []
    for index, port in enumerate(file.inputs):
        shape = _concrete(port, shapes[index] if shapes else None, source)
        if port.dtype.is_floating_point:
            examples.append(torch.randn(shape, generator=generator).to(port.dtype))
        else:
            examples.append(torch.randint(0, 2, shape, generator=generator).to(port.dtype))
    return tuple(examples)


def _concrete(port: Port, asked: Sequence[int] | None, source: str) -> list[int]:
    own = port.shape
    if asked is not None and len(asked) != max(0, len(own) - 1):
        raise ModelError(
            f"--input-shape {','.join(map(str, asked))}: {source} takes {port.name} of {_shown(port)}",
            tip="give the sizes without the batch",
        )
    sizes: list[int] = []
    for axis, n in enumerate(own):
        wanted = asked[axis - 1] if asked is not None and axis else None
        if isinstance(n, int) and n > 0:
            if wanted not in (None, n):
                raise ModelError(
                    f"--input-shape {','.join(map(str, asked or ()))}: {source} takes {port.name} of"
                    f" {_shown(port)}",
                    tip="leave --input-shape out, or give the file's sizes",
                )
            sizes.append(n)
        elif axis == 0:
            sizes.append(BATCH)
        elif wanted is not None:
            sizes.append(int(wanted))
        else:
            raise ModelError(
                f"{source}: sizes of input {port.name} are free: {_shown(port)}",
                tip=f"add --input-shape without batch, for example --input-shape {_example(own)}",
            )
    return sizes


def _example(shape: Sequence[int | str | None]) -> str:
    """Sizes that could be given for this shape."""
    known = [str(n) if isinstance(n, int) and n > 0 else "" for n in shape[1:]]
    return ",".join(n or ("224" if len(known) == 3 else "128") for n in known)


def _shown(port: Port) -> str:
    return "×".join(str(n) if n else "?" for n in port.shape) or "one number"
