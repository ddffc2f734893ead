"""One training loop, one evaluation and one checkpoint format for every example.

`fit` trains under a one-cycle schedule and leaves the weights of the best epoch on
the validation part in the model (or of the last epoch, where that part is too small
to choose by: recipe's `choose`); the test part is read once, by `evaluate`, and
decides nothing. `save` writes safetensors, and beside it a JSON file with the
command, versions, seed, time and accuracies. Same seed, threads and versions: same
weights, unless `minutes` shortened the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.errors import DataError, EdgepruneError, OutputError

Augment = Callable[[Tensor, torch.Generator], Tensor]


class Part(NamedTuple):
    """Inputs, first dimension samples, and int64 labels of equal length."""

    x: Tensor
    y: Tensor


class Parts(NamedTuple):
    """Disjoint samples: what is fitted, what chooses the epoch, what is only reported."""

    train: Part
    validation: Part
    test: Part


@dataclass(frozen=True)
class Recipe:
    """How long and how hard to train; `lr` is the schedule's peak, `minutes` 0 means no limit.

    `choose` is "best" (epoch on the validation part) or "last".
    """

    epochs: int = 16
    seed: int = 0
    batch: int = 128
    optimizer: str = "sgd"
    lr: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    warmup: float = 0.15
    minutes: float = 0.0
    threads: int = 2
    choose: str = "best"


@dataclass(frozen=True)
class Fitted:
    """What a run did: epochs begun, wall-clock seconds, the chosen epoch and its validation accuracy."""

    epochs: int
    seconds: float
    chosen_epoch: int
    validation_accuracy: float


def fit(model: nn.Module, parts: Parts, recipe: Recipe, augment: Augment | None = None) -> Fitted:
    """Train `model` in place; progress goes to stderr.

    Raises:
        DataError: fewer training samples than one batch.
    """
    train = parts.train
    if len(train.y) < recipe.batch:
        raise DataError(f"{len(train.y)} training samples do not fill a batch of {recipe.batch}")
    torch.set_num_threads(recipe.threads)
    generator = torch.Generator().manual_seed(recipe.seed)
    if train.x.ndim == 4:
        model.to(memory_format=torch.channels_last)  # some 1.5 times faster here
    optimizer = _optimizer(model, recipe)
    steps = len(train.y) // recipe.batch
    start, chosen = time.monotonic(), Fitted(0, 0.0, 0, -1.0)
    kept: dict[str, Tensor] = {}
    epoch, spent = 0, 0.0
    while spent < 1.0:
        model.train()
        order, loss_sum = torch.randperm(len(train.y), generator=generator), 0.0
        for step in range(steps):
            spent = _progress(recipe, epoch + step / steps, time.monotonic() - start)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * one_cycle(spent, recipe.warmup)
            rows = order[step * recipe.batch : (step + 1) * recipe.batch]
            x = train.x[rows]
            x = augment(x, generator) if augment else x
            x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
            loss = F.cross_entropy(model(x), train.y[rows], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            loss_sum += float(loss.detach())
        epoch += 1
        seconds = time.monotonic() - start
        spent = _progress(recipe, epoch, seconds)
        accuracy = evaluate(model, parts.validation)
        print(
            f"epoch {epoch:3d}  loss {loss_sum / steps:.4f}  validation {accuracy:.4f}  {seconds:6.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if (
            recipe.choose == "last" or accuracy >= chosen.validation_accuracy
        ):  # of equals the later, annealed one
            chosen = Fitted(epoch, seconds, epoch, accuracy)
            kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    model.to(memory_format=torch.contiguous_format)
    return Fitted(epoch, time.monotonic() - start, chosen.chosen_epoch, chosen.validation_accuracy)


def one_cycle(spent: float, warmup: float) -> float:
    """Share of the peak learning rate after the share `spent` of the run: up in a line, down by cosine."""
    if spent < warmup:
        return 0.1 + 0.9 * spent / warmup
    return max(1e-3, 0.5 * (1 + math.cos(math.pi * (spent - warmup) / (1 - warmup))))


def evaluate(model: nn.Module, part: Part, batch: int = 500) -> float:
    """Share of `part` that the model classifies rightly, in 0..1."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for x, y in zip(part.x.split(batch), part.y.split(batch), strict=True):
            right += int((model(x).argmax(1) == y).sum())
    return right / len(part.y)


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass of the single sample `x` (convolutions and matrix products)."""
    model.eval()
    # the counter does not know the fused attention of CPUs; spelled out, its two products count
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return int(counter.get_total_flops()) // 2


def save(model: nn.Module, path: Path, facts: dict[str, Any]) -> Path:
    """Write the state dict to `path` and `facts`, with the versions, to the JSON file beside it.

    Raises:
        OutputError: the folder cannot be written.
    """
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    blob = safetensors.torch.save(state)
    facts = {
        **facts,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "processor": _processor(),
    }
    write(path, blob)
    write(path.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())
    return path


def facts_of(module: str, recipe: Recipe, fitted: Fitted, model: nn.Module, parts: Parts) -> dict[str, Any]:
    """The account of a run as its JSON file holds it; this is where the test part is read."""
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "test_accuracy": evaluate(model, parts.test),
        **asdict(fitted),
        "multiply_adds": multiply_adds(model, parts.test.x[:1]),
        "samples": {name: len(part.y) for name, part in parts._asdict().items()},
        "recipe": asdict(recipe),
    }


def summary(facts: dict[str, Any], path: Path) -> str:
    """The line that a run ends with."""
    millions = facts["multiply_adds"] / 1e6
    return f"test accuracy {facts['test_accuracy']:.4f}; {millions:.2f} million multiply-adds; {path}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every example takes; None leaves the network's own recipe as it is."""
    parser.add_argument("--out", type=Path, help="default: examples/checkpoints/NET.safetensors")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, help="finish the schedule within this time")
    parser.add_argument("--threads", type=int)


def with_options(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe, with what `add_options` read from the command line in its place."""
    given = {name: getattr(options, name) for name in ("epochs", "lr", "seed", "minutes", "threads")}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def fail(error: EdgepruneError) -> SystemExit:
    """Say what went wrong on stderr; the exit code to raise."""
    print(f"error: {error.message}", *([f"tip: {error.tip}"] if error.tip else []), sep="\n", file=sys.stderr)
    return SystemExit(error.exit_code)


def write(path: Path, blob: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(blob)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}", tip="choose another --out") from error


def _progress(recipe: Recipe, epochs: float, seconds: float) -> float:
    limit = seconds / (60 * recipe.minutes) if recipe.minutes else 0.0
    return min(1.0, max(epochs / recipe.epochs, limit))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decay = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]  # norms and biases are not shrunk
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
