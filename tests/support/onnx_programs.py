"""Tiny modules and their exported programs, with references that run the module itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from edgeprune.export.export import export_onnx

Arrays = tuple[np.ndarray, ...]


class Cnn(torch.nn.Module):
    """1×8×8 images → 5 logits, through a folded batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)
        self.head = torch.nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.head(y.flatten(1))


class TokensAndFeatures(torch.nn.Module):
    """int64 tokens and float features in; a float score and an int64 choice out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 4)
        self.head = torch.nn.Linear(7, 3)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.head(torch.cat([self.embed(tokens).mean(1), features], dim=1))
        return scores, scores.argmax(1)


class Still(torch.nn.Module):
    """An output that ignores its input but for a share far below the tolerance."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(1.0, 5.0) + 1e-9 * x


def export(
    module: torch.nn.Module, example: Sequence[torch.Tensor], *, dynamic: bool
) -> torch.export.ExportedProgram:
    """torch.export, with a symbolic batch for every input where asked."""
    shapes = tuple({0: torch.export.Dim("n")} for _ in example) if dynamic else None
    return torch.export.export(module.eval(), tuple(example), dynamic_shapes=shapes)


def reference(module: torch.nn.Module) -> Callable[[Arrays], Arrays]:
    """The module as a function of arrays."""

    def run(call: Arrays) -> Arrays:
        with torch.no_grad():
            out = module(*(torch.from_numpy(a) for a in call))
        return tuple(o.numpy() for o in (out if isinstance(out, tuple) else (out,)))

    return run


@cache
def cnn(*, dynamic: bool) -> tuple[Cnn, torch.export.ExportedProgram]:
    """A seeded Cnn with non-trivial batch norm statistics, and its program (example batch 2); shared."""
    torch.manual_seed(0)
    module = Cnn()
    module.norm.running_mean.uniform_(-0.5, 0.5)
    module.norm.running_var.uniform_(0.5, 2.0)
    return module, export(module, (torch.randn(2, 1, 8, 8),), dynamic=dynamic)


def images(*batches: int, seed: int = 1) -> list[Arrays]:
    """Calls of random images with the given batch sizes."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((n, 1, 8, 8)).astype(np.float32),) for n in batches]


def cnn_file(folder: Path, *, external: bool = False) -> Path:
    """The dynamic Cnn as m.onnx in `folder`, exported once for all tests."""
    for name, content in _exported(external).items():
        (folder / name).write_bytes(content)
    return folder / "m.onnx"


@cache
def _exported(external: bool) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        limit = {"external_above": 0} if external else {}
        artifact = export_onnx(cnn(dynamic=True)[1], Path(folder) / "m.onnx", **limit)
        return {name: (Path(folder) / name).read_bytes() for name, _, _ in artifact.files}
