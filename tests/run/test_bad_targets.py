"""Targets, boxes, masks and metrics that cannot be the model's are refused before it is traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
import edgeprune.run.open_trace
from edgeprune.errors import DataError

X = np.random.default_rng(0).normal(size=(60, 3, 8, 8)).astype(np.float32)


class Boxes(nn.Module):
    """Ten boxes with two scores: centre and size in pixels of an 8×8 image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 60, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).view(-1, 6, 10).sigmoid()
        return torch.cat([y[:, :4] * 8, y[:, 4:]], 1)


class Masks(nn.Module):
    """Three classes at half of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Kinds(nn.Module):
    """Four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def objects(box: list[float], label: int = 0) -> list[dict[str, Any]]:
    """One good box per image, but for image 3."""
    good = {"boxes": np.array([[1, 1, 6, 6]], np.float32), "labels": np.array([0])}
    return [
        {"boxes": np.array([box], np.float32), "labels": np.array([label])} if i == 3 else good
        for i in range(60)
    ]


LABELS = np.arange(60) % 4
HALF = np.random.default_rng(1).integers(0, 3, (60, 4, 4))
HOLE = np.where(np.arange(60) == 5, np.nan, np.arange(60.0))
SIZED = "detection:size=8"


def nothing(outputs: np.ndarray, targets: np.ndarray) -> None:
    """A metric that forgets its return."""


@pytest.mark.parametrize(
    ("net", "y", "options", "text"),
    [
        (Kinds, LABELS.reshape(30, 2).repeat(2, 0), {"task": "classification"}, "targets are 60×2"),
        (Boxes, objects([1, 1, 9.5, 6]), {"task": SIZED}, "sample 3 has a box outside the image of 8×8"),
        (Boxes, objects([4, 4, 4, 6]), {"task": SIZED}, "sample 3 has a box of no area"),
        (Boxes, objects([1, 1, 6, 6], label=2), {"task": SIZED}, "sample 3 has a box of class 2"),
        (Kinds, np.where(np.arange(60) == 7, 4, LABELS), {}, "label 4, but the model has 4 outputs"),
        (Masks, HALF.repeat(2, 1).repeat(2, 2), {"task": "segmentation"}, "masks are 8×8, the model"),
        (Kinds, HOLE, {"task": "regression"}, "the target of sample 5 holds NaN"),
        (Kinds, LABELS, {"metrics": [f"{__name__}:nothing"]}, "returned nothing; return one number"),
    ],
    ids=["shape", "outside", "no area", "class of a box", "class", "mask size", "NaN", "metric"],
)  # fmt: skip
def test_what_cannot_be_the_models_is_one_sentence_before_tracing(
    net, y, options, text, tmp_path, monkeypatch
):
    """Each is refused by name; torch.export has not been called by then, and no folder is left."""
    traced: list[Any] = []
    monkeypatch.setattr(edgeprune.run.open_trace, "trace", lambda *args: traced.append(args))
    with pytest.raises(DataError, match=text) as refused:
        edgeprune.compress(net(), (X, y), output=tmp_path / "run", **options)
    assert "\n" not in refused.value.message
    assert not traced
    assert not (tmp_path / "run").exists()
