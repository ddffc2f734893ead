"""Labels: which atom would remove each element of a value.

A Value carries label tensors. Each is int64, broadcastable to the value's shape and
of size 1 in every dimension that it does not depend on; an element holds the atom
whose removal removes it, 0 where nothing does. A value may carry several labels
(the rows and the columns of a weight); an element goes when any of them goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Value:
    """Shape, labels and, where it is data-independent, the tensor itself."""

    shape: tuple[int, ...]
    labels: tuple[torch.Tensor, ...] = ()
    constant: torch.Tensor | None = field(default=None, repr=False)
    parameter: str | None = None  # the state tensor that this value is, with at most its axes permuted
    stored: bool = False  # depends on no input: a weight, or computed from weights
    axes: tuple[int, ...] | None = None  # dimension of the state tensor at each of ours; None: the same

    def axis(self, dim: int) -> int:
        """The state tensor's dimension that is this value's `dim`."""
        return self.axes[dim] if self.axes else dim


def varying(label: torch.Tensor) -> tuple[int, ...]:
    """The dimensions that a narrowed label depends on."""
    return tuple(d for d, size in enumerate(label.shape) if size > 1)


def narrowed(label: torch.Tensor) -> torch.Tensor:
    """The same label with every dimension that it does not depend on at size 1."""
    label = slim(label)
    for d, size in enumerate(label.shape):
        if size > 1:
            first, second = label.narrow(d, 0, 1), label.narrow(d, 1, 1)
            if torch.equal(first, second) and bool((label == first).all()):  # most differ at once
                label = first
    return label


def slim(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the dimensions that it only repeats (stride 0) at size 1; no element is read."""
    for d, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and not stride:
            tensor = tensor.narrow(d, 0, 1)
    return tensor


def along(shape: tuple[int, ...], dim: int, atoms: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A label for one dimension, as the tuple that Value takes; empty when nothing is free."""
    if atoms.numel() == 1 or not bool((atoms != 0).any()):
        return ()
    return (atoms.reshape([-1 if d == dim else 1 for d in range(len(shape))]),)


def keep_alive(labels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Narrow, and drop the labels that remove nothing."""
    tight = (narrowed(x) for x in labels)
    return tuple(x for x in tight if bool((x != 0).any()))
