"""LeNet-300-100 on Fashion-MNIST: `vib` and the other criteria, with inputs pinned and with inputs pruned.

    python -m benchmarks.criteria.lenet
    python -m benchmarks.criteria.lenet --prune-inputs
    python -m benchmarks.criteria.lenet --table

VIBNet (Dai et al., ICML 2018) reports 784-300-100 → 97-71-33 at 1.6% error *on MNIST*, with gates and
weights trained together. This is another data set, and the weights are frozen while the gates are trained.
`--prune-inputs` is the option of `edgeprune prune`: pixels are removed as channels are. This command trains
the dense network (Adam, 6 epochs, one thread). Recoveries and cells are those of the bake-off; the
fine-tune has 10 epochs, as the network is small.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.criteria import bakeoff, tables
from benchmarks.criteria.cells import Bench, load_parts
from edgeprune.graph.features import kept_features
from edgeprune.surgery.cut import cut

RATIOS = (0.25, 0.1, 0.05, 0.036)  # 97-71-33 keeps 3.6% of the multiply-adds of 784-300-100-10
EPOCHS, TUNING, RATE, BATCH = 6, 10, 1e-3, 128
PIXELS = 784


class LeNet(nn.Module):
    """784-300-100-10 with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(PIXELS, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


def trained(train: tuple[np.ndarray, np.ndarray]) -> LeNet:
    """The dense network."""
    torch.manual_seed(0)
    net = LeNet()
    x, y = (torch.from_numpy(a) for a in train)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - epoch / EPOCHS)
        for at in torch.randperm(len(y), generator=generator).split(BATCH):
            loss = F.cross_entropy(net(x[at]), y[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def shapes(bench: Bench, seed: int = 0) -> dict[str, list[int]]:
    """Kept inputs and widths at each size; the same for every criterion, since every group gives the same."""
    found = {}
    for ratio in RATIOS:
        small = cut(bench.trace, bench.couplings, bench.removal("random", ratio, seed, "uniform")).graph
        pixels = [len(entry["kept"]) for entry in kept_features(small)] or [PIXELS]
        found[f"{ratio:.3f}"] = [*pixels, len(small.fc1.weight), len(small.fc2.weight)]
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, or print the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.lenet", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--prune-inputs", action="store_true", help="pixels may be removed too")
    parser.add_argument("--criteria", type=lambda s: s.split(","), default=[*bakeoff.CRITERIA])
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args(arguments)
    name = "lenet_inputs" if options.prune_inputs else "lenet"
    path = bakeoff.RESULTS / f"{name}.json"
    torch.set_num_threads(1)
    if not options.table:
        parts = load_parts("fashion_resnet")
        net = trained(parts[0])
        bench = Bench(net, parts, 1024, TUNING, prune_inputs=options.prune_inputs)
        grid = argparse.Namespace(
            criteria=options.criteria, seeds=options.seeds, ratios=RATIOS, allocation="uniform",
            recovery=["compensate", "finetune"], calibration=1024,
        )  # fmt: skip
        bakeoff.fill(path, grid, lambda: bench, name)
        found = bakeoff.read(path) | {"shapes": shapes(bench)}
        bakeoff.write(path, found)
    found: dict[str, Any] = bakeoff.read(path)
    print(tables.table(found), json.dumps(found.get("shapes", {})), sep="\n")


if __name__ == "__main__":
    main()
