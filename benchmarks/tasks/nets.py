# mypy: allow-subclassing-any
"""The networks of bench-tasks, one per task, as `--model benchmarks.tasks.nets:NAME` builds them.

They are small on purpose (below 2 MB) and wider than their task needs, as trained networks are. Their data
are in `datasets`, their training in `train_small`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks.datasets import HORIZON, PAST, VOCABULARY


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Images(nn.Module):
    """Four convolutions and a mean over positions, for grey images of any size."""

    def __init__(self, outputs: int, widths: tuple[int, int, int, int] = (16, 48, 80, 80)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.features = nn.Sequential(block(1, a), block(a, b, 2), block(b, c, 2), block(c, d))
        self.head = nn.Linear(d, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


def binary() -> nn.Module:
    """(N, 1, 28, 28) -> one logit: is it a shirt."""
    return Images(1)


def multilabel() -> nn.Module:
    """(N, 1, 56, 56) -> ten logits: which garments are on it."""
    return Images(10, (16, 32, 64, 64))


class Flat(nn.Module):
    """Convolutions whose positions matter: for where and how something lies."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(block(1, 24), block(24, 48, 2), block(48, 64, 2), block(64, 64, 2))
        self.hidden = nn.Linear(64 * 16, 96)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.hidden(self.features(x).flatten(1)))


class Regressor(nn.Module):
    """(N, 1, 28, 28) -> angle, scale and shift of a garment."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Flat()
        self.head = nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def regression() -> nn.Module:
    """The regressor."""
    return Regressor()


class TwoHeads(nn.Module):
    """(N, 1, 28, 28) -> ten logits, and the angle."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Flat()
        self.kind = nn.Linear(96, 10)
        self.turn = nn.Sequential(nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.kind(features), self.turn(features)


def two_outputs() -> nn.Module:
    """The network with two outputs."""
    return TwoHeads()


class UNet(nn.Module):
    """(N, 1, 64, 64) -> (N, 6, 64, 64): three levels, skips by concatenation."""

    def __init__(self, a: int = 12, b: int = 24, c: int = 40) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Sequential(block(i, o), block(o, o)) for i, o in ((1, a), (a, b), (b, c))
        )
        self.bottom = nn.Sequential(block(c, c), block(c, c))
        self.up3 = block(c + c, c)
        self.up2 = block(c + b, b)
        self.up1 = block(b + a, a)
        self.head = nn.Conv2d(a, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(F.max_pool2d(one, 2))
        three = self.third(F.max_pool2d(two, 2))
        y = self.bottom(F.max_pool2d(three, 2))
        y = self.up3(torch.cat([F.interpolate(y, scale_factor=2.0), three], 1))
        y = self.up2(torch.cat([F.interpolate(y, scale_factor=2.0), two], 1))
        y = self.up1(torch.cat([F.interpolate(y, scale_factor=2.0), one], 1))
        return self.head(y)  # type: ignore[no-any-return]


def segmentation() -> nn.Module:
    """The U-Net."""
    return UNet()


class Tagger(nn.Module):
    """(N, L) word numbers -> (N, L, 3): convolutions along the sentence."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 48)
        self.layers = nn.Sequential(
            nn.Conv1d(48, width, 3, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(width, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(words).transpose(1, 2)).transpose(1, 2))  # type: ignore[no-any-return]


def tokens() -> nn.Module:
    """The tagger."""
    return Tagger()


class Forecaster(nn.Module):
    """(N, 64, 6) past -> (N, 16, 6) future, as a change of the last value."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(6, width, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(width, width, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(width, width, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Linear(width * PAST // 8, 160)
        self.head = nn.Linear(160, HORIZON * 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.hidden(self.layers(x.transpose(1, 2)).flatten(1)))
        return x[:, -1:] + self.head(y).view(-1, HORIZON, 6)


def forecasting() -> nn.Module:
    """The forecaster."""
    return Forecaster()


class Reader(nn.Module):
    """(N, 1, 28, 140) -> (N, 35, 11): a line of garments read from left to right; class 0 is the blank."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(1, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 48),
            block(48, 48), nn.MaxPool2d((7, 1)),
        )  # fmt: skip
        self.along = nn.Conv1d(48, 64, 5, padding=2)
        self.head = nn.Linear(64, 11)

    def forward(self, x: Tensor) -> Tensor:
        line = F.relu(self.along(self.features(x).squeeze(2)))
        return self.head(line.transpose(1, 2))  # type: ignore[no-any-return]


def ctc() -> nn.Module:
    """The reader of lines."""
    return Reader()


def yolo11n() -> nn.Module:
    """Ultralytics' YOLO11 nano for the canvases' ten classes."""
    from benchmarks.tasks.train_yolo import build_yolo

    return build_yolo("yolo11n")
