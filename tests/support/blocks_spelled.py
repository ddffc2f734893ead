"""Random blocks of operators as other exporters spell them: core ATen overloads, called by name.

A program that was lowered before it was saved holds `_softmax` where a module says `softmax`. Same
protocol as blocks.py, blocks_tokens.py and blocks_volumes.py; importing this module adds them.
"""

from __future__ import annotations

import blocks
import blocks_tokens
import blocks_volumes
import torch
from blocks import Block
from torch import nn
from torch.nn import functional as F

aten = torch.ops.aten


def halved(pool, up):
    """Pooled to half the size and brought back by an operator that takes sizes."""

    def spelled(y, p):
        size = list(y.shape[2:])
        return y - up(pool(y, [n // 2 for n in size]), size)

    return spelled


def smaller(up, *more):
    """Brought to other sizes and back by a resize that takes sizes."""

    def spelled(y, p):
        size = list(y.shape[2:])
        return up(up(y, [n + 1 for n in size], *more), size, *more)

    return spelled


def padded(pad):
    """Padded at both ends of every position, then averaged over what came in."""

    def spelled(y, p):
        rank = y.dim() - 2
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
        return pool(pad(y, [1, 1] * rank), 3, 1)

    return spelled


def sampled(y, p):
    at = F.affine_grid(p.turn.expand(y.shape[0], 2, 3), list(y.shape), align_corners=False)
    return aten.grid_sampler_2d(y, at, 0, 0, False)


def copied(make):
    """An operand's values written into a tensor that was only made."""
    return lambda y, p: aten.copy.default(make(y), y)


IMAGES = {
    "pool": halved(aten._adaptive_avg_pool2d.default, aten.upsample_nearest2d.default),
    "bilinear": smaller(aten.upsample_bilinear2d.default, False),
    "bicubic": smaller(aten.upsample_bicubic2d.default, True),
    "bilinear_aa": smaller(aten._upsample_bilinear2d_aa.default, False),
    "bicubic_aa": smaller(aten._upsample_bicubic2d_aa.default, False),
    "exact": smaller(aten._upsample_nearest_exact2d.default),
    "reflection": padded(aten.reflection_pad2d.default),
    "replication": padded(aten.replication_pad2d.default),
    "constant": padded(lambda y, amounts: aten.constant_pad_nd.default(y, amounts, 0.5)),
    "constant_channels": lambda y, p: aten.constant_pad_nd.default(y, [0, 0, 0, 0, 1, 0], 0.5)[:, 1:],
    "sample": sampled,
    "slopes": lambda y, p: aten._prelu_kernel.default(y, p.last.view(1, -1, 1, 1)),
    "copy": copied(torch.empty_like),
    "copy_new": copied(lambda y: y.new_empty(y.shape)),
    "copy_empty": copied(lambda y: torch.empty(y.shape, dtype=y.dtype)),
    "new_full": lambda y, p: torch.cat([y, y.new_full((y.shape[0], 2, *y.shape[2:]), 0.5)], 1)[:, 2:],
    "new_ones": lambda y, p: y * y.new_ones(y.shape) + y.new_ones(y.shape[0], 1, 1, 1),
    "full": lambda y, p: y * torch.full((y.shape[0], y.shape[1], 1, 1), 0.5, dtype=y.dtype),
    "noise": lambda y, p: y + 0 * torch.rand_like(y) - 0 * torch.randn_like(y),
    "squeeze": lambda y, p: torch.tanh(y.unsqueeze(1)).squeeze(),
    "spread": lambda y, p: y / (1 + torch.std(y, (2, 3), correction=0, keepdim=True)),
    "same": lambda y, p: aten.detach.default(aten.lift_fresh_copy.default(y)) * 2,
    "moved": lambda y, p: y + 0 * aten.to.device(y, "cpu", torch.float32).double(),
    "layout": lambda y, p: y + 0 * aten.to.dtype_layout(y, dtype=torch.float32).double(),
}  # fmt: skip

AVERAGING = {
    "softmax": lambda y, p: y * aten._softmax.default(y, 1, False),
    "safe_softmax": lambda y, p: y * aten._safe_softmax.default(y, 1),
    "log_softmax": lambda y, p: aten._log_softmax.default(y, 1, False),
    "group": lambda y, p: aten.native_group_norm.default(
        y, p.last, p.bias, y.shape[0], y.shape[1], y.shape[2] * y.shape[3], 1, 1e-5
    )[0],
    "variance": lambda y, p: y / (1 + aten.var.correction(y, [1], correction=0, keepdim=True)),
    "mean": lambda y, p: y + y.mean(),
}

SERIES = {
    "nearest": smaller(aten.upsample_nearest1d.default),
    "linear": smaller(aten.upsample_linear1d.default, False),
    "reflection": padded(aten.reflection_pad1d.default),
    "replication": padded(aten.replication_pad1d.default),
    "pool": halved(lambda y, size: F.adaptive_avg_pool1d(y, size[0]), aten.upsample_nearest1d.default),
    "same": lambda y, p: F.conv1d(y, p.kernel, padding="same", groups=y.shape[1]),
}

SOLIDS = {
    "nearest": smaller(aten.upsample_nearest3d.default),
    "trilinear": smaller(aten.upsample_trilinear3d.default, False),
    "replication": padded(aten.replication_pad3d.default),
    "pool": halved(aten._adaptive_avg_pool3d.default, aten.upsample_nearest3d.default),
    "same": lambda y, p: F.conv3d(y, p.kernel, padding="same", groups=y.shape[1]),
}

TOKENS = {
    "layer": lambda y, p: aten.native_layer_norm.default(y, [y.shape[2]], p.last, p.bias, 1e-5)[0],
    "statistics": lambda y, p: y * aten.native_layer_norm.default(y, [y.shape[2]], None, None, 1e-5)[2],
    "turned": lambda y, p: aten.numpy_T.default(2 * aten.numpy_T.default(y.flatten(0, 1))).view(y.shape),
    "softmax": lambda y, p: aten._softmax.default(y, 1, False) + p.bias,
    "rnn": lambda y, p: p.rnn(y)[0],
    "cell": lambda y, p: torch.stack([p.cell(y[:, i]) for i in range(y.shape[1])], 1),
    "variance": lambda y, p: y * aten.var.correction(y, [1], correction=0, keepdim=True),
}


class Spelled(Block):
    """A layer, some spellings in a row, a layer."""

    since = 10_000
    spellings, layer, steps = IMAGES, staticmethod(lambda c: nn.Conv2d(c, c, 1)), 5

    def make(self, rng, c, s):
        self.kinds = rng.sample(sorted(self.spellings), self.steps)
        self.before, self.after = self.layer(c), self.layer(c)
        self.last, self.bias = nn.Parameter(torch.rand(c) + 0.5), nn.Parameter(torch.randn(c))
        self.register_buffer("turn", torch.tensor([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.1]]))

    @staticmethod
    def fits(channels, size):
        return size >= 4 and size % 2 == 0

    def forward(self, x):
        y = self.before(x)
        for kind in self.kinds:
            y = self.spellings[kind](y, self)
        return torch.relu(self.after(y))


@blocks.block
class SpelledImage(Spelled):
    """On images."""


@blocks.block
class AveragingImage(Spelled):
    """On images, one that averages over channels: in a row of several it would make all of them inexact."""

    spellings, steps = AVERAGING, 1


@blocks_tokens.block
class SpelledTokens(Spelled):
    """On tokens."""

    spellings, layer, steps = TOKENS, staticmethod(lambda c: nn.Linear(c, c)), 2

    def make(self, rng, c, s):
        super().make(rng, c, s)
        self.rnn = nn.RNN(c, c, nonlinearity="relu", batch_first=True)
        self.cell = nn.RNNCell(c, c, nonlinearity="relu")

    @staticmethod
    def fits(channels, size):
        return size >= 2


@blocks_volumes.block
class SpelledVolume(Spelled):
    """On signals and volumes."""

    def make(self, rng, c, s):
        self.spellings = {1: SERIES, 3: SOLIDS}[rng.rank]
        self.layer = lambda c: blocks_volumes.CONV[rng.rank](c, c, 1)
        super().make(rng, c, s)
        self.kernel = nn.Parameter(torch.rand(c, 1, *(3,) * rng.rank))
