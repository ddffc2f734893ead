"""Convolutions, pooling, and the products that linear layers become."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from edgeprune.frontend.onnx.table import MICROSOFT, Call, operator, refuse

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def window(call: Call, kernel: list[int], shape: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, padding before and padding after, with `auto_pad` worked out."""
    dims = len(kernel)
    strides = list(call.attr("strides") or [1] * dims)
    dilations = list(call.attr("dilations") or [1] * dims)
    mode = call.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-size // step) - 1) * step + (k - 1) * d + 1 - size)
            for size, step, k, d in zip(shape, strides, kernel, dilations, strict=True)
        ]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        return strides, dilations, *((less, more) if mode == "SAME_UPPER" else (more, less))
    pads = list(call.attr("pads") or [0] * (2 * dims)) if mode != "VALID" else [0] * (2 * dims)
    return strides, dilations, pads[:dims], pads[dims:]


def padded(x: torch.Tensor, before: list[int], after: list[int], value: float = 0.0) -> torch.Tensor:
    """Constant padding of the last dimensions; negative amounts cut."""
    amounts = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, amounts, value=value) if any(amounts) else x


@operator("Conv")
def conv(call: Call) -> torch.Tensor:
    """Padding that differs between the two sides is a padding of its own."""
    x, weight = call.tensor(0), call.tensor(1)
    dims = weight.dim() - 2
    if dims not in CONV:
        raise refuse(call, f"it convolves over {dims} dimensions")
    strides, dilations, before, after = window(call, list(weight.shape[2:]), x.shape[2:])
    if before != after or min(before, default=0) < 0:
        x, before = padded(x, before, after), [0] * dims
    return CONV[dims](x, weight, call.optional(2), strides, before, dilations, call.attr("group", 1))


@operator("FusedConv", domain=MICROSOFT)
def fused_conv(call: Call) -> torch.Tensor:
    """A convolution, an optional addend and an activation."""
    result = conv(call)
    if call.has(3):
        result = result + call.tensor(3)
    name, numbers = call.attr("activation"), call.attr("activation_params") or []
    if name == "LeakyRelu":
        return functional.leaky_relu(result, *numbers)
    if name == "Clip":
        return torch.clamp(result, *numbers)
    if name == "HardSigmoid":
        return (result * numbers[0] + numbers[1]).clamp(0, 1)
    plain = {"Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh}
    if name not in plain:
        raise refuse(call, f"its activation is {name}")
    return plain[name](result)


@operator("ConvTranspose")
def conv_transpose(call: Call) -> torch.Tensor:
    """What padding takes off more on one side is cut off afterwards."""
    x, weight = call.tensor(0), call.tensor(1)
    dims = weight.dim() - 2
    if dims not in TRANSPOSED:
        raise refuse(call, f"it convolves over {dims} dimensions")
    strides = list(call.attr("strides") or [1] * dims)
    dilations = list(call.attr("dilations") or [1] * dims)
    extra = list(call.attr("output_padding") or [0] * dims)
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(x.shape[2:], strides, weight.shape[2:], dilations, extra, strict=True)
    ]
    pads = list(call.attr("pads") or [0] * (2 * dims))
    before, after = pads[:dims], pads[dims:]
    wanted, mode = call.attr("output_shape"), call.attr("auto_pad", "NOTSET")
    if wanted or mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = list(wanted)[-dims:] if wanted else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        total = [f - w for f, w in zip(full, shape, strict=True)]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        before, after = (less, more) if mode == "SAME_UPPER" else (more, less)
    shared = [max(0, min(a, b)) for a, b in zip(before, after, strict=True)]
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise refuse(call, f"output_padding {extra} is not below its strides")
    result = TRANSPOSED[dims](
        x, weight, call.optional(2), strides, shared, extra, call.attr("group", 1), dilations
    )
    left = [s - b for s, b in zip(shared, before, strict=True)]
    right = [s - a for s, a in zip(shared, after, strict=True)]
    return padded(result, left, right)


@operator("MaxPool", "AveragePool")
def pool(call: Call) -> torch.Tensor:
    """Windows over the last dimensions; padding that torch cannot express is done before."""
    x, kernel = call.tensor(0), list(call.attr("kernel_shape"))
    dims = len(kernel)
    if dims not in MAX:
        raise refuse(call, f"it pools over {dims} dimensions")
    if len(call.step.outputs) > 1 and call.step.outputs[1]:
        raise refuse(call, "its indices are used")
    strides, dilations, before, after = window(call, kernel, x.shape[2:])
    ceil = bool(call.attr("ceil_mode", 0))
    plain = before == after and all(2 * b <= k for b, k in zip(before, kernel, strict=True))
    if call.step.op_type == "MaxPool":
        if not plain:
            x, before = padded(x, before, after, -math.inf), [0] * dims
        return MAX[dims](x, kernel, strides, before, dilations, ceil)
    if any(d != 1 for d in dilations):
        raise refuse(call, "it averages over dilated windows")
    counted = bool(call.attr("count_include_pad", 0))
    if plain:
        return AVERAGE[dims](x, kernel, strides, before, ceil, counted)
    if ceil:
        raise refuse(call, "it averages with ceil_mode and unequal padding")
    if counted:
        return AVERAGE[dims](padded(x, before, after), kernel, strides)
    total = AVERAGE[dims](padded(x, before, after), kernel, strides)
    ones = padded(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype), before, after)
    return total / AVERAGE[dims](ones, kernel, strides)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> torch.Tensor:
    """One window over all positions."""
    x = call.tensor(0)
    dims = list(range(2, x.dim()))
    mean = call.step.op_type == "GlobalAveragePool"
    return x.mean(dims, keepdim=True) if mean else x.amax(dims, keepdim=True)


@operator("LpPool", "GlobalLpPool")
def lp_pool(call: Call) -> torch.Tensor:
    """The p-norm over all positions; over windows it is refused."""
    if call.step.op_type == "LpPool":
        raise refuse(call, "it pools by norms over windows")
    x, p = call.tensor(0), call.attr("p", 2)
    return x.abs().pow(p).sum(list(range(2, x.dim())), keepdim=True).pow(1 / p)


@operator("Gemm")
def gemm(call: Call) -> torch.Tensor:
    """A linear layer where the second operand is stored the way that PyTorch stores it."""
    a, b = call.tensor(0), call.tensor(1)
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    a = a.t() if call.attr("transA", 0) else a
    bias = call.optional(2)
    scaled = bias if bias is None or beta == 1 else bias * beta
    if alpha == 1 and (scaled is None or scaled.dim() == 1):
        return functional.linear(a, b if call.attr("transB", 0) else b.t(), scaled)
    product = torch.matmul(a, b.t() if call.attr("transB", 0) else b)
    product = product if alpha == 1 else product * alpha
    return product if scaled is None else product + scaled


@operator("MatMul")
def matmul(call: Call) -> torch.Tensor:
    """Broadcast over leading dimensions."""
    return torch.matmul(call.tensor(0), call.tensor(1))


@operator("FusedMatMul", domain=MICROSOFT)
def fused_matmul(call: Call) -> torch.Tensor:
    """A product with transposed operands and a factor."""
    a, b = call.tensor(0), call.tensor(1)
    a = a.transpose(-1, -2) if call.attr("transA", 0) else a
    b = b.transpose(-1, -2) if call.attr("transB", 0) else b
    product, alpha = torch.matmul(a, b), call.attr("alpha", 1.0)
    return product if alpha == 1 else product * alpha


@operator("Einsum")
def einsum(call: Call) -> torch.Tensor:
    """By its equation."""
    return torch.einsum(call.attr("equation"), *(call.tensor(i) for i in range(len(call.operands))))
