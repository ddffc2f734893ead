"""Train the small networks of bench-tasks and write their checkpoints.

    python -m benchmarks.tasks.train_small              # all of them
    python -m benchmarks.tasks.train_small ctc tokens

The loss is the task's own (`edgeprune.tasks`), the data are read as `edgeprune compress` reads them, the last
epoch is kept. NAME.safetensors goes to `checkpoints/`, beside it NAME.json with the measure on the test part.
Elsewhere: networks (nets), data (datasets), the rows of the benchmark (run).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.recording import ROOT, versions
from benchmarks.tasks import datasets, nets
from edgeprune.data import open_data
from edgeprune.data.dataset import Dataset, iterate
from edgeprune.tasks.base import Task
from edgeprune.tasks.choose import choose_task
from examples.training import one_cycle

CHECKPOINTS = ROOT / "benchmarks" / "tasks" / "checkpoints"
EPOCHS = {
    "tokens": 5, "forecasting": 10, "two_outputs": 9, "regression": 9, "binary": 6, "ctc": 10,
    "multilabel": 8, "segmentation": 12,
}  # fmt: skip
BATCH = {"segmentation": 32}
RATE = {"tokens": 3e-3, "segmentation": 4e-3}


def answers(model: nn.Module, dataset: Dataset, indices: Any) -> tuple[np.ndarray, ...]:
    """All outputs of `model` for these samples, as arrays."""
    model.eval()
    rows: list[tuple[np.ndarray, ...]] = []
    with torch.inference_mode():
        for inputs, _ in iterate(dataset, indices, 200):
            out = model(*(torch.from_numpy(x) for x in inputs))
            rows.append(tuple(y.numpy() for y in (out if isinstance(out, tuple) else (out,))))
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


def fit(
    model: nn.Module, dataset: Dataset, task: Task, train: Any, epochs: int, batch: int, rate: float
) -> None:
    """Train in place: AdamW under a one-cycle schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    steps, done = epochs * (len(train) // batch), 0
    for epoch in range(epochs):
        model.train()
        losses = []
        for inputs, targets in iterate(dataset, train, batch, shuffle_seed=epoch):
            for group in optimizer.param_groups:
                group["lr"] = rate * one_cycle(min(1.0, done / steps), 0.15)
            out = model(*(torch.from_numpy(x) for x in inputs))
            loss = task.loss(out if isinstance(out, tuple) else (out,), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            done += 1
        print(f"  epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)


def train(name: str) -> dict[str, Any]:
    """Train one network and write its files; gives the facts."""
    began = time.monotonic()
    torch.manual_seed(0)
    model: nn.Module = getattr(nets, name)()
    dataset = open_data(f"benchmarks.tasks.datasets:{name}", input_shapes=[SHAPES[name]])
    kept = np.concatenate([dataset.validation_indices, dataset.test_indices])
    rows = np.setdiff1d(np.arange(len(dataset)), kept)
    some = rows[np.linspace(0, len(rows) - 1, 64).astype(int)]
    first = answers(model, dataset, some)
    task = choose_task(name if name in TASKS else None, (), first, _take(dataset, some), name).task
    fit(model, dataset, task, rows, EPOCHS[name], BATCH.get(name, 64), RATE.get(name, 2e-3))
    test = dataset.test_indices
    score = task.score(answers(model, dataset, test), _take(dataset, test))
    CHECKPOINTS.mkdir(exist_ok=True)
    path = CHECKPOINTS / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    facts = {
        "command": f"python -m benchmarks.tasks.train_small {name}",
        "task": task.name,
        "measure": task.measure.name,
        "test": round(float(score.value), 4),
        "epochs": EPOCHS[name],
        "samples": {"train": len(rows), "test": len(test)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.monotonic() - began),
        "versions": versions(("torch", "numpy")),
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


SHAPES = {
    "binary": (1, 28, 28), "multilabel": (1, 56, 56), "regression": (1, 28, 28), "two_outputs": (1, 28, 28),
    "segmentation": (1, 64, 64), "ctc": (1, 28, 140), "tokens": (datasets.MAX_WORDS,),
    "forecasting": (datasets.PAST, 6),
}  # fmt: skip
TASKS = tuple(n for n in SHAPES if n != "two_outputs")  # its two tasks are inferred from its targets


def _take(dataset: Dataset, indices: Any) -> Any:
    from edgeprune.data.targets import take

    return take(dataset.targets, np.asarray(indices))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks.train_small", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", default=list(EPOCHS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.names:
        print(name, train(name), flush=True)


if __name__ == "__main__":
    main()
