"""Torch-Pruning on the same trained network, with the same recovery.

    pip install --no-deps torch-pruning==1.6.1

Its `BasePruner` with group magnitudes cuts the user's class to the MACs that edgeprune shipped (the ratio of
channels is bisected; the output layers are named, as its documentation asks). The cut network is then
fine-tuned by edgeprune's own recovery for as many epochs, exported, judged on the same test part by the same
bound and timed beside the dense file.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.data import open_data
from edgeprune.frontend.load import load_model
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import trace
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.run.analysis import analyse_model, open_run_data
from edgeprune.search.training import fine_tune
from edgeprune.session.dense import DenseNetwork
from edgeprune.session.exporting import BATCH, export_trace, parity_inputs
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock

HALVINGS = 6


def torch_pruning_row(command: dict[str, Any], options: Options, macs: float, folder: Path) -> dict[str, Any]:
    """Cut to `macs` (a share of the dense MACs) by Torch-Pruning and recover; `lost`, `p50_ratio`, `macs`.

    Args:
        command: checkpoint, factory, shape and data, as the command line was given them.
        folder: of edgeprune's finished run, for its dense.onnx.
    """
    began = time.monotonic()
    loaded = load_model(
        command["checkpoint"], factory=command["model"], input_shapes=[command["shape"]],
        input_dtypes=[command.get("dtype")],
    )  # fmt: skip
    dataset = open_data(command["data"], input_shapes=[command["shape"]])
    analysis = analyse_model(loaded, options)
    data = open_run_data(analysis.trace, dataset, options)
    parts = {
        p: outputs(analysis.trace.graph, dataset, data.indices(p), BATCH)
        for p in ("train", "validation", "test")
    }
    data = replace(data, dense=parts)
    dense = DenseNetwork(analysis.trace, analysis.couplings, data)
    small = trace(
        _cut(loaded.module, loaded.example_inputs, macs * analysis.couplings.macs()), loaded.example_inputs
    )
    share = analyse(small).macs() / analysis.couplings.macs()
    for number in range(1, options.rounds + 1):
        small, _ = fine_tune(dense, data, small, number, options, Clock())
    out = outputs(small.graph, dataset, data.indices("test"), BATCH)
    loss = data.loss(out, "test", level=0.95)
    path = folder / "torch-pruning.onnx"
    calls = parity_inputs(small, dataset, data.splits.validation, fixed_batch=None, seed=0)
    export_trace(small, calls, path, opset=options.opset)
    bench = run_bench(BenchRequest((folder / "dense.onnx", path), 1, options.bench_seconds, seed=0))
    ratio = bench.ratios[0].ratio
    return {
        "lost": [round(v, 3) for v in (loss.drop.value, loss.drop.low, loss.drop.high)],
        "unit": loss.unit,
        "macs": round(share, 4),
        "p50_ratio": [round(v, 3) for v in (ratio.value, ratio.low, ratio.high)],
        "seconds": round(time.monotonic() - began, 1),
    }


def _cut(module: Any, inputs: tuple[torch.Tensor, ...], macs: float) -> nn.Module:
    """The module with the smallest ratio of channels removed that leaves at most `macs`."""
    low, high = 0.0, 0.95
    best: nn.Module | None = None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        net = _pruned(module, inputs, middle)
        if analyse(trace(net, inputs)).macs() <= macs:
            best, high = net, middle
        else:
            low = middle
    return best if best is not None else _pruned(module, inputs, high)


def _pruned(module: nn.Module, inputs: tuple[torch.Tensor, ...], ratio: float) -> nn.Module:
    import torch_pruning as tp

    net = copy.deepcopy(module)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    tp.pruner.BasePruner(
        net, inputs if len(inputs) > 1 else inputs[0], importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio, ignored_layers=output_layers(net, inputs),
    ).step()  # fmt: skip
    return net.eval()


def output_layers(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """The last layers with weights before each output: what Torch-Pruning has to be told to leave."""
    graph = trace(net, inputs).graph
    ends = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes
    layers = dict(net.named_modules())
    ahead, seen, last = list(ends), set(ends), set()
    while ahead:
        node = ahead.pop()
        weights = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
        names = {name.rpartition(".")[0] for name in weights} & set(layers)
        if names:
            last |= names
            continue
        ahead += [n for n in node.all_input_nodes if n not in seen]
        seen.update(node.all_input_nodes)
    return [
        layers[name] for name in sorted(last) if not isinstance(layers[name], nn.modules.batchnorm._BatchNorm)
    ]


def macs_of(report: dict[str, Any]) -> float:
    """Share of the MACs that a report's shipped file keeps."""
    return float(np.divide(report["macs"]["shipped"], report["macs"]["dense"]))
