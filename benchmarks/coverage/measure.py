"""One row of the coverage table: trace, couple, cut to half of the MACs, export, compare.

A row passes when at most 0.55 of the MACs remain, ONNX Runtime agrees with the pruned graph, and the
agreement could have failed: zero-initialised weights were drawn anew, batch norms were calibrated (again
after the cut, where it let the output fade), and every output's standard deviation over eight inputs is at
least 1,000 times its parity error. The plan removes the same share of every group, at random.
Elsewhere: the models (models, transformers_models), models of which only parts export (parts), the rows
that are kept (run).
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.coupling.analysis import analyse
from edgeprune.export.export import export_onnx
from edgeprune.export.parity import check_parity
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import reexport, run, trace
from edgeprune.search.groups import uniform
from edgeprune.surgery.cut import cut

TARGET, LIMIT, SPREAD = 0.5, 0.55, 1000
SAMPLES = 8


def measure_module(model: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The row of one traceable module; `inputs` hold eight samples."""
    began = time.monotonic()
    traced = trace(model, tuple(x[:2] for x in inputs))
    row, _ = measure_trace(traced, inputs, round(time.monotonic() - began, 2))
    return row


def measure_trace(
    traced: Any, inputs: tuple[Any, ...], trace_seconds: float = 0.0, target: float = TARGET
) -> tuple[dict[str, Any], Any]:
    """The row of one trace, and the trace cut to `target` of its MACs."""
    clock = [time.monotonic()]

    def lap() -> float:
        clock.append(time.monotonic())
        return round(clock[-1] - clock[-2], 2)

    seconds = {"trace": trace_seconds}
    couplings = analyse(traced)
    seconds["coupling"] = lap()
    full = couplings.macs()
    rank = np.random.default_rng(0).permutation(couplings.count)
    removed = (
        uniform(couplings, rank, couplings.macs, target * full) if couplings.count else np.zeros(0, bool)
    )
    lap()
    small = cut(traced, couplings, removed)
    seconds["surgery"] = lap()
    weak = faded(small, inputs)
    if weak:
        recentre(small, inputs)
    lap()
    row: dict[str, Any] = {
        "components": couplings.count,
        "channels": sum(len(couplings.channel_maps[layer.outputs]) for layer in couplings.layers),
        "free_share": round(couplings.share_free(), 4),
        "recentred": weak,
        "exact_share": round(float(couplings.exact.mean()), 4) if couplings.count else None,
        "mmacs": round(full / 1e6, 4),
        "macs_ratio": round(couplings.macs(removed) / full, 4) if full else None,
        "parameters": _parameters(traced.graph),
        "params_ratio": round(_parameters(small.graph) / max(1, _parameters(traced.graph)), 4),
        "dynamic_batch": all(traced.dynamic),
        "pins": [[p.reason, p.channels] for p in sorted(couplings.pins, key=lambda p: -p.channels)[:12]],
        "seconds": seconds,
    }
    row.update(parity(small, inputs, lap, seconds))
    row["passed"] = bool(
        row["macs_ratio"] is not None and row["macs_ratio"] <= LIMIT and (row["spread_ratio"] or 0) >= SPREAD
    )
    row["max_rss_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 2)
    return row, small


def faded(small: Any, inputs: tuple[Any, ...]) -> bool:
    """Whether an output of the cut network varies over the samples by less than a hundredth of its size.

    Half of the channels at random, with the batch norms of the whole: over fifty layers little is left.
    """
    with torch.no_grad():
        found = [y for y in run(small.graph, inputs) if y.is_floating_point() and len(y) > 1]
    return any(float(y.std(0).mean()) < 0.01 * float(y.abs().max()) for y in found)


def recentre(small: Any, inputs: tuple[Any, ...]) -> None:
    """Set the batch norms of a cut network to its own means, and a tenth of the way to its own variances.

    With its own variances an untrained network of fifty blocks amplifies rounding until nothing
    agrees, with the old ones constants hide what is left of the signal.
    """

    class Recentring(fx.Interpreter):  # type: ignore[misc]  # torch is untyped here
        def run_node(self, n: fx.Node) -> Any:
            if n.target is torch.ops.aten.batch_norm.default:
                x = self.env[n.args[0]]
                over = [d for d in range(x.dim()) if d != 1]
                mean, variance = (attribute(small.graph, str(n.args[i].target)) for i in (3, 4))
                mean.copy_(x.mean(over))
                variance.copy_(variance**0.9 * x.var(over) ** 0.1)
            return super().run_node(n)

    with torch.no_grad():
        Recentring(small.graph).run(*inputs, enable_io_processing=False)


def parity(small: Any, inputs: tuple[Any, ...], lap: Any, seconds: dict[str, float]) -> dict[str, Any]:
    """Export the cut trace and compare ONNX Runtime with it on the eight samples."""
    program = reexport(small.graph, small.inputs, small.dynamic)
    seconds["retrace"] = lap()

    def reference(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        with torch.no_grad():
            return tuple(x.numpy() for x in run(small.graph, tuple(torch.from_numpy(a) for a in arrays)))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(program, path)
        seconds["export"] = lap()
        calls = [tuple(x[i : i + 2].numpy() for x in inputs) for i in range(0, SAMPLES, 2)]
        result = check_parity(reference, path, calls)
        seconds["parity"] = lap()
    floats = [o for o in result.outputs if o.atol]
    ratios = [o.spread / max(o.max_abs, 1e-12) for o in floats]
    return {
        "parity_max_abs": result.max_abs,
        "max_reference": max(o.max_reference for o in result.outputs),
        "top1_agreement": result.top1_agreement,
        "output_spread": result.output_spread,
        "spread_ratio": round(min(ratios), 1) if ratios else None,
    }


def _parameters(graph: Any) -> int:
    return sum(p.numel() for p in graph.parameters())


def enliven(model: Any, inputs: Any) -> None:
    """Make outputs depend on inputs: strong enough weights, calibrated batch norms.

    Zeros are drawn anew, and so is what was drawn so weakly (a head at 0.01, a depthwise
    convolution scaled by its outputs) that signals fade below the eps of the next norm.
    """
    layers = nn.Linear | nn.modules.conv._ConvNd
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                nn.init.trunc_normal_(parameter, std=0.02)
            elif parameter.dim() == 1 and parameter.numel() > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        for layer in (m for m in model.modules() if isinstance(m, layers)):
            strong = (2 / layer.weight[0].numel()) ** 0.5
            if float(layer.weight.std()) < strong / 2:
                nn.init.normal_(layer.weight, std=strong)
        model.eval()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            if norm.weight is not None and not norm.weight.any():
                nn.init.ones_(norm.weight)
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        if norms and inputs:
            model(*inputs)
        for norm in norms:
            norm.eval()
            norm.momentum = 0.1
