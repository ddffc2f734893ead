"""Arithmetic on sizes, which is done before the network runs.

    Shape → Gather → Mul → Concat → Reshape       the whole chain leaves one reshape in the graph

Sizes are integers or symbols (a free batch), so arrays of Python objects hold them.
Guarantee: None where an operator is no arithmetic on sizes; the caller then computes it on tensors.
"""

from __future__ import annotations

import math
import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from edgeprune.frontend.onnx.table import Call, Numbers, sizes

INTEGER_TYPES = {2, 3, 5, 6, 7, 12, 13}
FLOAT_TYPES = {1, 10, 11, 16}


def arithmetic(call: Call) -> list[Numbers] | None:
    """The outputs of a step whose operands are all known early; None where it must run on tensors."""
    function = FUNCTIONS.get(call.step.op_type)
    if function is None or call.step.domain:
        return None
    arrays = [None if o is None else _objects(o.numbers) for o in call.operands]
    try:
        result = function(call, *arrays)
    except (TypeError, ValueError, IndexError):
        return None
    if result is None:
        return None
    return [_objects(r) for r in (result if isinstance(result, list) else [result])]


def _objects(value: Any) -> Numbers:
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value
    if isinstance(value, np.ndarray):
        return sizes(value.reshape(-1).tolist()).reshape(value.shape)
    return sizes([value]).reshape(())


def _pairwise(function: Callable[[Any, Any], Any]) -> Callable[..., Numbers]:
    def apply(call: Call, *arrays: Numbers) -> Numbers:
        result = arrays[0]
        for other in arrays[1:]:
            result = np.frompyfunc(function, 2, 1)(result, other)
        return result

    return apply


def _each(function: Callable[[Any], Any]) -> Callable[..., Numbers]:
    return lambda call, x: np.frompyfunc(function, 1, 1)(x)


def _divided(a: Any, b: Any) -> Any:
    whole = (int, torch.SymInt)
    if isinstance(a, whole) and isinstance(b, whole):
        both = isinstance(a, int) and isinstance(b, int)
        return math.trunc(a / b) if both and (a < 0) != (b < 0) else a // b
    return a / b


def _cast(call: Call, x: Numbers) -> Any:
    kind = call.attr("to")
    if kind in INTEGER_TYPES:
        return np.frompyfunc(
            lambda n: torch.sym_int(n) if isinstance(n, torch.SymFloat) else _whole(n), 1, 1
        )(x)
    if kind in FLOAT_TYPES:
        return np.frompyfunc(lambda n: torch.sym_float(n) if isinstance(n, torch.SymInt) else float(n), 1, 1)(
            x
        )
    return np.frompyfunc(bool, 1, 1)(x) if kind == 9 else None


def _whole(n: Any) -> Any:
    return n if isinstance(n, torch.SymInt) else int(n)


def _gather(call: Call, x: Numbers, index: Numbers) -> Numbers:
    return x.take(index.astype(np.int64), axis=call.attr("axis", 0))


def _slice(call: Call, x: Numbers, *bounds: Numbers | None) -> Numbers | None:
    if x.ndim != 1:
        return None
    starts, ends = (call.attr("starts"), call.attr("ends")) if not bounds else bounds[:2]
    step = bounds[3] if len(bounds) > 3 and bounds[3] is not None else [1]
    first, last, stride = (int(np.asarray(n).reshape(-1)[0]) for n in (starts, ends, step))
    return x[first:last:stride]


def _unsqueeze(call: Call, x: Numbers, axes: Numbers | None = None) -> Numbers:
    return np.expand_dims(x, tuple(call.axes(1) or ()))


def _squeeze(call: Call, x: Numbers, axes: Numbers | None = None) -> Numbers:
    named = call.axes(1)
    return x.squeeze() if named is None else x.squeeze(tuple(named))


def _concat(call: Call, *arrays: Numbers) -> Numbers:
    return np.concatenate(arrays, call.attr("axis"))


def _split(call: Call, x: Numbers, parts: Numbers | None = None) -> list[Numbers] | None:
    if x.ndim != 1:
        return None
    listed = call.attr("split") if parts is None else [int(n) for n in parts]
    count = len(call.step.outputs)
    bounds = np.cumsum(listed)[:-1] if listed else np.arange(1, count) * -(-len(x) // count)
    return np.split(x, bounds)


def _reduce(function: Callable[[Any, Any], Any]) -> Callable[..., Numbers | None]:
    def apply(call: Call, x: Numbers, axes: Numbers | None = None) -> Numbers | None:
        if x.ndim > 1:
            return None
        result = x.reshape(-1)[0]
        for n in x.reshape(-1)[1:]:
            result = function(result, n)
        return sizes([result]).reshape((1,) if call.attr("keepdims", 1) and x.ndim else ())

    return apply


def _reshape(call: Call, x: Numbers, shape: Numbers) -> Numbers:
    return x.reshape([int(n) for n in shape.reshape(-1)])


def _where(call: Call, condition: Numbers, a: Numbers, b: Numbers) -> Any:
    return np.frompyfunc(lambda c, one, other: one if c else other, 3, 1)(condition, a, b)


def _constant_of_shape(call: Call, shape: Numbers) -> Numbers | None:
    wanted = (
        [int(n) for n in shape.reshape(-1)] if all(isinstance(n, int) for n in shape.reshape(-1)) else None
    )
    if wanted is None or math.prod(wanted) > 64:
        return None
    value = call.attr("value")
    number = 0.0 if value is None else value.reshape(-1)[0].item()
    return _objects(np.full(wanted, number))


def _shape(call: Call, x: Numbers) -> Numbers:
    return sizes(list(x.shape)[call.attr("start", 0) : call.attr("end")])


def _range(call: Call, start: Numbers, stop: Numbers, step: Numbers) -> Numbers | None:
    bounds = [n.item() for n in (start, stop, step)]
    if not all(isinstance(n, int) for n in bounds) or len(range(*bounds)) > 64:
        return None
    return sizes(list(range(*bounds)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": _pairwise(python.add), "Sub": _pairwise(python.sub), "Mul": _pairwise(python.mul),
    "Div": _pairwise(_divided), "Mod": _pairwise(python.mod), "Max": _pairwise(torch.sym_max),
    "Min": _pairwise(torch.sym_min), "Equal": _pairwise(python.eq), "Greater": _pairwise(python.gt),
    "Less": _pairwise(python.lt), "GreaterOrEqual": _pairwise(python.ge), "LessOrEqual": _pairwise(python.le),
    "And": _pairwise(lambda a, b: bool(a) and bool(b)), "Or": _pairwise(lambda a, b: bool(a) or bool(b)),
    "Not": _each(lambda n: not n), "Neg": _each(python.neg), "Floor": _each(math.floor),
    "Ceil": _each(math.ceil), "Sqrt": _each(math.sqrt), "Identity": lambda call, x: x, "Cast": _cast,
    "Gather": _gather, "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Concat": _concat,
    "Split": _split, "ReduceProd": _reduce(python.mul), "ReduceSum": _reduce(python.add),
    "ReduceMax": _reduce(torch.sym_max), "ReduceMin": _reduce(torch.sym_min), "Reshape": _reshape,
    "Where": _where, "ConstantOfShape": _constant_of_shape, "Shape": _shape, "Range": _range,
}  # fmt: skip
