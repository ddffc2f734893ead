"""Weights that are numbers: NaN and infinity are refused when a model is loaded.

One NaN in an inner layer makes every score, cost and parity check meaningless, and a planner that
sums scores never reaches its goal. So the tensors are looked at once, before anything is computed.

Guarantee: no parameter holds NaN or infinity, no buffer holds NaN, no batch norm statistic is infinite.
Other buffers may hold infinity, which is how attention masks are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from edgeprune.errors import ModelError

STATISTICS = ("running_mean", "running_var")


def require_finite_weights(
    tensors: Mapping[str, Any], source: str, *, parameters: Iterable[str] | None = None
) -> None:
    """Refuse a model whose weights are not all numbers.

    Args:
        tensors: parameters and buffers by name; values that are no tensors are skipped.
        source: where they come from, for the message.
        parameters: names that may hold no infinity; None takes the instances of `torch.nn.Parameter`.

    Raises:
        ModelError: the first tensor with NaN or infinity, or without values, by its name.
    """
    strict = None if parameters is None else set(parameters)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or torch.nn.parameter.is_lazy(tensor):
            continue
        if tensor.device.type == "meta":
            raise ModelError(
                f"{source}: {name} has a shape but no values (it is on the device 'meta')",
                tip="build the model on the CPU and load its weights",
            )
        is_parameter = isinstance(tensor, torch.nn.Parameter) if strict is None else name in strict
        problem = _problem(tensor, infinity=is_parameter or name.endswith(STATISTICS))
        if problem:
            raise ModelError(
                f"{source}: {name} holds {problem}",
                tip="a network with such weights computes nothing useful; go back to a checkpoint from before"
                " its training diverged",
            )


def named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a module, those that its state dict leaves out included."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _problem(tensor: torch.Tensor, *, infinity: bool) -> str:
    """`1 NaN among its 288 values`; empty where every value is allowed."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return ""
    values = tensor.detach()
    if values.element_size() == 1:  # torch has no isnan for 8-bit floats
        values = values.float()
    bad, kind = torch.isnan(values), "NaN"
    if infinity and not bad.any():
        bad, kind = torch.isinf(values), "infinity"
    count = int(bad.sum())
    return f"{kind} in {count} of its {tensor.numel()} values" if count else ""
