"""Operators that move values: reshape, slice, join, gather, scatter, pad."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgeprune.frontend.onnx.convolution import padded
from edgeprune.frontend.onnx.table import Call, Operand, operator, refuse, sizes


def _ints(numbers: Any) -> list[Any]:
    """Known numbers as a flat list; symbols are kept."""
    return [n if isinstance(n, torch.SymInt) else int(n) for n in np.asarray(numbers).reshape(-1).tolist()]


@operator("Shape")
def shape(call: Call) -> Operand:
    """Known before the network runs; a free batch is a symbol."""
    listed = list(call.tensor(0).shape)[call.attr("start", 0) : call.attr("end")]
    return Operand(None, sizes(listed))


@operator("Size")
def size(call: Call) -> Operand:
    """How many elements there are."""
    return Operand(None, sizes([call.tensor(0).numel()]).reshape(()))


@operator("Reshape")
def reshape(call: Call) -> torch.Tensor:
    """A 0 keeps the size of the input unless `allowzero` is set."""
    x, wanted = call.tensor(0), _ints(call.numbers(1))
    if not call.attr("allowzero", 0):
        wanted = [x.shape[i] if type(n) is int and n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def flatten(call: Call) -> torch.Tensor:
    """To two dimensions, divided at an axis."""
    x = call.tensor(0)
    axis = call.attr("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Transpose")
def transpose(call: Call) -> torch.Tensor:
    """Axes are reversed where no order is given."""
    x = call.tensor(0)
    order = call.attr("perm")
    return x.permute(list(order) if order is not None else list(reversed(range(x.dim()))))


@operator("Squeeze")
def squeeze(call: Call) -> torch.Tensor:
    """Every axis of size 1 where none is named."""
    x, axes = call.tensor(0), call.axes(1)
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("Unsqueeze")
def unsqueeze(call: Call) -> torch.Tensor:
    """Axes count in the result."""
    x, axes = call.tensor(0), call.axes(1) or []
    for axis in sorted(a % (x.dim() + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(call: Call) -> torch.Tensor:
    """Along one axis."""
    return torch.cat([call.tensor(i) for i in range(len(call.operands))], call.attr("axis"))


@operator("Split")
def split(call: Call) -> Any:
    """Into the sizes that are named, or into equal parts."""
    x, axis = call.tensor(0), call.attr("axis", 0)
    numbers = call.numbers(1)
    parts = call.attr("split") if numbers is None else _ints(numbers)
    count = call.attr("num_outputs") or len(call.step.outputs)
    return torch.split(x, list(parts) if parts else -(-x.shape[axis] // count), axis)


@operator("Slice")
def slice_(call: Call) -> torch.Tensor:
    """Bounds are clamped; a negative step turns the axis around."""
    x = call.tensor(0)
    starts, ends = (
        _ints(call.attr(name) if call.numbers(i) is None else call.numbers(i))
        for i, name in ((1, "starts"), (2, "ends"))
    )
    axes = call.axes(3) or list(range(len(starts)))
    steps = _ints(call.numbers(4)) if call.has(4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            x = _sliced(x, axis % x.dim(), start, end, step)
            continue
        length = x.shape[axis]
        first = min(start if start >= 0 else start + length, length - 1)
        last = max(end if end >= 0 else end + length, -1)
        picked = list(range(first, last, step))
        whole = picked == list(reversed(range(length)))
        x = x.flip(axis) if whole else x.index_select(axis, torch.tensor(picked, dtype=torch.int64))
    return x


def _sliced(x: torch.Tensor, axis: int, start: Any, end: Any, step: int) -> torch.Tensor:
    places: list[slice] = [slice(None)] * x.dim()
    places[axis] = slice(start, end, step)
    return x if (start, step) == (0, 1) and type(end) is int and end >= 2**31 - 1 else x[tuple(places)]


@operator("Gather")
def gather(call: Call) -> torch.Tensor:
    """Slices by index; a table of vectors looked up by tokens is an embedding."""
    x, axis = call.tensor(0), call.attr("axis", 0) % call.tensor(0).dim()
    operand = call.operands[1]
    assert operand is not None
    if operand.numbers is not None and operand.numbers.ndim == 0:
        return x.select(axis, operand.numbers.item())
    index = operand.tensor()
    if operand.numbers is not None or index.dtype != torch.int64:
        index = torch.where(index < 0, index + x.shape[axis], index).to(torch.int64)
    elif not _is_parameter(call):
        index = torch.where(index < 0, index + x.shape[axis], index)
    if axis == 0 and x.dim() == 2 and _is_parameter(call):
        return functional.embedding(index, x)
    if index.dim() == 1:
        return x.index_select(axis, index)
    places: list[Any] = [slice(None)] * axis
    return x[(*places, index)]


def _is_parameter(call: Call) -> bool:
    return isinstance(call.tensor(0), torch.nn.Parameter)


@operator("GatherElements")
def gather_elements(call: Call) -> torch.Tensor:
    """One index per value."""
    x, index, axis = call.tensor(0), call.tensor(1), call.attr("axis", 0)
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index).to(torch.int64))


@operator("GatherND")
def gather_nd(call: Call) -> torch.Tensor:
    """The last dimension of the indices addresses the first ones of the data."""
    if call.attr("batch_dims", 0):
        raise refuse(call, f"batch_dims is {call.attr('batch_dims')}")
    index = call.tensor(1).to(torch.int64)
    return call.tensor(0)[tuple(index[..., i] for i in range(index.shape[-1]))]


@operator("ScatterND")
def scatter_nd(call: Call) -> torch.Tensor:
    """Writes slices, or adds to them."""
    if call.attr("reduction", "none") not in ("none", "add"):
        raise refuse(call, f"its reduction is {call.attr('reduction')}")
    index = call.tensor(1).to(torch.int64)
    places = tuple(index[..., i] for i in range(index.shape[-1]))
    return call.tensor(0).index_put(places, call.tensor(2), call.attr("reduction", "none") == "add")


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call) -> torch.Tensor:
    """One index per value."""
    x, axis, kind = call.tensor(0), call.attr("axis", 0), call.attr("reduction", "none")
    index = call.tensor(1).to(torch.int64)
    index = torch.where(index < 0, index + x.shape[axis], index)
    if kind == "none":
        return x.scatter(axis, index, call.tensor(2))
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, index, call.tensor(2), names[kind])


@operator("Expand")
def expand(call: Call) -> torch.Tensor:
    """Broadcasts both ways."""
    x, wanted = call.tensor(0), _ints(call.numbers(1))
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    return x.expand([o if type(w) is int and w == 1 else w for o, w in zip(own, wanted, strict=True)])


@operator("Tile")
def tile(call: Call) -> torch.Tensor:
    """Repeats along each axis."""
    return call.tensor(0).repeat(_ints(call.numbers(1)))


@operator("Pad")
def pad(call: Call) -> torch.Tensor:
    """Constant on any axes; reflected, repeated or wrapped on the last ones."""
    x, mode = call.tensor(0), call.attr("mode", "constant")
    numbers = call.numbers(1)
    pads = _ints(call.attr("pads", call.attr("paddings")) if numbers is None else numbers)
    axes = call.axes(3) if call.has(3) else list(range(x.dim()))
    assert axes is not None
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    if mode == "constant":
        value = call.numbers(2)
        return padded(x, before, after, call.attr("value", 0.0) if value is None else value.item())
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    touched = [i for i in range(x.dim()) if before[i] or after[i]]
    first = min(touched, default=x.dim())
    if mode not in names or x.dim() - first > 3 or first < 1:
        raise refuse(call, f"it pads {len(touched)} axes in mode {mode}")
    held = x if first >= 2 else x.unsqueeze(0)
    amounts = [n for i in reversed(range(first, x.dim())) for n in (before[i], after[i])]
    result = functional.pad(held, amounts, mode=names[mode])
    return result if first >= 2 else result.squeeze(0)


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> torch.Tensor:
    """One value repeated."""
    value = call.attr("value")
    number, kind = (0.0, torch.float32) if value is None else (value.reshape(-1)[0].item(), value.dtype)
    return torch.full(_ints(call.numbers(0)), number, dtype=kind)


@operator("Range")
def range_(call: Call) -> torch.Tensor:
    """Bounds must be known early."""
    bounds = [np.asarray(call.numbers(i)).reshape(-1)[0] for i in range(3)]
    kind = call.tensor(0).dtype
    return torch.arange(*bounds, dtype=kind)


@operator("OneHot")
def one_hot(call: Call) -> torch.Tensor:
    """Two values, by index."""
    depth = _ints(call.numbers(1))[0]
    index, values, axis = call.tensor(0).to(torch.int64), call.tensor(2), call.attr("axis", -1)
    index = torch.where(index < 0, index + depth, index)
    hot = (index.unsqueeze(-1) == torch.arange(depth)).movedim(-1, axis)
    return torch.where(hot, values[1], values[0])


@operator("EyeLike")
def eye_like(call: Call) -> torch.Tensor:
    """Ones on a diagonal."""
    from edgeprune.frontend.onnx.elementwise import CAST

    x = call.tensor(0)
    kind = CAST[call.attr("dtype")] if call.attr("dtype") else x.dtype
    rows, columns = torch.arange(x.shape[0]).unsqueeze(1), torch.arange(x.shape[1])
    return (columns - rows == call.attr("k", 0)).to(kind)


@operator("Trilu")
def trilu(call: Call) -> torch.Tensor:
    """A triangle; the other one becomes zero."""
    k = int(np.asarray(call.numbers(1)).item()) if call.has(1) else 0
    return torch.triu(call.tensor(0), k) if call.attr("upper", 1) else torch.tril(call.tensor(0), k)


@operator("DepthToSpace")
def depth_to_space(call: Call) -> torch.Tensor:
    """Blocks of channels become positions."""
    x, block = call.tensor(0), call.attr("blocksize")
    if call.attr("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def space_to_depth(call: Call) -> torch.Tensor:
    """Positions of a block become channels."""
    x, block = call.tensor(0), call.attr("blocksize")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@operator("ReverseSequence")
def reverse_sequence(call: Call) -> torch.Tensor:
    """Whole sequences only: with lengths the result depends on data."""
    lengths = np.asarray(call.numbers(1))
    x, axis = call.tensor(0), call.attr("time_axis", 0)
    if not (lengths == x.shape[axis]).all():
        raise refuse(call, "its sequences are of several lengths")
    return x.flip(axis)
