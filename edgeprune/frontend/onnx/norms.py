"""Normalisation."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeprune.frontend.onnx.table import MICROSOFT, Call, operator, refuse


@operator("BatchNormalization")
def batch_norm(call: Call) -> torch.Tensor:
    """By stored statistics."""
    if call.attr("training_mode", 0):
        raise refuse(call, "it is in training mode")
    x, scale, bias, mean, variance = (call.tensor(i) for i in range(5))
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.1, call.attr("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(call: Call) -> torch.Tensor:
    """Over the positions of each channel."""
    x, scale, bias = (call.tensor(i) for i in range(3))
    return functional.instance_norm(x, weight=scale, bias=bias, eps=call.attr("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(call: Call) -> torch.Tensor:
    """Scale and bias are per group before opset 21, per channel since."""
    x, scale, bias = (call.tensor(i) for i in range(3))
    groups = call.attr("num_groups")
    if call.step.version < 21:
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, call.attr("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(call: Call) -> torch.Tensor:
    """Over an axis and all that follow."""
    if any(call.step.outputs[1:]):
        raise refuse(call, "its mean or deviation is used")
    x = call.tensor(0)
    shape = list(x.shape[call.attr("axis", -1) % x.dim() :])
    return functional.layer_norm(x, shape, call.tensor(1), call.optional(2), call.attr("epsilon", 1e-5))


@operator("LayerNormalization", domain=MICROSOFT)
def layer_norm_microsoft(call: Call) -> torch.Tensor:
    """The same under ONNX Runtime's domain."""
    return layer_norm(call)


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def rms_norm(call: Call) -> torch.Tensor:
    """By the root mean square over an axis and all that follow."""
    x = call.tensor(0)
    shape = list(x.shape[call.attr("axis", -1) % x.dim() :])
    return functional.rms_norm(x, shape, call.tensor(1), call.attr("epsilon", 1e-5))


@operator("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_norm(call: Call) -> torch.Tensor:
    """The sum of two operands and an optional bias, normalised."""
    if any(call.step.outputs[1:3]):
        raise refuse(call, "its mean or deviation is used")
    x = call.tensor(0) + call.tensor(1)
    x = x + call.tensor(4) if call.has(4) else x
    result = functional.layer_norm(
        x, [x.shape[-1]], call.tensor(2), call.optional(3), call.attr("epsilon", 1e-12)
    )
    return result if len(call.step.outputs) < 4 else (result, None, None, x)


@operator("LpNormalization")
def lp_norm(call: Call) -> torch.Tensor:
    """Divided by the norm along one axis."""
    x, axis, p = call.tensor(0), call.attr("axis", -1), call.attr("p", 2)
    return x / x.norm(p, dim=axis, keepdim=True)


@operator("MeanVarianceNormalization")
def mean_variance_norm(call: Call) -> torch.Tensor:
    """Mean 0 and variance 1 over the axes."""
    x, axes = call.tensor(0), list(call.attr("axes", [0, 2, 3]))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LRN")
def local_response_norm(call: Call) -> torch.Tensor:
    """Over neighbouring channels; an even number of them takes one more after."""
    size = call.attr("size")
    if size % 2 == 0:
        raise refuse(call, f"it normalises over {size} channels, an even number")
    return functional.local_response_norm(
        call.tensor(0), size, call.attr("alpha", 1e-4), call.attr("beta", 0.75), call.attr("bias", 1.0)
    )
