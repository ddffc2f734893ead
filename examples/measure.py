"""Measure the committed networks: parameters, multiply-adds, test accuracy as recorded, latency in turns.

    python -m examples.measure --seconds 20 --out table.json

Each checkpoint is exported to ONNX and all files take turns on one core of this
machine. Accuracies are read from the JSON files beside the checkpoints; `--check`
computes them again from the data.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.export.export import export_onnx
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.records import to_json
from examples import debian_text, fashion, nets, sequence_nets, training, wearable
from examples.training import Part

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FACTORIES: dict[str, Callable[[], nn.Module]] = {
    **nets.IMAGE_NETS,
    **wearable.NETS,
    "debian_text": sequence_nets.debian_text,
}


def load_network(name: str) -> nn.Module:
    """A trained network in eval mode, by its factory's name.

    Raises:
        ModelError: no checkpoint is committed under this name.
    """
    path = CHECKPOINTS / f"{name}.safetensors"
    if name not in FACTORIES or not path.exists():
        raise ModelError(f"no trained network '{name}'", tip=f"networks are {', '.join(FACTORIES)}")
    model = FACTORIES[name]()
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


def sample_inputs(name: str) -> torch.Tensor:
    """Two input samples of the network's shape and type, for tracing and counting."""
    if name in nets.IMAGE_NETS:
        return torch.rand(2, 1, 28, 28)
    if name in wearable.NETS:
        return torch.randn(2, sequence_nets.WINDOW, sequence_nets.SENSORS)
    return torch.randint(1, sequence_nets.WORDS, (2, sequence_nets.LENGTH))


def test_part(name: str) -> Part:
    """The test part that the network's recorded accuracy was measured on."""
    if name in nets.IMAGE_NETS:
        return fashion.load(fashion.DATA).test
    if name in wearable.NETS:
        return wearable.load().test
    return debian_text.encode_all(debian_text.read_packages(), debian_text.read_vocabulary()).test


def measure(names: list[str], seconds: float, check: bool) -> list[dict[str, Any]]:
    """A row per network; latencies are of batch 1 on one thread, all networks in one interleaved run."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in names:
            model, x = load_network(name), sample_inputs(name)
            batch = torch.export.Dim("batch", min=1, max=4096)
            program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
            files.append(Path(folder) / f"{name}.onnx")
            artifact = export_onnx(program, files[-1])
            facts = json.loads((CHECKPOINTS / f"{name}.json").read_text())
            rows.append(
                {
                    "net": name,
                    "test_accuracy": training.evaluate(model, test_part(name))
                    if check
                    else facts["test_accuracy"],
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "multiply_adds": training.multiply_adds(model, x[:1]),
                    "onnx_nodes": artifact.nodes,
                }
            )
        bench = run_bench(BenchRequest(tuple(files), threads=1, seconds=seconds))
    for row, timing in zip(rows, bench.models, strict=True):
        row["p50_ms"], row["p90_ms"] = to_json(timing.p50_ms), to_json(timing.p90_ms)
    rows[0]["machine"], rows[0]["warnings"] = bench.machine, list(bench.warnings)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one line for each network."""
    parser = argparse.ArgumentParser(prog="python -m examples.measure", description="Measure the networks.")
    parser.add_argument("names", nargs="*", help="networks; default: all that have a checkpoint")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the benchmark of all")
    parser.add_argument("--check", action="store_true", help="compute the test accuracies again")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    options = parser.parse_args(arguments)
    names = options.names or [n for n in FACTORIES if (CHECKPOINTS / f"{n}.safetensors").exists()]
    try:
        rows = measure(names, options.seconds, options.check)
        if options.out:
            training.write(options.out, (json.dumps(rows, indent=2) + "\n").encode())
    except EdgepruneError as error:
        raise training.fail(error) from None
    for row in rows:
        p50, p90 = row["p50_ms"], row["p90_ms"]
        print(
            f"{row['net']:15} accuracy {row['test_accuracy']:.4f}  {row['parameters']:7d} parameters"
            f"  {row['multiply_adds'] / 1e6:5.2f} M multiply-adds"
            f"  p50 {p50['value']:.3f} ms [{p50['low']:.3f}, {p50['high']:.3f}]  p90 {p90['value']:.3f} ms"
        )
    print(*rows[0]["warnings"], sep="\n")


if __name__ == "__main__":
    main()
