"""`--speedup 2` on one network: the request, the speed of the shipped file, and a ladder of smaller files.

Networks of torchvision have random weights that are scaled so that parity can be checked
(coverage.measure.enliven); their time is meaningful, their accuracy is not. The trained networks keep their
weights. Channels are ranked by l2, without data and training. The front's plans, the shipped file and the
dense file are timed in one run.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import edgeprune
from benchmarks.coverage.measure import enliven
from benchmarks.recording import ROOT
from edgeprune.errors import EdgepruneError
from examples import nets

CLIFF = 1.03  # a plan for a smaller share that is slower than a larger one's by more than this


def build(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The network and eight samples."""
    torch.manual_seed(0)
    if hasattr(nets, name):
        model = getattr(nets, name)()
        model.load_state_dict(load_file(ROOT / "examples" / "checkpoints" / f"{name}.safetensors"))
        return model.eval(), torch.randn(8, 1, 28, 28)
    import torchvision  # type: ignore[import-untyped]

    model, x = getattr(torchvision.models, name)(weights=None), torch.randn(8, 3, 224, 224)
    enliven(model, (x,))
    return model.eval(), x


def row_of(name: str, work: Path, speedup: float, seconds: float) -> dict[str, Any]:
    """One network's row; a run folder that is finished is read again."""
    model, x = build(name)
    try:
        result = edgeprune.compress(
            model, example_inputs=x[:2], output=work / "run", speedup=speedup, criterion="l2", epochs=0,
            int8="off", bench_seconds=seconds, profile_seconds=max(30.0, 2 * seconds), rounds=1,
        )  # fmt: skip
        report = result.report
    except EdgepruneError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return {"network": name, "asked": speedup, "error": str(error)}
    latency, front = report["latency"], report["front"]
    reached = sorted(1 / latency[key] for key in ("ratio_low", "ratio", "ratio_high"))
    ladder = sorted(
        ({"share": int(p["name"].split("-")[1]) / 100, "ratio": p["ratio"], "ratio_low": p["ratio_low"]}
         for p in front if p["name"].startswith("plan-")),
        key=lambda p: -p["share"],
    )  # fmt: skip
    return {
        "network": name,
        "asked": speedup,
        "reached": reached[1],
        "interval": [reached[0], reached[2]],
        "within_5_percent": abs(reached[1] / speedup - 1) <= 0.05,
        "macs": report["macs"]["shipped"] / report["macs"]["dense"],
        "dense_ms": latency["dense_p50_ms"],
        "timed": report["rounds"][-1]["timed"],  # whole files while planning: predicted and measured
        "ladder": ladder,
        "cliff": any(b["ratio"] > CLIFF * a["ratio"] for a, b in itertools.pairwise(ladder)),
        "slower_than_dense": latency["ratio_low"] > 1 or any(p["ratio_low"] > 1 for p in ladder),
        "warnings": report["bench"]["warnings"],
    }
