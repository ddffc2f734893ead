"""Random blocks of rarely met operators, one spelling each, so that every rule meets networks.

Images and tokens, same protocol as blocks.py and blocks_tokens.py; importing this module adds them.
"""

from __future__ import annotations

import blocks
import blocks_tokens
import torch
from blocks import Block
from torch import nn
from torch.nn import functional as F


def convolved_by(y, kernel):
    """A depthwise convolution whose weight is a vector, repeated."""
    weight = kernel.view(-1, 1, 1, 1).tile(1, 1, 3, 3)
    return F.conv2d(y, weight, padding=1, groups=len(kernel))


IMAGES = {
    "tile": lambda y, p: y + p.table.tile(1, 1, 1, y.shape[3] // 2),
    "repeat": lambda y, p: y * p.row.repeat(1, 1, y.shape[2], 1),
    "interleave": lambda y, p: y.repeat_interleave(2, 2)[:, :, ::2] + y,
    "movedim": lambda y, p: torch.movedim(torch.movedim(y, 1, -1) * p.last, -1, 1),
    "movedims": lambda y, p: torch.movedim(y, (1, 2), (2, 1)).swapaxes(1, 2),
    "narrow": lambda y, p: torch.cat([y.narrow(1, 1, y.shape[1] - 1), y.narrow(1, 0, 1)], 1),
    "amin": lambda y, p: y - y.amin((2, 3), keepdim=True),
    "logsumexp": lambda y, p: y - y.logsumexp(1, keepdim=True),
    "std": lambda y, p: y / (1 + y.std((2, 3), keepdim=True)),
    "total": lambda y, p: y / (1 + y.abs().sum()),
    "log_softmax": lambda y, p: F.log_softmax(y, 1),
    "ones": lambda y, p: torch.cat([y, torch.ones(y.shape[0], 1, *y.shape[2:], dtype=y.dtype)], 1)[:, 1:],
    "full": lambda y, p: y * torch.full((y.shape[1], 1, 1), 0.5, dtype=y.dtype),
    "full_like": lambda y, p: torch.where(y > 0, y, torch.full_like(y, -0.5)),
    "new_ones": lambda y, p: y + y.new_ones(y.shape[1], 1, 1) * p.last.view(-1, 1, 1),
    "write": lambda y, p: y.slice_scatter(y[:, :, 1:] * 2, 2, 0, y.shape[2] - 1),
    "write_channels": lambda y, p: y.slice_scatter(torch.tanh(y[:, :2]), 1, 0, 2),
    "write_row": lambda y, p: y.select_scatter(y[:, :, 0] + 1, 2, 1),
    "write_channel": lambda y, p: y.select_scatter(y[:, 1] * 2, 1, 0),
    "sections": lambda y, p: torch.cat(torch.tensor_split(y, 3, 1)[::-1], 1),
    "choose": lambda y, p: torch.index_select(y, 2, p.rows),
    "rows": lambda y, p: y[:, :, p.rows] + y,
    "unfold": lambda y, p: F.pad(y, (0, 0, 0, 1)).unfold(2, 2, 1).mean(-1),
    "pixels": lambda y, p: F.pixel_unshuffle(F.pixel_shuffle(torch.cat([y] * 4, 1), 2), 2)[:, ::4],
    "columns": lambda y, p: y + F.unfold(y, 1).view(y.shape),
    "softmax_rows": lambda y, p: (y.flatten(2).softmax(-1) * y.flatten(2)).view_as(y),
    "max_rows": lambda y, p: y.max(2, keepdim=True).values + y.min(3, keepdim=True).values,
    "reflect": lambda y, p: F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), 3, 1),
    "indices": lambda y, p: F.max_pool2d(y, 2, return_indices=True)[0].repeat(1, 1, 2, 2),
    "convolved": lambda y, p: convolved_by(y, p.kernel),
    "prod_mean": lambda y, p: y * torch.mean(y, (1, 2, 3), keepdim=True),
    "clamped": lambda y, p: torch.clamp(y, min=p.last.view(-1, 1, 1) - 1) ** 2,
}  # fmt: skip

TOKENS = {
    "addmm": lambda y, p: torch.addmm(p.bias, y.flatten(0, 1), p.square).view(y.shape),
    "addmm_table": lambda y, p: torch.addmm(y.flatten(0, 1), y.flatten(0, 1), p.square).view_as(y),
    "mm": lambda y, p: torch.mm(y.reshape(-1, y.shape[2]), p.square).unflatten(0, y.shape[:2]),
    "baddbmm": lambda y, p: torch.baddbmm(y, y @ y.mT, y, beta=0.5, alpha=0.1),
    "outer": lambda y, p: torch.einsum("ntc,ntd,de->nte", y, torch.tanh(y), p.square),
    "diagonal": lambda y, p: y * torch.diagonal(y @ y.mT, dim1=1, dim2=2).unsqueeze(-1),
    "type": lambda y, p: y.float().type_as(y) * 0 + y.to(torch.float64),
    "log": lambda y, p: y.log_softmax(-1) + p.bias,
    "sums": lambda y, p: y * y.sum((1, 2), keepdim=True) / (1 + y.pow(2).sum()),
    "value": lambda y, p: y.scatter(1, torch.ones_like(y[:, :1], dtype=torch.int64), 0.5),
    "reduce": lambda y, p: y.scatter_reduce(1, torch.zeros_like(y, dtype=torch.int64), y, "amax"),
    "source": lambda y, p: y.scatter(1, torch.zeros_like(y[:, :1], dtype=torch.int64), y[:, :1] * 2),
    "squeeze": lambda y, p: y.unsqueeze(2).unsqueeze(0).squeeze((0, 3)),
    "chunks": lambda y, p: torch.cat([c * (i + 1) for i, c in enumerate(y.chunk(2, -1))], -1),
    "swapdims": lambda y, p: (y.swapdims(1, 2).contiguous() * 2).swapdims(1, 2),
    "pooled": lambda y, p: y + F.adaptive_max_pool1d(F.avg_pool1d(y.mT, 1), 1).mT,
    "reflected": lambda y, p: F.pad(y.mT, (1, 0), mode="replicate").mT[:, :-1],
    "fixed": lambda y, p: torch.cat([y, torch.zeros(*y.shape[:2], 2, dtype=y.dtype)], -1)[..., : len(p.bias)],
    "counted": lambda y, p: y + torch.arange(y.shape[1], dtype=y.dtype).unsqueeze(-1) * p.bias,
    "normalised": lambda y, p: torch.nn.functional.normalize(y, dim=1),
    "group": lambda y, p: F.group_norm(y.mT, 1, p.bias, p.bias).mT,
}  # fmt: skip


class Rare(Block):
    """A layer, one spelling, a layer."""

    spellings, layer = IMAGES, staticmethod(lambda c: nn.Conv2d(c, c, 1))

    def make(self, rng, c, s):
        self.kind = rng.choice(sorted(self.spellings))
        self.before, self.after = self.layer(c), self.layer(c)
        self.table, self.row = nn.Parameter(torch.randn(1, c, s, 2)), nn.Parameter(torch.randn(1, c, 1, s))
        self.last, self.bias = nn.Parameter(torch.rand(c) + 0.5), nn.Parameter(torch.randn(c))
        self.kernel, self.square = nn.Parameter(torch.rand(c)), nn.Parameter(torch.randn(c, c) / 3)
        self.register_buffer("rows", torch.tensor(rng.sample(range(s), s)))
        self.still = rng.random() < 0.3

    @staticmethod
    def fits(channels, size):
        return channels >= 4 and size >= 2 and size % 2 == 0

    def forward(self, x):
        y = self.spellings[self.kind](self.before(x), self)
        return y if self.still else torch.relu(self.after(y))


@blocks.block
class RareImage(Rare):
    """On images."""


@blocks_tokens.block
class RareTokens(Rare):
    """On tokens."""

    spellings, layer = TOKENS, staticmethod(lambda c: nn.Linear(c, c))
