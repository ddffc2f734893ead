"""8-bit forms of the files of a front, as further points of it.

Of the planned network with everything found out by trying and timing, then of the other files of the
front with what was found there, until time is up.

Guarantee: every file was compared with its own quantised graph; which file could not be made, and that
time was up, is said. Elsewhere: quantisation itself (onnxfile), timing and accuracy (front.measured).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import BudgetError, EdgepruneError, ExportError, ParityError
from edgeprune.export.onnx_nodes import QUANTISABLE
from edgeprune.export.quantisation import quantise
from edgeprune.export.quantisation_policy import int8_settings, require_gain
from edgeprune.measure.operators import HostTimer
from edgeprune.pareto.front import Candidate
from edgeprune.records import QuantiseResult
from edgeprune.session.dense import Prepared
from edgeprune.session.exporting import file_outputs
from edgeprune.session.measurement_target import MeasurementTarget
from edgeprune.session.options import Clock, Options

CALIBRATION_CALLS, CALIBRATION_BATCH = 32, 16
METHODS = ("minmax", "percentile")  # of finding ranges; `edgeprune quantise` tries the slow entropy too
FURTHER_SECONDS = 60.0  # for all further forms together; the last one begun is finished


@dataclass(frozen=True)
class QuantizedVariants:
    """The 8-bit points that were made, and what to know of them."""

    points: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()


def quantized_variants(
    prepared: Prepared,
    points: list[Candidate],
    options: Options,
    clock: Clock,
    board: MeasurementTarget,
    folder: Path,
) -> QuantizedVariants:
    """The 8-bit forms of float points; none with --int8 off or without data.

    The first point, of the planned network, decides: ranges by the best method, and slow layers found by
    timing and left in float. The others take both over from it.

    Args:
        folder: where NAME-int8.onnx are written.
    """
    if options.int8 == "off" or prepared.dataset is None or prepared.splits is None:
        return QuantizedVariants(())
    if not board.described:
        return QuantizedVariants((), ("8 bits: name the board's --target, whose kernels decide the types",))
    here = board.measures_target and board.device is None
    first: dict[str, Any] = {
        "evaluate": _evaluate(prepared, clock),
        "methods": METHODS,
        "timer": HostTimer(threads=board.threads, seconds=options.bench_seconds / 2) if here else None,
    }
    try:
        if options.int8 == "auto":
            require_gain(board.target)
        found = _quantised(prepared, points[0], options, board, folder, **first)
    except (ExportError, ParityError, BudgetError) as error:
        return QuantizedVariants((), (f"8 bits: {error}",))
    except EdgepruneError as error:
        return QuantizedVariants((), () if options.int8 == "auto" else (f"8 bits: {error}",))
    kept = {x.name: x.reason for x in found.layers if x.operator in QUANTISABLE and not x.quantised}
    again: dict[str, Any] = {"methods": (found.method,), "keep_float": kept, "timeout_s": FURTHER_SECONDS}
    made, notes = [_form(points[0], found)], list(found.notes)
    began, order = time.monotonic(), _widest_first(points)
    for done, point in enumerate(order):
        if time.monotonic() - began > FURTHER_SECONDS:
            left = ", ".join(p.name for p in order[done:])
            notes.append(f"8 bits: {FURTHER_SECONDS:g} s were up before {left}; see `edgeprune quantise`")
            break
        clock.progress.step(done + 1, len(order), point.name)
        try:
            made.append(_form(point, _quantised(prepared, point, options, board, folder, **again)))
        except (ExportError, ParityError) as error:
            notes.append(f"8 bits: {point.name}: {error.message}")
    return QuantizedVariants(tuple(made), tuple(notes))


def _widest_first(points: list[Candidate]) -> list[Candidate]:
    """The points after the first, those of wider networks before the others, each the nearest first.

    A wider one may meet a goal that the planned network's 8-bit form goes past.
    """
    whole = points[0].macs
    return sorted(points[1:], key=lambda p: (p.macs < whole, abs(p.macs - whole)))


def _quantised(
    prepared: Prepared,
    point: Candidate,
    options: Options,
    board: MeasurementTarget,
    folder: Path,
    **settings: Any,
) -> QuantiseResult:
    """NAME-int8.onnx in `folder`, calibrated on calibration samples."""
    assert prepared.dataset is not None and prepared.splits is not None
    dataset, indices = prepared.dataset, prepared.splits.calibration[: CALIBRATION_CALLS * CALIBRATION_BATCH]
    size = options.fixed_batch or CALIBRATION_BATCH
    parts = [indices[i : i + size] for i in range(0, len(indices) - size + 1, size)]
    return quantise(
        point.artifact.path, (dataset.batch(part) for part in parts), folder / f"{point.name}-int8.onnx",
        **int8_settings(board.target), **settings,
    )  # fmt: skip


def _evaluate(prepared: Prepared, clock: Clock) -> Callable[[Path], float]:
    """Per cent of the first metric on the validation part, of a file."""
    assert prepared.dataset is not None and prepared.splits is not None
    dataset, at = prepared.dataset, prepared.splits.validation
    labels = None if dataset.labels is None else dataset.labels[at]
    dense = prepared.dense["validation"]
    return lambda path: (
        100 * prepared.measure.scores(file_outputs(path, dataset, at, clock), dense, labels)[0]
    )


def _form(point: Candidate, found: QuantiseResult) -> Candidate:
    """The point of an 8-bit file; its network is that of the float one."""
    return replace(point, name=f"{point.name}-int8", artifact=found.artifact, int8=True, predicted=None)
