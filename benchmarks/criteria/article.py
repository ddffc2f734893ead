"""The starting article's experiment on real data: a 100-100-10 network, its scores and its pruning.

    python -m benchmarks.criteria.article

The article reports (on a data set that it does not name): ReLU network 100-100-10, Adam, learning rate
0.01, batch 64, θ = 0.1, ten epochs, loss 0.696 → 0.348, 92.00% training accuracy (90% before), training
time 1000 s → 800 s, the ten smallest connections of fc1 pruned. Here the same network is trained on
Fashion-MNIST at 10 × 10 pixels (4 pixels cropped from each side, then averaged 2 × 2). Rows, each over the
same seeds:

    dense        ten epochs, nothing pruned
    article      as the article: after each epoch the ten connections of fc1 with the smallest
                 L_ij = (1−θ)·I(X_ij;Y) + θ·H(X_ij) are set to zero, and stay so
    bottleneck   the same, trained with cross-entropy + β·H(T|Y) of noisy hidden units, β = 0.1; the noise
                 is a tenth of each unit's standard deviation before training
    bottleneck-minus    the same with θ = −0.1 in the score, the sign that corresponds to β > 0 in training
    half         half of fc1's connections go, in equal parts after epochs 1 to 9
    half-random, half-magnitude    the same number, chosen at random or by the smallest |w|
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import recording
from edgeprune import information
from edgeprune.recovery.bottleneck import NOISE, gaussian_conditional_entropy

RESULTS = recording.RESULTS / "article.json"
THETA, BETA, RATE, BATCH, EPOCHS = 0.1, 0.1, 0.01, 64, 10
STEP, SCORED = 0.1, 2048
ROWS = {  # connections of fc1 to prune in all after the last epoch, how, β and θ
    "dense": (0, "none", 0.0, THETA),
    "article": (10 * EPOCHS, "score", 0.0, THETA),
    "bottleneck": (10 * EPOCHS, "score", BETA, THETA),
    "bottleneck-minus": (10 * EPOCHS, "score", BETA, -THETA),
    "half": (5000, "score", 0.0, THETA),
    "half-random": (5000, "random", 0.0, THETA),
    "half-magnitude": (5000, "magnitude", 0.0, THETA),
}


class Article(nn.Module):
    """100-100-10 with a ReLU, as in the article."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(100, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits, and the hidden activations that they were computed from; noise by unit, (100,)."""
        hidden = torch.relu(self.fc1(x))
        if noise is not None:
            hidden = hidden + noise * torch.randn_like(hidden)
        return self.fc2(hidden), hidden


def small(x: Tensor) -> Tensor:
    """28 × 28 to 100 numbers: crop 4 pixels of each side, average 2 × 2."""
    return F.avg_pool2d(x[:, :, 4:24, 4:24], 2).flatten(1)


def scores(net: Article, x: Tensor, y: Tensor, theta: float) -> np.ndarray:
    """L_ij of every connection of fc1, (1−θ)·I + θ·H in nats, at each unit's resolution."""
    weight = net.fc1.weight.detach()
    steps = (STEP * (x @ weight.T).std(0)).clamp_min(1e-12)
    return information.edge_information(
        x.numpy(), y.numpy(), weight.numpy(), steps.numpy(), theta=theta, classes=10
    )


def train(row: str, seed: int, train_part: Any, test_part: Any) -> dict[str, Any]:
    """One network; losses, accuracies in percent, connections pruned and seconds of training."""
    total, how, beta, theta = ROWS[row]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Article()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    alive = torch.ones_like(net.fc1.weight)
    (x, y), losses, scoring, began = train_part, [], 0.0, time.process_time()
    noise = NOISE * net(x[:SCORED])[1].detach().std(0).clamp_min(1e-6) if beta else None
    for epoch in range(EPOCHS):
        order, loss_sum = torch.from_numpy(rng.permutation(len(y))), 0.0
        for at in order.split(BATCH):
            out, hidden = net(x[at], noise)
            loss = F.cross_entropy(out, y[at])
            loss_sum += float(loss.detach()) * len(at)
            if noise is not None:
                loss = loss + beta * gaussian_conditional_entropy(hidden, y[at], noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():  # Adam's momentum would move what was pruned
                net.fc1.weight.mul_(alive)
        losses.append(loss_sum / len(y))
        if total:
            start = time.process_time()
            _prune(net, alive, epoch, total, how, theta, (x[:SCORED], y[:SCORED]), rng)
            scoring += time.process_time() - start
    return {
        "loss": losses,
        "train": _accuracy(net, train_part),
        "test": _accuracy(net, test_part),
        "pruned": int((alive == 0).sum()),
        "cpu_seconds": round(time.process_time() - began, 2),
        "scoring_seconds": round(scoring, 2),
    }


def _prune(
    net: Article,
    alive: Tensor,
    epoch: int,
    total: int,
    how: str,
    theta: float,
    sample: Any,
    rng: np.random.Generator,
) -> None:
    """Prune up to this epoch's part of the total; pruned connections stay pruned."""
    epochs = EPOCHS if total == 10 * EPOCHS else EPOCHS - 1
    wanted = min(total, round(total * (epoch + 1) / epochs)) - int((alive == 0).sum())
    if wanted <= 0:
        return
    if how == "score":
        found = scores(net, *sample, theta)
    elif how == "magnitude":
        found = net.fc1.weight.detach().abs().numpy()
    else:
        found = rng.random(tuple(alive.shape))
    found = np.where(alive.numpy() > 0, found, np.inf).reshape(-1)
    gone = np.argsort(found, kind="stable")[:wanted]
    with torch.no_grad():
        alive.view(-1)[torch.from_numpy(gone)] = 0.0
        net.fc1.weight.mul_(alive)


def _accuracy(net: Article, part: Any) -> float:
    with torch.no_grad():
        return 100 * float((net(part[0])[0].argmax(1) == part[1]).float().mean())


def table(found: dict[str, Any]) -> str:
    """Means ± sd over seeds beside what the article says."""
    lines = [
        "row           loss first → last   train %       test %        pruned  CPU s (scoring)",
        "the article   0.696 → 0.348       90 → 92.00    not given        10   1000 → 800",
    ]
    for row, seeds in sorted(found["cells"].items()):
        cells = [seeds[s] for s in sorted(seeds)]

        def spread(name: str, cells: list[Any] = cells) -> str:
            values = [c[name] for c in cells]
            return f"{np.mean(values):.2f}±{np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"

        first, last = (np.mean([c["loss"][i] for c in cells]) for i in (0, -1))
        seconds, scoring = (np.mean([c[k] for c in cells]) for k in ("cpu_seconds", "scoring_seconds"))
        lines.append(
            f"{row:13} {first:.3f} → {last:.3f}       {spread('train'):13} {spread('test'):13}"
            f" {cells[0]['pruned']:6d}  {seconds:.1f} ({scoring:.1f})"
        )
    return "\n".join(lines)


def write(path: Path, found: dict[str, Any]) -> None:
    """A row per kind of training, means over seeds; every seed with its losses by epoch in the cells."""
    rows = []
    for name, seeds in sorted(found["cells"].items()):
        cells = list(seeds.values())
        means = {k: round(float(np.mean([c[k] for c in cells])), 4) for k in ("train", "test", "cpu_seconds")}
        rows.append({"row": name, "seeds": sorted(seeds), "pruned": cells[0]["pruned"], **means})
    rest = {k: v for k, v in found.items() if k not in ("benchmark", "rows", "cells")}
    recording.write_result(path, {"benchmark": "article", **rest, "rows": rows}, {"cells": found["cells"]})


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, write each network's numbers as they come, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria.article", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rows", type=lambda s: s.split(","), default=[*ROWS])
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=0, help="train on the first N images only")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if not {*options.rows} <= {*ROWS}:
        parser.error(f"rows are {', '.join(ROWS)}")
    found = recording.read_result(options.out) if options.out.exists() else {"cells": {}}
    if not options.table:
        from examples import fashion

        torch.set_num_threads(1)
        parts = fashion.load(fashion.DATA, options.samples)
        train_part, test_part = ((small(p.x), p.y) for p in (parts.train, parts.test))
        found["settings"] = {
            "theta": THETA,
            "beta": BETA,
            "step": STEP,
            "samples": len(train_part[1]),
            "threads": 1,
        }
        for seed in options.seeds:
            for row in options.rows:
                done = found["cells"].setdefault(row, {})
                if str(seed) in done:
                    continue
                done[str(seed)] = train(row, seed, train_part, test_part)
                write(options.out, found | recording.provenance())
                print(f"{row} seed {seed}: test {done[str(seed)]['test']:.2f}", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
