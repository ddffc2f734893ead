"""Round 0: what can go without changing any output, before anything is scored."""

from __future__ import annotations

import numpy as np
import torch

from edgeprune.coupling.components import Couplings
from edgeprune.graph.execution import batches
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.masks import Mask
from edgeprune.masks.mask import canonical
from edgeprune.search.state import LosslessCounts, RoundRecord, SearchState, advance, dense_state, with_record
from edgeprune.session.dense import DenseNetwork
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.simplify.lossless import LosslessResult, apply_mask, lossless

SAMPLES, CALLS = 32, 4


def start(dense: DenseNetwork, options: Options, clock: Clock, *, mask: Mask | None = None) -> SearchState:
    """The dense network, its masked weights at zero, without the channels that no output notices.

    Raises:
        MaskError: the mask does not fit the model.
    """
    trace = dense.trace if mask is None else apply_mask(dense.trace, dense.couplings, mask)
    with clock.stage("lossless"):
        result = lossless(trace, dense.couplings, None, _inputs(dense))
    record = RoundRecord(lossless=_counts(result))
    state = with_record(dense_state(trace, dense.couplings, mask), record)
    if not len(result.removed):
        return state
    clock.progress.note(
        f"lossless: {len(result.removed)} channels removed, certified to {result.max_abs:.1e}"
    )
    # The full-size network with folded biases couples as the dense one, plus the new biases.
    merged = None if mask is None else _with_merged(mask, result.full, result.couplings)
    folded = SearchState(
        result.full, result.couplings, state.origin, state.removed, record, state.origin, merged
    )
    return advance(folded, result.trace, result.removed_mask, record, options)


def _counts(result: LosslessResult) -> LosslessCounts:
    return LosslessCounts(
        len(result.removed), len(result.unused), len(result.folded), len(result.merged), result.rounds,
        result.max_abs,
    )  # fmt: skip


def _with_merged(mask: Mask, full: Trace, couplings: Couplings) -> Mask:
    """The mask after merges: a weight that took over another's value is kept, masked or not."""
    weights = state_tensors(full.graph)
    kept = canonical(mask, couplings)
    return Mask({name: keep | (weights[name].detach().numpy() != 0) for name, keep in kept.items()})


def _inputs(dense: DenseNetwork) -> list[tuple[torch.Tensor, ...]]:
    """Calibration samples; without data seeded noise shaped like the example."""
    if dense.data is not None:
        chosen = dense.data.splits.calibration[: SAMPLES * CALLS]
        size = SAMPLES if all(dense.trace.dynamic) else len(dense.trace.inputs[0])
        size = min(size, len(chosen)) if all(dense.trace.dynamic) else size
        return [
            inputs for inputs, _ in batches(dense.data.dataset, chosen[: len(chosen) // size * size], size)
        ]
    generator = torch.Generator().manual_seed(0)
    calls = [dense.trace.inputs]
    for _ in range(CALLS - 1):
        calls.append(
            tuple(
                torch.randn(x.shape, generator=generator, dtype=x.dtype)
                if x.is_floating_point()
                else x[torch.as_tensor(np.random.default_rng(0).permutation(len(x)))]
                for x in dense.trace.inputs
            )
        )
    return calls
