"""The main job on real data: the residual network on Fashion-MNIST, 3× fewer MACs.

    python -m benchmarks.accuracy.fashion

Runs `edgeprune compress` on the committed checkpoint with the full data set, then trains the same pruned
shape from scratch for as many epochs as fine-tuning took. Prints a table and writes results/fashion.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.recording import ROOT, record, table

DATA = "/usr/share/datasets/fashion-mnist"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.fashion", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--net", default="fashion_resnet")
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--macs", default="3x")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--no-scratch", action="store_true", help="skip training the shape from scratch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        began = time.monotonic()
        command = [
            sys.executable, "-m", "edgeprune", "compress", f"examples/checkpoints/{given.net}.safetensors",
            "--model", f"examples.nets:{given.net}", "--input-shape", "1,28,28", "--data", given.data,
            "--macs", given.macs, "--rounds", str(given.rounds), "--epochs", str(given.epochs),
            "--output", str(folder), "--json",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - began
        report = json.loads(done.stdout)
        rows = [_compressed(report, seconds)]
        if not given.no_scratch:
            rows.append(_scratch(report, given.net, given.rounds * given.epochs, Path(scratch)))
    print(table(rows, ["network", "accuracy", "points_lost", "macs_factor", "p50_ratio", "seconds"]))
    print(record("fashion", rows, cells={"report": report}))


def _compressed(report: dict, seconds: float) -> dict:
    accuracy, latency = report["accuracy"], report["latency"]
    return {
        "network": "compressed",
        "accuracy_dense": round(accuracy["dense"]["value"], 4),
        "accuracy": round(accuracy["shipped"]["value"], 4),
        "accuracy_pruned": round(accuracy["pruned"]["value"], 4),
        "accuracy_compensated": round(accuracy["compensated"]["value"], 4),
        "points_lost": round(accuracy["drop"]["value"], 2),
        "points_lost_interval": [round(accuracy["drop"][k], 2) for k in ("low", "high")],
        "macs_factor": round(report["macs"]["dense"] / report["macs"]["shipped"], 2),
        "p50_ratio": round(latency["ratio"], 3),
        "p50_ratio_interval": [round(latency[k], 3) for k in ("ratio_low", "ratio_high")],
        "seconds": round(seconds, 1),
    }


def _scratch(report: dict, net: str, epochs: int, folder: Path) -> dict:
    """Train the pruned widths from random weights with the example's own recipe."""
    shape, out = folder / "shape.json", folder / "scratch.safetensors"
    shape.write_text(json.dumps({row["name"]: row["after"] for row in report["layers"]}))
    began = time.monotonic()
    command = [
        sys.executable, "-m", "examples.fashion", "--net", net, "--from-scratch", str(shape),
        "--epochs", str(epochs), "--out", str(out),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    facts = json.loads(out.with_suffix(".json").read_text())
    return {
        "network": f"same shape from scratch, {epochs} epochs",
        "accuracy": round(facts["test_accuracy"], 4),
        "points_lost": round(100 * (report["accuracy"]["dense"]["value"] - facts["test_accuracy"]), 2),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    main()
