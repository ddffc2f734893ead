"""Input patches of a layer as rows: what one output position multiplies its weight with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgeprune.coupling.components import Layer

MAX_FEATURES = 3456  # inputs × taps; the Gram matrix of more is slower than fine-tuning


def patch_rows(
    node: fx.Node, layer: Layer, x: torch.Tensor, weight: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from row numbers (output positions, batch first) to patches (rows, inputs × taps).

    Features are ordered as the weight's: inputs first, then taps. Positions follow the
    output with its channels moved last.
    """
    x = x.movedim(layer.channel_dim, -1)
    taps = weight.numel() // (weight.shape[layer.in_dim] * weight.shape[layer.out_dim])
    if layer.kind == "linear" or (taps == 1 and _plain(node)):
        flat = x.reshape(-1, x.shape[-1])
        return lambda rows: flat[rows]
    rank = weight.dim() - 2
    windows = _windows(node, x.movedim(-1, 1), weight)
    places = windows.shape[: 1 + rank]
    return lambda rows: windows[torch.unravel_index(rows, places)].reshape(len(rows), -1)


def _plain(node: fx.Node) -> bool:
    stride, padding, _ = _settings(node, 1)
    return all(v == 1 for v in stride) and all(v == 0 for v in padding)


def _settings(node: fx.Node, rank: int) -> tuple[list[int], list[Any], list[int]]:
    """Stride, padding (integers, or 'same' and 'valid') and dilation per axis."""

    def get(index: int, name: str, default: Any) -> list[Any]:
        value = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
        values = list(value) if isinstance(value, list | tuple) else [value]
        return values * rank if len(values) == 1 else values

    return get(3, "stride", 1), get(4, "padding", 0), get(5, "dilation", 1)


def _windows(node: fx.Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """All patches as a view that copies nothing, shape (batch, *positions, inputs, *taps)."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    stride, padding, dilation = _settings(node, rank)
    if any(isinstance(p, str) for p in padding):
        total = [d * (k - 1) if padding[0] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in padding]
    x = torch.nn.functional.pad(x, [v for pair in reversed(pads) for v in pair])
    for axis in range(rank):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    # (batch, inputs, *positions, *taps) -> (batch, *positions, inputs, *taps)
    return x.movedim(1, 1 + rank)
