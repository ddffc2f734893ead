"""Reductions and orders over axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgeprune.frontend.onnx.table import Call, operator


@operator(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip
def reduce(call: Call) -> torch.Tensor:
    """Axes default to all of them, unless `noop_with_empty_axes` says to leave the tensor alone."""
    x, axes, keep = call.tensor(0), call.axes(1), bool(call.attr("keepdims", 1))
    kind = call.step.op_type.removeprefix("Reduce")
    if not axes:
        if call.attr("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.dim()))
    if kind == "Prod":
        for axis in sorted((a % x.dim() for a in axes), reverse=True):
            x = x.prod(axis, keepdim=keep)
        return x
    if kind in ("Max", "Min"):
        return (x.amax if kind == "Max" else x.amin)(axes, keepdim=keep)
    if kind == "LogSumExp":
        return x.logsumexp(axes, keepdim=keep)
    if kind == "Mean":
        return x.mean(axes, keepdim=keep)
    x = {"L1": torch.abs, "L2": torch.square, "SumSquare": torch.square}.get(kind, lambda t: t)(x)
    total = x.sum(axes, keepdim=keep, dtype=x.dtype)
    return {"L2": torch.sqrt, "LogSum": torch.log}.get(kind, lambda t: t)(total)


@operator("ArgMax", "ArgMin")
def arg(call: Call) -> torch.Tensor:
    """The first of equal ones, or the last where asked."""
    x, axis = call.tensor(0), call.attr("axis", 0)
    keep, function = bool(call.attr("keepdims", 1)), call.step.op_type.lower()
    if not call.attr("select_last_index", 0):
        result: torch.Tensor = getattr(torch, function)(x, axis, keepdim=keep)
        return result
    return x.shape[axis] - 1 - getattr(torch, function)(x.flip(axis), axis, keepdim=keep)


@operator("TopK")
def top_k(call: Call) -> Any:
    """The number must be known early."""
    numbers = call.numbers(1)
    count = int(call.attr("k")) if numbers is None else numbers.reshape(-1)[0]
    largest, ordered = bool(call.attr("largest", 1)), bool(call.attr("sorted", 1))
    return tuple(torch.topk(call.tensor(0), count, call.attr("axis", -1), largest, ordered))


@operator("CumSum")
def cumulative_sum(call: Call) -> torch.Tensor:
    """From either end, with or without the position itself."""
    x, axis = call.tensor(0), int(np.asarray(call.numbers(1)).reshape(-1)[0])
    x = x.flip(axis) if call.attr("reverse", 0) else x
    total = x.cumsum(axis)
    total = total - x if call.attr("exclusive", 0) else total
    return total.flip(axis) if call.attr("reverse", 0) else total
