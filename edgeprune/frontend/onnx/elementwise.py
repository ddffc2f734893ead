"""Operators that compute value by value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from edgeprune.frontend.onnx.table import MICROSOFT, Call, Function, Operand, operator, refuse

UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": functional.mish, "Neg": torch.neg,
    "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Softplus": functional.softplus, "Softsign": functional.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan,
    "Tanh": torch.tanh, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "And": torch.logical_and,
    "Or": torch.logical_or, "Xor": torch.logical_xor, "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
CAST = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def _register_plain() -> None:
    """Operators that are one function of one or two tensors."""

    def of_one(function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
        return lambda call: function(call.tensor(0))

    def of_two(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
        return lambda call: _both(call, function)

    for name, unary in UNARY.items():
        operator(name)(of_one(unary))
    for name, binary in BINARY.items():
        operator(name)(of_two(binary))


def _both(call: Call, function: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Two operands; a stored scalar is a number, so that it has no part in coupling."""
    first, second = call.operands[:2]
    other = _scalar(second)
    if other is not None and not (first is not None and first.stored is None):
        return function(call.tensor(0), other)
    one = _scalar(first)
    if one is not None and function in (torch.add, torch.mul):
        return function(call.tensor(1), one)
    return function(call.tensor(0), call.tensor(1))


def _scalar(operand: Operand | None) -> Any:
    if operand is None or operand.numbers is None or operand.stored is None or operand.numbers.ndim:
        return None
    return operand.numbers.item()


@operator("Div")
def div(call: Call) -> torch.Tensor:
    """Integers are divided towards zero."""
    if call.tensor(0).is_floating_point():
        return _both(call, torch.div)
    return torch.div(call.tensor(0), call.tensor(1), rounding_mode="trunc")


@operator("Pow")
def power(call: Call) -> torch.Tensor:
    """The result has the type of the base."""
    base, exponent = call.tensor(0), _scalar(call.operands[1])
    result = torch.pow(base, call.tensor(1) if exponent is None else exponent)
    return result if result.dtype == base.dtype else result.to(base.dtype)


@operator("Mod")
def modulo(call: Call) -> torch.Tensor:
    """fmod=1 takes the sign of the dividend."""
    function = torch.fmod if call.attr("fmod", 0) else torch.remainder
    return function(call.tensor(0), call.tensor(1))


@operator("Max", "Min", "Sum", "Mean")
def variadic(call: Call) -> torch.Tensor:
    """Any number of operands, broadcast."""
    function = {"Max": torch.maximum, "Min": torch.minimum}.get(call.step.op_type, torch.add)
    result = call.tensor(0)
    for index in range(1, len(call.operands)):
        result = function(result, call.tensor(index))
    return result / len(call.operands) if call.step.op_type == "Mean" else result


@operator("Where")
def where(call: Call) -> torch.Tensor:
    """Chooses value by value."""
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))


@operator("Clip")
def clip(call: Call) -> torch.Tensor:
    """Bounds are inputs since opset 11."""
    low, high = call.numbers(1), call.numbers(2)
    bounds = [
        call.attr(name) if numbers is None else numbers.item()
        for name, numbers in (("min", low), ("max", high))
    ]
    if bounds == [0, 6]:
        return functional.relu6(call.tensor(0))
    return call.tensor(0) if bounds == [None, None] else torch.clamp(call.tensor(0), *bounds)


@operator("Cast")
def cast(call: Call) -> torch.Tensor:
    """To another type; the same type is no operation."""
    kind = CAST.get(int(call.attr("to")))
    if kind is None:
        raise refuse(call, f"it casts to type {call.attr('to')}")
    tensor = call.tensor(0)
    return tensor if tensor.dtype == kind else tensor.to(kind)


@operator("CastLike")
def cast_like(call: Call) -> torch.Tensor:
    """To the type of the second operand."""
    return call.tensor(0).to(call.tensor(1).dtype)


@operator("IsInf")
def is_inf(call: Call) -> torch.Tensor:
    """Both signs unless attributes say otherwise."""
    x = call.tensor(0)
    positive = torch.isposinf(x) if call.attr("detect_positive", 1) else torch.zeros_like(x, dtype=torch.bool)
    return positive | torch.isneginf(x) if call.attr("detect_negative", 1) else positive


@operator("LeakyRelu")
def leaky_relu(call: Call) -> torch.Tensor:
    """Slope `alpha` below zero."""
    return functional.leaky_relu(call.tensor(0), call.attr("alpha", 0.01))


@operator("Elu")
def elu(call: Call) -> torch.Tensor:
    """Exponential below zero."""
    return functional.elu(call.tensor(0), call.attr("alpha", 1.0))


@operator("Celu")
def celu(call: Call) -> torch.Tensor:
    """Continuously differentiable Elu."""
    return functional.celu(call.tensor(0), call.attr("alpha", 1.0))


@operator("Selu")
def selu(call: Call) -> torch.Tensor:
    """Scaled Elu with any constants."""
    x = call.tensor(0)
    alpha, gamma = call.attr("alpha", 1.6732632), call.attr("gamma", 1.0507010)
    return gamma * (x.clamp(min=0) + alpha * (x.clamp(max=0).exp() - 1))


@operator("ThresholdedRelu")
def thresholded_relu(call: Call) -> torch.Tensor:
    """Zero up to alpha."""
    return functional.threshold(call.tensor(0), call.attr("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def hard_sigmoid(call: Call) -> torch.Tensor:
    """PyTorch's own where the slope is its 1/6, else the formula."""
    x, alpha, beta = call.tensor(0), call.attr("alpha", 0.2), call.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(x)
    return (x * alpha + beta).clamp(0, 1)


@operator("PRelu")
def prelu(call: Call) -> torch.Tensor:
    """A slope per channel, which the file broadcasts from the right."""
    x, slope = call.tensor(0), call.tensor(1)
    if slope.numel() == 1 or (x.dim() > 2 and slope.shape == (x.shape[1], *[1] * (x.dim() - 2))):
        return functional.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


@operator("Gelu")
def gelu(call: Call) -> torch.Tensor:
    """Exact or by tanh."""
    return functional.gelu(call.tensor(0), approximate=call.attr("approximate", "none"))


@operator("Gelu", "BiasGelu", domain=MICROSOFT)
def fused_gelu(call: Call) -> torch.Tensor:
    """Exact, after an optional bias."""
    x = call.tensor(0)
    return functional.gelu(x + call.tensor(1) if call.has(1) else x)


@operator("FastGelu", domain=MICROSOFT)
def fast_gelu(call: Call) -> torch.Tensor:
    """By tanh, after an optional bias."""
    x = call.tensor(0)
    return functional.gelu(x + call.tensor(1) if call.has(1) else x, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(call: Call) -> torch.Tensor:
    """x · sigmoid(alpha · x)."""
    x = call.tensor(0)
    return x * torch.sigmoid(x * call.attr("alpha", 1.702))


@operator("Swish")
def swish(call: Call) -> torch.Tensor:
    """x · sigmoid(alpha · x)."""
    x, alpha = call.tensor(0), call.attr("alpha", 1.0)
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


@operator("Identity", "Dropout")
def identity(call: Call) -> Any:
    """What does nothing in evaluation."""
    if call.step.op_type == "Dropout" and call.has(2) and bool(call.numbers(2)):
        raise refuse(call, "it is in training mode")
    return call.operands[0]


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call) -> torch.Tensor:
    """Over one axis; before opset 13 over that axis and all that follow."""
    x, old = call.tensor(0), call.step.version < 13
    axis = call.attr("axis", 1 if old else -1) % x.dim()
    shape = x.shape
    if old and math.prod(shape[axis + 1 :]) != 1:
        x = x.flatten(axis)
    if call.step.op_type == "Hardmax":
        result = functional.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)
    else:
        function = torch.softmax if call.step.op_type == "Softmax" else torch.log_softmax
        result = function(x, axis)
    return result if result.dim() == len(shape) else result.reshape(shape)


_register_plain()
