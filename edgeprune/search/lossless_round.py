"""Round 0: what can go without changing any output, before anything is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgeprune.graph.execution import batches
from edgeprune.session.dense import Prepared
from edgeprune.session.options import Clock
from edgeprune.simplify.lossless import LosslessResult, lossless

SAMPLES, CALLS = 32, 4


def lossless_round(prepared: Prepared, clock: Clock) -> LosslessResult:
    """Remove dead, constant, unused and doubled channels of the dense network, certified."""
    with clock.stage("lossless"):
        return lossless(prepared.trace, prepared.couplings, None, _inputs(prepared))


def summary(found: LosslessResult) -> dict[str, Any]:
    """What a report says of it."""
    return {
        "removed": len(found.removed),
        "unused": len(found.unused),
        "constant": len(found.folded),
        "merged": len(found.merged),
        "rounds": found.rounds,
        "max_abs": found.max_abs,
    }


def _inputs(prepared: Prepared) -> list[tuple[torch.Tensor, ...]]:
    """Real inputs where there are some; else seeded noise shaped like the example."""
    if prepared.dataset is not None and prepared.splits is not None:
        chosen = prepared.splits.calibration[: SAMPLES * CALLS]
        size = SAMPLES if all(prepared.trace.dynamic) else len(prepared.trace.inputs[0])
        whole = chosen[: len(chosen) // size * size]
        return [inputs for inputs, _ in batches(prepared.dataset, whole, size)]
    generator = torch.Generator().manual_seed(0)
    calls = [prepared.trace.inputs]
    for _ in range(CALLS - 1):
        calls.append(
            tuple(
                torch.randn(x.shape, generator=generator, dtype=x.dtype)
                if x.is_floating_point()
                else x[torch.as_tensor(np.random.default_rng(0).permutation(len(x)))]
                for x in prepared.trace.inputs
            )
        )
    return calls
