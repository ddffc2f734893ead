"""The project's first table, measured again: the same share of channels kept in every layer.

    python -m benchmarks.criteria.shares

The first table (one seed) is of a CNN on Fashion-MNIST with widths 32-32-64-64-128 and 93.0% accuracy:
batch norm recalibrated, no fine-tuning, without and with closed-form compensation. Its network was not
kept; the same widths are trained here once with the examples' recipe (five epochs, one thread) into .cache.
Cells are those of the bake-off, with allocation `channels`; a run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import json

import torch
from safetensors.torch import load_file

from benchmarks.criteria import bakeoff, tables
from benchmarks.criteria.cells import Bench, load_parts
from benchmarks.recording import ROOT
from examples import fashion, nets

FOLDER = ROOT / ".cache" / "shares"
WIDTHS = {f"layers.{i}.conv": width for i, width in enumerate((32, 32, 64, 64, 128))}
CRITERIA = ("ib-gauss", "random", "l2", "taylor", "ib-jmi", "ib-edge")
SHARES = (0.7, 0.5, 0.3, 0.2)


def trained() -> torch.nn.Module:
    """The network of the table's widths, trained where it has not been."""
    weights = FOLDER / "plain.safetensors"
    if not weights.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        shape = FOLDER / "shape.json"
        shape.write_text(json.dumps(WIDTHS))
        options = ["--from-scratch", str(shape), "--out", str(weights), "--epochs", "5", "--threads", "1"]
        fashion.main(["--net", "fashion_plain", *options])
    net = nets.fashion_plain(WIDTHS)
    net.load_state_dict(load_file(weights))
    return net.eval()


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.shares", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = bakeoff.RESULTS / "shares.json"
    grid = argparse.Namespace(
        criteria=CRITERIA, seeds=options.seeds, ratios=SHARES, allocation="channels",
        recovery=["recalibrate", "compensate"], calibration=1024,
    )  # fmt: skip
    bakeoff.fill(
        path, grid, lambda: Bench(trained(), load_parts("fashion_plain"), 1024, 0), "32-32-64-64-128"
    )
    print(tables.table(bakeoff.read(path)))


if __name__ == "__main__":
    main()
