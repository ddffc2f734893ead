"""The imported module against ONNX Runtime on the file itself, before anything else happens.

Guarantee: a module that is returned agrees with the file to 1e-4 of each output's range, on inputs that
move the output; where it does not, the first node that differs is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.onnx.module import OnnxModule

TOLERANCE, CALLS, SEED = 1e-4, 2, 7
ROUNDING = 1e-6  # of a sigmoid or softmax, whose range is 1: ONNX Runtime approximates them to some 1e-7
BOUNDED = ("Sigmoid", "Softmax")


def require_agreement(
    module: OnnxModule, model: Any, examples: Sequence[torch.Tensor], names: Sequence[str], source: str
) -> float:
    """The largest difference relative to the range of its output.

    Args:
        model: the ModelProto with all weights inside.
        examples: inputs; further ones of the same shapes are drawn.

    Raises:
        ModelError: ONNX Runtime refuses the file, outputs differ, are not finite or never move.
    """
    session = _session(model, source)
    calls = [tuple(examples), *(_drawn(examples, SEED + i) for i in range(CALLS))]
    worst = 0.0
    results: list[list[Any]] = []
    floors = _rounding(model)
    for inputs in calls:
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        try:
            expected = session.run(None, feeds)
        except Exception as error:
            text = str(error).splitlines()[0][:200]
            raise ModelError(
                f"{source}: ONNX Runtime cannot run it: {text}", tip="give the sizes with --input-shape"
            ) from error
        with torch.no_grad():
            computed = [y.numpy() for y in module(*inputs)]
        results.append(expected)
        for value, wanted, output in zip(computed, expected, session.get_outputs(), strict=True):
            try:
                worst = max(worst, _difference(value, np.asarray(wanted), output.name, source, floors))
            except ModelError as error:
                place = _first_difference(module, model, inputs, names)
                raise ModelError(f"{error.message}{place}", tip=error.tip) from error
    _require_movement(results, source)
    return worst


def _session(model: Any, source: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        text = " ".join(str(error).split())[:240]
        raise ModelError(f"{source}: ONNX Runtime refuses the file: {text}", tip="export it again") from error


def _drawn(examples: Sequence[torch.Tensor], seed: int) -> tuple[torch.Tensor, ...]:
    """Other inputs of the same shapes and types; integers are the example's in another order."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for x in examples:
        if x.is_floating_point():
            drawn.append(torch.randn(x.shape, generator=generator).to(x.dtype))
        else:
            order = torch.randperm(x.numel(), generator=generator)
            drawn.append(x.reshape(-1)[order].reshape(x.shape))
    return tuple(drawn)


def _first_difference(
    module: OnnxModule, model: Any, inputs: Sequence[torch.Tensor], names: Sequence[str]
) -> str:
    """`; first at Conv node 'x' (0.3)`: the first node of the file whose output differs; empty if unknown."""
    import onnx

    with torch.no_grad():
        values = {n: v.numpy() for n, v in module.intermediate(inputs).items() if v.is_floating_point()}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    wanted = [n for node in model.graph.node for n in node.output if n in values]
    del extended.graph.output[:]
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    givers = {name: node for node in model.graph.node for name in node.output}
    try:
        session = _session(extended, "")
        expected = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    except Exception:  # the file cannot give them; the difference itself is reported all the same
        return ""
    for name, value in zip(wanted, expected, strict=True):
        try:
            _difference(values[name], np.asarray(value), name, "", {})
        except ModelError as error:
            node = givers[name]
            return f"; first at {node.op_type} node {node.name!r}:{error.message.removeprefix(':')}"
    return ""


def _rounding(model: Any) -> dict[str, float]:
    """Absolute differences that are rounding: of values that a sigmoid or softmax gives."""
    return {n.output[0]: ROUNDING for n in model.graph.node if n.op_type in BOUNDED}


def _difference(value: Any, wanted: Any, name: str, source: str, floors: dict[str, float]) -> float:
    """The largest difference of one output over its range, beyond what is rounding."""
    if value.shape != wanted.shape:
        raise ModelError(
            f"{source}: output {name!r} has shape {wanted.shape} in ONNX Runtime and {value.shape} imported",
            tip="please report this file",
        )
    if value.dtype.kind not in "fc":
        different = int((value != wanted).sum())
        if different > TOLERANCE * max(value.size, 1):
            raise ModelError(
                f"{source}: {different} of {value.size} values of output {name!r} differ from ONNX Runtime",
                tip="please report this file",
            )
        return 0.0
    value, wanted = value.astype(np.float64), wanted.astype(np.float64)
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    finite = np.isfinite(wanted)
    if not finite.any() and wanted.size:
        raise ModelError(f"{source}: output {name!r} is not finite on random inputs")
    if not np.array_equal(finite, np.isfinite(value)):
        raise ModelError(f"{source}: output {name!r} is finite in one of ONNX Runtime and the import only")
    largest = float(np.abs(value - wanted)[finite].max(initial=0.0))
    worst = 0.0 if largest <= floors.get(name, 0.0) else largest / (scale or 1.0)
    if worst > TOLERANCE:
        raise ModelError(
            f"{source}: output {name!r} differs from ONNX Runtime by {worst:.2g} of its range (at most"
            f" {TOLERANCE:g})",
            tip="please report this file",
        )
    return worst


def _require_movement(results: list[list[Any]], source: str) -> None:
    """Agreement on outputs that never change would prove nothing."""
    first = results[0]
    moved = any(
        np.asarray(a).shape != np.asarray(b).shape or not np.array_equal(a, b)
        for other in results[1:]
        for a, b in zip(first, other, strict=True)
    )
    if not moved:
        raise ModelError(
            f"{source}: its outputs are the same for {len(results)} different inputs: nothing is proven",
            tip="check the file; an untrained or constant network cannot be compared",
        )
