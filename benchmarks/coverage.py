"""Compress every model of a list to half of its MACs and prove the exported file; one row each.

    python benchmarks/coverage.py                    # all of torchvision, then transformers
    python benchmarks/coverage.py resnet18 swin_t    # some rows, again
    python benchmarks/coverage.py --failed           # those that did not pass
    python benchmarks/coverage.py --stale            # those that other code measured

Each row runs in a process of its own, within a memory limit, and is written to
benchmarks/results/coverage.json as soon as it is done: a killed run goes on where it was.
A row keeps the hash of the code that measured it; it is stale once that code changed.

A row passes when at most 0.55 of the MACs remain, ONNX Runtime agrees with the pruned
graph, and the agreement could have failed: zero-initialised weights were drawn anew, batch
norms were calibrated (anew after the cut, where it let the output fade), and every output's
standard deviation over eight inputs is at least 1,000 times its parity error. The plan
removes the same share of every group, at random.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
GIB = 1 << 30
TARGET, LIMIT, SPREAD = 0.5, 0.55, 1000
SAMPLES = 8


def names(which: str) -> list[str]:
    from coverage_models import torchvision_rows

    rows = list(torchvision_rows())
    if which != "torchvision":
        from coverage_transformers import transformers_rows

        rows = [*transformers_rows(), *(rows if which == "all" else [])]
    return rows


def measure(name: str) -> dict[str, Any]:
    """One row: build, trace, couple, cut to half, export, compare. Runs in its own process."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    from coverage_models import torchvision_rows

    rows = torchvision_rows()
    if name not in rows:
        from coverage_transformers import transformers_rows

        rows = transformers_rows()
    row = rows[name]
    model = row.build()
    if row.parts:
        from coverage_parts import measure_parts

        return measure_parts(model, row)
    inputs = row.inputs(SAMPLES)
    enliven(model, inputs)
    return measure_module(model, inputs)


def enliven(model: Any, inputs: Any) -> None:
    """Make outputs depend on inputs: strong enough weights, calibrated batch norms.

    Zeros are drawn anew, and so is what was drawn so weakly (a head at 0.01, a depthwise
    convolution scaled by its outputs) that signals fade below the eps of the next norm.
    """
    import torch
    from torch import nn

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


def measure_module(model: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The row of one traceable module; `inputs` hold eight samples."""
    from edgeprune.graph.trace import trace

    began = time.monotonic()
    traced = trace(model, tuple(x[:2] for x in inputs))
    row, _ = measure_trace(traced, inputs, round(time.monotonic() - began, 2))
    return row


def measure_trace(
    traced: Any, inputs: tuple[Any, ...], trace_seconds: float = 0.0, target: float = TARGET
) -> tuple[dict[str, Any], Any]:
    """The row of one trace, and the trace cut to `target` of its MACs."""
    import numpy as np

    from edgeprune.coupling.analysis import analyse
    from edgeprune.search.groups import uniform
    from edgeprune.surgery.cut import cut

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
    import torch

    from edgeprune.graph.trace import run

    with torch.no_grad():
        found = [y for y in run(small.graph, inputs) if y.is_floating_point() and len(y) > 1]
    return any(float(y.std(0).mean()) < 0.01 * float(y.abs().max()) for y in found)


def recentre(small: Any, inputs: tuple[Any, ...]) -> None:
    """Set the batch norms of a cut network to its own means, and a tenth of the way to its own variances.

    With its own variances an untrained network of fifty blocks amplifies rounding until nothing
    agrees, with the old ones constants hide what is left of the signal.
    """
    import torch
    from torch import fx

    from edgeprune.graph.module import attribute

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
    import torch

    from edgeprune.export.export import export_onnx
    from edgeprune.export.parity import check_parity
    from edgeprune.graph.trace import reexport, run

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


def child(name: str, limit_gib: float, cpu_seconds: float) -> None:
    """Measure in this process and print the row as the last line."""
    resource.setrlimit(resource.RLIMIT_AS, (int(limit_gib * GIB), int(limit_gib * GIB)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds) + 5))
    from edgeprune.errors import EdgepruneError

    try:
        row = measure(name)
    except EdgepruneError as error:
        row = {"passed": False, "reason": f"{type(error).__name__}: {str(error)[:400]}"}
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError) as error:
        text = (str(error).splitlines() or [""])[0][:400]
        row = {"passed": False, "reason": f"{type(error).__name__}: {text}"}
    print("\n" + json.dumps(row), flush=True)


def run_row(name: str, limit_gib: float, cpu_seconds: float) -> dict[str, Any]:
    """The row from a process of its own, which the system ends when it takes too much of either."""
    command = ["nice", "-n", "5", sys.executable, __file__, "--child", name]
    command += ["--memory-gib", str(limit_gib), "--cpu-seconds", str(cpu_seconds)]
    timeout = 6 * cpu_seconds
    began, code = time.monotonic(), code_hash()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        row = (
            json.loads(lines[-1])
            if lines
            else {
                "passed": False,
                "reason": f"died with code {done.returncode}: {done.stderr.strip()[-300:]}",
            }
        )
    except subprocess.TimeoutExpired:
        row = {"passed": False, "reason": f"no result within {timeout:.0f} s"}
    row["code"] = code
    row["commit"] = commit()
    row["measured"] = time.strftime("%Y-%m-%d", time.gmtime())
    row["seconds_total"] = round(time.monotonic() - began, 1)
    return row


def code_hash() -> str:
    """Of everything that decides a row, to tell which version measured it."""
    digest = hashlib.sha256()
    for path in deciding():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def deciding() -> list[Path]:
    """The files that decide a row: from the trace to the checked file, and how a row is measured."""
    folders = ("model", "coupling", "planning", "surgery", "onnxfile")
    product = [p for folder in folders for p in (ROOT / "edgeprune" / folder).rglob("*.py")]
    here = ROOT / "benchmarks"
    bench = [here / f"coverage{part}.py" for part in ("", "_models", "_parts", "_transformers")]
    return sorted([*product, *bench])


def commit() -> str:
    """The commit of the tree, with a plus where a deciding file differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *map(str, deciding())])
    return head.stdout.strip() + "+" * (changed.returncode != 0) if head.returncode == 0 else ""


def known_rows() -> dict[str, Any]:
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}


def record(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Put one row beside those that the file holds by now; gives all. Several runs may share the file."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {**known_rows(), name: row}
        partial = RESULTS.with_suffix(".partial")
        partial.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n")
        os.replace(partial, RESULTS)
    return rows


def line(name: str, row: dict[str, Any]) -> str:
    if "macs_ratio" not in row:
        return f"{name:34} {'-':6} {row.get('reason', '')[:90]}"
    s = row["seconds"]
    spread = row.get("spread_ratio")
    return (
        f"{name:34} {'pass' if row['passed'] else 'FAIL':6} {row['components']:7} {row['free_share']:6.2f} "
        f"{row['macs_ratio'] or 0:6.3f} {row['params_ratio']:6.3f} "
        f"{s.get('trace', 0):7.1f} {s.get('coupling', 0):6.2f} {s.get('surgery', 0):6.2f} "
        f"{row.get('parity_max_abs', 0):9.1e} {spread or 0:10.0f}"
    )


def main() -> int:
    from coverage_summary import summary

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="names to measure again (default: those not yet measured)")
    parser.add_argument("--set", choices=("all", "torchvision", "transformers"), default="all")
    parser.add_argument("--failed", action="store_true", help="measure again what did not pass")
    parser.add_argument("--stale", action="store_true", help="measure again what other code measured")
    parser.add_argument("--force", action="store_true", help="measure everything again")
    parser.add_argument("--memory-gib", type=float, default=20.0)
    parser.add_argument("--cpu-seconds", type=float, default=900.0, help="processor time for one row")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.memory_gib, args.cpu_seconds)
        return 0
    known = known_rows()
    every = args.rows or names(args.set)
    todo = [
        n for n in every
        if args.rows or args.force or n not in known or (args.failed and not known[n]["passed"])
        or (args.stale and known[n].get("code") != code_hash())
    ]  # fmt: skip
    head = (
        "model",
        "",
        "units",
        "free",
        "MACs",
        "params",
        "trace",
        "coupl",
        "cut",
        "max diff",
        "spread/diff",
    )
    print("{:34} {:6} {:>7} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>9} {:>10}".format(*head))
    for name in todo:
        known = record(name, run_row(name, args.memory_gib, args.cpu_seconds))
        print(line(name, known[name]), flush=True)
    passed = [n for n in every if known.get(n, {}).get("passed")]
    print(summary(known, every, code_hash()))
    return 0 if len(passed) == len(every) else 1


if __name__ == "__main__":
    raise SystemExit(main())
