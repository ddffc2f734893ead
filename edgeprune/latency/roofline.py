"""A guess at milliseconds from a target's descriptor alone, for a board that is not at hand.

Per operator the larger of its arithmetic and its memory traffic, plus a constant per layer. No such
number was measured: the cost says `estimate`, its unit is "estimated ms (roofline)", and it ranks
plans; it does not promise a time. Background: Williams, Waterman, Patterson, CACM 2009.
"""

from __future__ import annotations

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.trace import Trace
from edgeprune.latency.costs import LatencyCost
from edgeprune.latency.work import Work
from edgeprune.records import Target

UNIT = "estimated ms (roofline)"
EFFICIENCY = 0.6  # share of the peak that convolutions reach; assumed, as all of this
LAYER_CYCLES = 10_000  # dispatch of one layer; 4 µs at 2.4 GHz
BYTES = 4


def roofline(target: Target, traced: Trace, couplings: Couplings) -> LatencyCost:
    """Estimated ms of a removal on the target with its own number of threads, at batch 1."""
    threads = max(1, min(target.threads, target.cores))
    macs_per_ms = target.fp32_flops_per_cycle / 2 * target.clock_ghz * 1e6 * EFFICIENCY * threads
    bytes_per_ms = target.bandwidth_gb_s * 1e6
    work = Work(traced, couplings)
    dispatch = sum(map(bool, work.kinds)) * LAYER_CYCLES / (target.clock_ghz * 1e6)

    def predict(removed: BoolArray) -> float:
        amounts = work.at(removed)
        memory = (amounts.written + amounts.weights) * BYTES / bytes_per_ms
        return float(np.maximum(amounts.macs / macs_per_ms, memory).sum()) + dispatch

    dense = predict(np.zeros(couplings.count, bool))
    source = f"roofline from the descriptor of {target.name}: an estimate, nothing was measured"
    return LatencyCost(predict, UNIT, source, True, dense)
