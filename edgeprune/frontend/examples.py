"""Example inputs: made from shapes, or taken from an exported program.

Made ones have a batch of 2, because torch.export fixes a batch of 1, and come from a
seeded normal (integers: zeros and ones, which any vocabulary has).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from edgeprune.errors import ModelError

BATCH = 2
SEED = 0
LARGEST = 1 << 29  # bytes of one example input
DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "int8", "bool")
}


def parse_input_shape(text: str) -> tuple[tuple[int, ...], str]:
    """`1,28,28` or `int64:64` or `tokens:int64:64` → the shape without batch, and the dtype's name.

    Raises:
        ModelError: not of that form.
    """
    parts = text.strip().split(":")
    dtype = parts[-2] if len(parts) > 1 else "float32"
    if len(parts) > 3 or dtype not in DTYPES:
        raise ModelError(
            f"--input-shape {text}: expected sizes, or dtype:sizes",
            tip=f"for example 3,224,224 or int64:64; dtypes are {', '.join(DTYPES)}",
        )
    sizes = parts[-1].replace("x", ",").split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise ModelError(
            f"--input-shape {text}: sizes must be whole numbers above zero, without the batch",
            tip="for example 3,224,224",
        )
    return tuple(int(size) for size in sizes), dtype


def example_tensors(
    shapes: Sequence[Sequence[int]], dtypes: Sequence[str | None] | None = None
) -> tuple[torch.Tensor, ...]:
    """Seeded inputs of batch 2, one per shape.

    Raises:
        ModelError: a size below 1, an unknown dtype, or not one dtype per shape.
    """
    names = [*dtypes] if dtypes else [None] * len(shapes)
    if len(names) != len(shapes):
        raise ModelError(f"{len(names)} input dtypes for {len(shapes)} input shapes")
    generator = torch.Generator().manual_seed(SEED)
    tensors = []
    for shape, name in zip(shapes, names, strict=True):
        if any(int(size) < 1 for size in shape):
            raise ModelError(f"input shape {tuple(shape)} has a size below 1")
        dtype = DTYPES.get(name or "float32")
        if dtype is None:
            raise ModelError(f"input dtype {name} is not known", tip=f"known are {', '.join(DTYPES)}")
        full = (BATCH, *(int(size) for size in shape))
        _require_size(full, dtype, "--input-shape " + ",".join(map(str, shape)))
        if dtype.is_floating_point:
            tensors.append(torch.randn(full, generator=generator).to(dtype))
        else:
            tensors.append(torch.randint(0, 2, full, generator=generator).to(dtype))
    return tuple(tensors)


def examples_of_program(program: Any, source: str) -> tuple[torch.Tensor, ...]:
    """The program's own example inputs, or seeded ones of the shapes that its graph records.

    Raises:
        ModelError: an input that is not a tensor, or no input at all.
    """
    if program.example_inputs:
        flat = torch.utils._pytree.tree_leaves(program.example_inputs)
        odd = [type(x).__name__ for x in flat if not isinstance(x, torch.Tensor)]
        if odd:
            raise ModelError(f"{source}: takes a {odd[0]} as input; only tensors can be fed on a device")
    else:
        names = set(program.graph_signature.user_inputs)
        nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
        generator = torch.Generator().manual_seed(SEED)
        flat = []
        for node in nodes:
            meta = node.meta.get("val")
            if not isinstance(meta, torch.Tensor):
                raise ModelError(f"{source}: takes {node.name}, which is not a tensor, as input")
            shape = [_size(n) for n in meta.shape]
            _require_size(shape, meta.dtype, f"{source}: input {node.name} of shape {tuple(shape)}")
            values = torch.randn(shape, generator=generator)
            flat.append((values if meta.dtype.is_floating_point else values > 0).to(meta.dtype))
    if not flat:
        raise ModelError(f"{source}: takes no input")
    return tuple(flat)


def require_shapes(
    asked: Sequence[Sequence[int]] | None, inputs: Sequence[torch.Tensor], source: str
) -> None:
    """Refuse shapes (without batch) that are not those of an exported program, which knows its own.

    Raises:
        ModelError: with the shapes that the program takes.
    """
    actual = [tuple(x.shape[1:]) for x in inputs]
    if asked and [tuple(shape) for shape in asked] != actual:
        shown, taken = (
            ", ".join(",".join(map(str, shape)) or "scalar" for shape in shapes) for shapes in (asked, actual)
        )
        raise ModelError(
            f"--input-shape {shown}: {source} is an exported program, which takes {taken}",
            tip="leave --input-shape out, or export the model for that shape",
        )


def fixed_batch_note(inputs: Sequence[torch.Tensor], program: Any = None) -> tuple[str, ...]:
    """A sentence where the batch is fixed at one size (a program without a dynamic batch), else nothing."""
    if program is None:
        if any(x.ndim and x.shape[0] == 1 for x in inputs):
            return ("the example batch is 1, which fixes the exported batch at 1; give at least 2",)
        return ()
    names = set(program.graph_signature.user_inputs)
    metas = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    sizes = {int(m.shape[0]) for m in metas if isinstance(m, torch.Tensor) and m.ndim and _fixed(m.shape[0])}
    return (f"the program was exported for a fixed batch of {min(sizes)}",) if sizes else ()


def _require_size(shape: Sequence[int], dtype: torch.dtype, what: str) -> None:
    """Refuse an example that would fill the memory: a shape is only a claim."""
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST:
        raise ModelError(f"{what} takes {size} bytes for a batch of {shape[0]}; at most {LARGEST} are made")


def _fixed(size: Any) -> bool:
    return isinstance(size, int)


def _size(size: Any) -> int:
    """A number for a size of the graph: its own, the one at export, or the default batch."""
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else BATCH
