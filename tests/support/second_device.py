"""A second device for machines without one: tensors on "meta" that hold values and refuse to meet the CPU's.

    with second_device() as compute:
        capture(..., compute=compute)       fails where a `.to()` or a `.cpu()` was forgotten

A tensor that is moved to the device becomes a `There`, whose values only `.cpu()` or `.to("cpu")` give back.
An operator that gets a `There` and a CPU tensor with dimensions raises, as on a GPU; `.numpy()` raises.
Its arithmetic is the CPU's, but attention runs in its decomposed form: results agree to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.graph.compute import Compute

aten = torch.ops.aten
DEVICE = torch.device("meta")
MOVES = {aten._to_copy.default, aten.copy_.default}


class There(torch.Tensor):
    """A tensor of the second device."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, values):
        self.values_here = values

    def __repr__(self):
        return f"There({tuple(self.shape)}, {self.dtype})"

    def numpy(self):
        raise TypeError("a tensor of the second device has no NumPy form; call .cpu()")

    def item(self):
        return self.values_here.item()

    def tolist(self):
        return self.values_here.tolist()

    def __bool__(self):
        return bool(self.values_here)

    def __float__(self):
        return float(self.values_here)

    def __int__(self):
        return int(self.values_here)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


def carried_out(func, args, kwargs):
    """The operator on the values, its results on the second device unless it moves them here."""
    flat, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, There)]
    here = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim()]
    if there and here and func not in MOVES:
        raise RuntimeError(f"{func}: a tensor of the second device and {tuple(here[0].shape)} of the CPU")
    wanted = kwargs.get("device")
    to_here = wanted is not None and torch.device(wanted).type == "cpu"
    to_there = wanted is not None and torch.device(wanted) == DEVICE
    plain = [x.values_here if isinstance(x, There) else x for x in flat]
    plain_args, plain_kwargs = torch.utils._pytree.tree_unflatten(plain, spec)
    if to_there:
        plain_kwargs = {**plain_kwargs, "device": torch.device("cpu")}
    result = func(*plain_args, **plain_kwargs)
    if to_here or not (there or to_there) or func is aten._local_scalar_dense.default:
        return result
    if func is aten.copy_.default and not isinstance(args[0], There):
        return args[0]
    in_place = func._schema.is_mutable and there and func._schema.name.split(".")[0].endswith("_")
    if in_place:
        return args[0]
    return torch.utils._pytree.tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) else x, result)


class _SecondDevice(TorchDispatchMode):
    """Takes what is created on the device, or moved there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


def _unravelled(unravel):
    """torch.unravel_index makes a table by `torch.tensor(device=...)`, which no mode sees."""

    def on_values(indices, shape):
        if not isinstance(indices, There):
            return unravel(indices, shape)
        return tuple(There(x) for x in unravel(indices.values_here, shape))

    return on_values


@contextlib.contextmanager
def second_device() -> Iterator[Compute]:
    """The device for the length of a block, as the Compute that rooms take."""
    unravel = torch.unravel_index
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        torch.unravel_index = _unravelled(unravel)
        with _SecondDevice():
            yield Compute(DEVICE)
    finally:
        torch.unravel_index = unravel
        torch.__future__.set_overwrite_module_params_on_conversion(before)
