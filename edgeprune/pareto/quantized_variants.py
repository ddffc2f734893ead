"""8-bit forms of the files of a front, as further candidates.

The planned network's form finds the ranges and the layers that are slower in 8 bits by trying and timing;
the other files take both over, until time is up.

Guarantee: every file was compared with its own quantised graph; a note says which file could not be made,
why none was, and that time was up.
Elsewhere: quantisation itself (export), timing and accuracy (front.time_candidates).
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
from edgeprune.session.context import RunContext
from edgeprune.session.dense import ExportedDense, RunData
from edgeprune.session.exporting import file_outputs

CALIBRATION_CALLS, CALIBRATION_BATCH = 32, 16
METHODS = ("minmax", "percentile")  # of finding ranges; `edgeprune quantise` tries the slow entropy too
LIMIT_SECONDS = 120.0  # for all forms together; nothing of the front is faster for waiting longer


@dataclass(frozen=True)
class QuantizedVariants:
    """The 8-bit candidates, and notes for the report."""

    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


def quantized_variants(
    dense: ExportedDense, candidates: list[Candidate], run: RunContext
) -> QuantizedVariants:
    """The 8-bit forms of float candidates, written as front/NAME-int8.onnx; none with --int8 off or no data.

    The first candidate, of the planned network, decides: ranges by the best method, and slow layers found
    by timing and left in float. The others take both over from it.
    """
    options, data = run.options, dense.data
    if options.int8 == "off" or data is None:
        return QuantizedVariants()
    if not run.target.described:
        return QuantizedVariants((), ("8 bits: name the board's --target, whose kernels decide the types",))
    here = run.target.measures_target and run.target.board is None
    timer = HostTimer(threads=run.target.threads, seconds=options.bench_seconds / 2) if here else None
    settings: dict[str, Any] = {"evaluate": _evaluate(data, run), "methods": METHODS, "timer": timer}
    began = time.monotonic()
    try:
        if options.int8 == "auto":
            require_gain(run.target.descriptor)
        result = _quantised(data, candidates[0], run, timeout_s=LIMIT_SECONDS, **settings)
    except (ExportError, ParityError, BudgetError) as error:
        return QuantizedVariants((), (f"8 bits: {error}",))
    except EdgepruneError as error:
        return QuantizedVariants((), () if options.int8 == "auto" else (f"8 bits: {error}",))
    kept = {x.name: x.reason for x in result.layers if x.operator in QUANTISABLE and not x.quantised}
    again: dict[str, Any] = {"methods": (result.method,), "keep_float": kept}
    variants, notes = [_variant(candidates[0], result)], list(result.notes)
    ordered = _widest_first(candidates)
    for done, candidate in enumerate(ordered):
        remaining = LIMIT_SECONDS - (time.monotonic() - began)
        if remaining <= 0:
            left = ", ".join(c.name for c in ordered[done:])
            notes.append(f"8 bits: {LIMIT_SECONDS:g} s were up before {left}; see `edgeprune quantise`")
            break
        run.progress.step(done + 1, len(ordered), candidate.name)
        try:
            variants.append(
                _variant(candidate, _quantised(data, candidate, run, timeout_s=remaining, **again))
            )
        except (ExportError, ParityError, BudgetError) as error:
            notes.append(f"8 bits: {candidate.name}: {error.message}")
    return QuantizedVariants(tuple(variants), tuple(notes))


def _widest_first(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates after the first, wider networks before the others, each nearest first.

    A wider one may meet a goal that the planned network's 8-bit form goes past.
    """
    macs = candidates[0].macs
    return sorted(candidates[1:], key=lambda c: (c.macs < macs, abs(c.macs - macs)))


def _quantised(data: RunData, candidate: Candidate, run: RunContext, **settings: Any) -> QuantiseResult:
    """front/NAME-int8.onnx, calibrated on calibration samples."""
    indices = data.splits.calibration[: CALIBRATION_CALLS * CALIBRATION_BATCH]
    size = min(run.options.fixed_batch or CALIBRATION_BATCH, len(indices))
    parts = [indices[i : i + size] for i in range(0, len(indices) - size + 1, size)]
    return quantise(
        candidate.artifact.path,
        (data.dataset.batch(part) for part in parts),
        run.folder.path / "front" / f"{candidate.name}-int8.onnx",
        **int8_settings(run.target.descriptor),
        **settings,
    )


def _evaluate(data: RunData, run: RunContext) -> Callable[[Path], float]:
    """What a file keeps of the dense model on the validation part: 100 less the loss that decides."""

    def kept(path: Path) -> float:
        out = file_outputs(path, data.dataset, data.splits.validation, run.progress)
        return 100 - data.loss(out, "validation").value

    return kept


def _variant(candidate: Candidate, result: QuantiseResult) -> Candidate:
    """The candidate of an 8-bit file; its network is that of the float one."""
    return replace(
        candidate, name=f"{candidate.name}-int8", artifact=result.artifact, int8=True, predicted=None
    )
