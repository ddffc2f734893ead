"""A guess at milliseconds from a target's descriptor alone, for a device that is not at hand.

Per layer the larger of its arithmetic and its memory traffic, plus a constant per operator. No such
number was measured: the cost says `estimate`, its unit is "estimated ms (roofline)", and it ranks
plans; it does not promise a time. Background: Williams, Waterman, Patterson, CACM 2009.
"""

from __future__ import annotations

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.latency.costs import LatencyCost
from edgeprune.model.graph import shape_of
from edgeprune.model.trace import Trace
from edgeprune.records import Target

UNIT = "estimated ms (roofline)"
EFFICIENCY = 0.6  # share of the peak that onnxruntime's blocked convolutions reach on large layers
OPERATOR_CYCLES = 10_000  # dispatch of one operator; 4 µs at 2.4 GHz
BYTES = 4


def roofline(target: Target, traced: Trace, couplings: Couplings) -> LatencyCost:
    """Estimated ms of a removal on the target with its own number of threads, at batch 1."""
    threads = max(1, min(target.threads, target.cores))
    macs_per_ms = target.fp32_flops_per_cycle / 2 * target.clock_ghz * 1e6 * EFFICIENCY * threads
    bytes_per_ms = target.bandwidth_gb_s * 1e6
    batch = len(traced.inputs[0]) if traced.inputs and traced.inputs[0].dim() else 1
    costs = {c.node: c for c in couplings.costs}
    layers = {layer.node: layer for layer in couplings.layers}
    terms = []
    for node in traced.graph.graph.nodes:
        if node.op != "call_function" or node.name not in couplings.values or "val" not in node.meta:
            continue
        shape = shape_of(node.meta["val"])
        numbers = [int(d) for d in shape or () if isinstance(d, int)]
        dims = couplings.values[node.name][0] if couplings.values[node.name] else ()
        extents = [e for dim in dims for e in dim]
        whole = float(np.prod(numbers)) / max(batch, 1) * BYTES
        factors = [e for e in extents if len(couplings.extents[e])]
        spread = whole / float(np.prod([len(couplings.extents[e]) for e in factors])) if factors else whole
        weight = layers.get(node.name)
        name = weight.weight if weight else None
        stored = couplings.tensors.get(name, ()) if name else ()
        terms.append((costs.get(node.name), spread, tuple(factors), _weight(traced, name, stored, couplings)))

    def predict(removed: BoolArray) -> float:
        kept = couplings.kept(removed)
        total = 0.0
        for cost, spread, factors, (elements, held) in terms:
            traffic = spread * float(np.prod(kept[list(factors)])) if factors else spread
            traffic += elements * float(np.prod(kept[list(held)])) * BYTES if elements else 0.0
            macs = cost.coefficient * float(np.prod(kept[list(cost.factors)])) if cost else 0.0
            total += max(macs / macs_per_ms, traffic / bytes_per_ms)
        return total + len(costs) * OPERATOR_CYCLES / (target.clock_ghz * 1e6)

    dense = predict(np.zeros(couplings.count, bool))
    source = f"roofline from the descriptor of {target.name}: an estimate, nothing was measured"
    return LatencyCost(predict, UNIT, source, True, dense)


def _weight(
    traced: Trace, name: str | None, dims: tuple[int | None, ...], couplings: Couplings
) -> tuple[float, tuple[int, ...]]:
    """Elements of a weight per product of kept counts, and the extents that multiply them."""
    if name is None:
        return 0.0, ()
    from edgeprune.model.graph import attribute

    size = float(attribute(traced.graph, name).numel())
    held = tuple(e for e in dims if e is not None)
    return size / float(np.prod([len(couplings.extents[e]) for e in held])) if held else size, held
