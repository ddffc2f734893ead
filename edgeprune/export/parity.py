"""Prove that an ONNX file computes what its reference computes.

Guarantee: a result is returned only when every value is finite, when every channel of every output agrees
within the tolerance of its own range on every input given, and when the outputs move with the input by more
than that: a network whose output hardly changes passes any comparison, so it is refused.
Elsewhere: accuracy (measured on data by the task), and quantised files, which differ by design.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import DataError, ParityError
from edgeprune.export.channels import allowed_gap
from edgeprune.records import OutputParity, ParityResult

Arrays = tuple[np.ndarray, ...]


def check_parity(
    reference: Callable[[Arrays], Arrays], path: Path, inputs: Sequence[Arrays], *, rtol: float = 1e-4
) -> ParityResult:
    """Compare ONNX Runtime's outputs of `path` (CPU, one thread) with `reference` on each of `inputs`.

    Args:
        reference: takes the arrays of one call, returns the outputs in the file's order.
        inputs: calls to compare; each a tuple of arrays in the order of the file's inputs. Together
            they must hold at least two different samples.
        rtol: allowed difference as a share of a channel's largest absolute reference value (see channels).
            Integer and boolean outputs must be equal.

    Raises:
        ParityError: an output differs beyond the tolerance, is not finite on either side, has another
            shape, or no output moves with the input; or ONNX Runtime cannot run the file.
        DataError: fewer than two different samples.
    """
    calls = [tuple(np.asarray(a) for a in call) for call in inputs]
    _require_different(calls)
    session, version = open_session(path)
    names = [o.name for o in session.get_outputs()]
    expected: list[Arrays] = []
    outputs: list[Arrays] = []
    for call in calls:
        outputs.append(run_session(session, path, call))
        expected.append(tuple(np.asarray(a) for a in reference(call)))
        if len(expected[-1]) != len(names):
            raise ParityError(f"{path.name} has {len(names)} outputs; the reference gave {len(expected[-1])}")
    samples = sum(_samples(call) for call in calls)
    return judged(path.name, names, expected, outputs, rtol, samples, f"onnxruntime {version}")


def judged(
    label: str,
    names: Sequence[str],
    expected: Sequence[Arrays],
    actual: Sequence[Arrays],
    rtol: float,
    samples: int,
    runtime: str,
) -> ParityResult:
    """The result for the outputs of all calls.

    Raises:
        ParityError: as `check_parity`.
    """
    outputs = tuple(
        _compare(name, [e[i] for e in expected], [f[i] for f in actual], rtol) for i, name in enumerate(names)
    )
    _judge(label, outputs, rtol)
    worst = max(outputs, key=lambda o: o.max_abs / o.atol if o.atol else o.max_abs)
    agreements = [o.top1_agreement for o in outputs if o.top1_agreement is not None]
    moving = max(outputs, key=lambda o: o.spread / o.atol if o.atol else o.spread)
    return ParityResult(
        max_abs=worst.max_abs,
        atol=worst.atol,
        rtol=rtol,
        top1_agreement=min(agreements, default=None),
        output_spread=moving.spread,
        spread_ratio=moving.spread_ratio,
        samples=samples,
        runtime=runtime,
        outputs=outputs,
    )


def _judge(label: str, outputs: tuple[OutputParity, ...], rtol: float) -> None:
    for o in outputs:
        if not (o.max_abs <= o.atol and o.channel_max_abs <= o.channel_atol):
            where = f" at {o.channel}" if o.channel else ""
            raise ParityError(
                f"{label}: output {o.name!r} differs from the reference by {o.channel_max_abs:.3g}{where}; "
                f"allowed {o.channel_atol:.3g} ({rtol:g} of its range; max|y| of the output is "
                f"{o.max_reference:.3g})",
                tip="the file was not kept; the exporter or the runtime is at fault: report the model",
            )
    if not any(o.spread > o.atol for o in outputs):
        widest = max(outputs, key=lambda o: o.spread)
        raise ParityError(
            f"{label}: no output moves with the input: {widest.name!r} varies by {widest.spread:.3g} "
            f"over the samples, less than the tolerance {widest.atol:.3g}, so agreement proves nothing",
            tip="give real inputs, or calibrate the batch norms of an untrained model first",
            code="parity.unprovable",
        )


def _compare(name: str, expected: list[np.ndarray], actual: list[np.ndarray], rtol: float) -> OutputParity:
    for e, f in zip(expected, actual, strict=True):
        if e.shape != f.shape:
            raise ParityError(
                f"output {name!r} has shape {list(f.shape)}; the reference gives {list(e.shape)}"
            )
    exact = all(e.dtype.kind in "iub" for e in expected)
    pairs = [(e.astype(np.float64), f.astype(np.float64)) for e, f in zip(expected, actual, strict=True)]
    for which, side in (("the reference", 0), ("the file", 1)):
        if not all(np.isfinite(pair[side]).all() for pair in pairs):
            raise ParityError(
                f"output {name!r} of {which} is not finite (NaN or infinite), so nothing can be compared",
                tip="look for overflow or a division by zero in the model, or give real inputs",
                code="parity.unprovable",
            )
    largest = max((float(np.abs(e).max(initial=0.0)) for e, _ in pairs), default=0.0)
    max_abs = max((float(np.abs(e - f).max(initial=0.0)) for e, f in pairs), default=0.0)
    gap, allowed, channel = max_abs, 0.0 if exact else rtol * largest, ""
    if not exact:
        gap, allowed, channel = _worst_channel(pairs, rtol, (gap, allowed))
    spread = _spread([e for e, _ in pairs])
    return OutputParity(
        name=name,
        max_abs=max_abs,
        atol=0.0 if exact else rtol * largest,
        max_reference=largest,
        spread=spread,
        spread_ratio=spread / max_abs if max_abs else None,
        top1_agreement=_top1([e for e, _ in pairs], [f for _, f in pairs]) if spread > 0 else None,
        channel=channel,
        channel_max_abs=gap,
        channel_atol=allowed,
    )


def _worst_channel(
    pairs: list[tuple[np.ndarray, np.ndarray]], rtol: float, worst: tuple[float, float]
) -> tuple[float, float, str]:
    """(difference, allowed, place) of the value that is furthest beyond what its channel is allowed.

    Ranges are taken over all calls of one shape, so that a channel which one call hardly used is not judged
    by that call alone.
    """
    place = ""
    shapes = {e.shape[1:] for e, _ in pairs}
    together = len(shapes) == 1 and pairs[0][0].ndim > 1
    ranges = np.concatenate([e for e, _ in pairs]) if together else None
    for e, f in pairs:
        if not e.size:
            continue
        gap, allowed = np.abs(e - f), np.broadcast_to(allowed_gap(e, rtol, ranges), e.shape)
        at = np.unravel_index(int(np.argmax(gap - allowed)), gap.shape)
        if gap[at] - allowed[at] > worst[0] - worst[1]:
            worst = float(gap[at]), float(allowed[at])
            place = f"index {', '.join(map(str, at))}"
    return *worst, place


def _spread(values: list[np.ndarray]) -> float:
    """RMS over positions of the standard deviation over samples; axis 0 is the sample.

    Two-pass over each position: values near a large constant would cancel in a one-pass formula.
    """
    scalars = any(v.ndim == 0 for v in values)
    rows = [v.reshape(1, 1) if scalars else v.reshape(v.shape[0], -1) for v in values]
    if len({r.shape[1] for r in rows}) > 1:  # sequences of several lengths: each call by itself
        return max(_spread([r]) for r in rows)
    table = np.concatenate(rows)
    return float(np.sqrt(table.var(axis=0).mean())) if table.size else 0.0


def _top1(expected: list[np.ndarray], actual: list[np.ndarray]) -> float | None:
    """Share of equal largest entries along axis 1; None for one column, which any file agrees on."""
    if any(e.ndim < 2 or e.shape[1] < 2 for e in expected):
        return None
    same = [np.argmax(e, axis=1) == np.argmax(f, axis=1) for e, f in zip(expected, actual, strict=True)]
    return float(np.concatenate([s.ravel() for s in same]).mean())


def _require_different(calls: list[Arrays]) -> None:
    total = sum(_samples(call) for call in calls)
    if total < 2:
        raise DataError(f"parity needs at least two samples; got {total}", tip="give more calibration data")
    if len({len(call) for call in calls}) > 1:
        raise DataError("parity was given calls with different numbers of inputs", tip="give whole calls")
    first = [np.atleast_1d(a)[:1] for a in calls[0]]
    for call in calls:
        for a, b in zip(map(np.atleast_1d, call), first, strict=True):
            if a.shape[1:] != b.shape[1:] or (a != b).any():
                return
    raise DataError(f"parity needs inputs that differ; all {total} samples are equal", tip="give real inputs")


def _samples(call: Arrays) -> int:
    return max((int(a.shape[0]) for a in call if a.ndim), default=1)


def open_session(path: Path, *, optimised: bool = True) -> tuple[Any, str]:
    """A session on one thread, and the version; `optimised=False` runs the graph as it is written."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), ort.__version__
    except Exception as e:  # pybind11 classes without a common base
        raise ParityError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {_line(e)}") from e


def run_session(session: Any, path: Path, call: Arrays) -> Arrays:
    """All outputs of one call."""
    declared = session.get_inputs()
    if len(declared) != len(call):
        raise ParityError(f"{path.name} takes {len(declared)} inputs; {len(call)} were given")
    try:
        return tuple(session.run(None, {d.name: a for d, a in zip(declared, call, strict=True)}))
    except Exception as e:
        raise ParityError(f"ONNX Runtime cannot run {path.name}: {_line(e)}") from e


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
