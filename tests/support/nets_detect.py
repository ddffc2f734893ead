"""A detector in small: two scales, anchors from a buffer of strides, boxes as distributions, split blocks.

Written for these tests after the published descriptions of anchor-free heads: a distribution per side of a
box (Li et al., NeurIPS 2020), whose mean is a convolution with fixed weights, and distances to four sides.
"""

from __future__ import annotations

import torch
from patterns import conv, pattern
from torch import nn
from torch.nn import functional as F

BINS = 4  # of a side's distribution
CLASSES = 3


class SplitBlock(nn.Module):
    """Halves of the channels; one passes through convolutions, every stage is concatenated."""

    def __init__(self, channels, depth=2):
        super().__init__()
        half = channels // 2
        self.first = nn.Conv2d(channels, channels, 1)
        self.stages = nn.ModuleList(conv(half, half) for _ in range(depth))
        self.last = nn.Conv2d(half * (2 + depth), channels, 1)

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for stage in self.stages:
            parts.append(parts[-1] + F.silu(stage(parts[-1])))
        return self.last(torch.cat(parts, 1))


class PositionAttention(nn.Module):
    """Attention over h·w with head and key widths that are numbers in the code."""

    def __init__(self, channels, heads=2):
        super().__init__()
        self.heads, self.width, self.key = heads, channels // heads, channels // heads // 2
        self.qkv = nn.Conv2d(channels, channels + 2 * heads * self.key, 1)
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        qkv = self.qkv(x).view(n, self.heads, 2 * self.key + self.width, h * w)
        q, k, v = qkv.split([self.key, self.key, self.width], 2)
        weights = (q.transpose(-2, -1) @ k * self.key**-0.5).softmax(-1)
        y = (v @ weights.transpose(-2, -1)).view(n, c, h, w)
        return x + self.out(y + self.position(v.reshape(n, c, h, w)))


def anchors(features, strides):
    """Centres of the cells of every scale, and the stride of each, read from a tensor."""
    points, scales = [], []
    for i, y in enumerate(features):
        h, w = y.shape[2:]
        rows, columns = torch.arange(h).type_as(y) + 0.5, torch.arange(w).type_as(y) + 0.5
        grid = torch.meshgrid(rows, columns, indexing="ij")
        points.append(torch.stack(grid[::-1], -1).view(-1, 2))
        scales.append(y.new_full((h * w, 1), strides[i]))
    return torch.cat(points), torch.cat(scales)


@pattern("detector", (3, 16, 16))
class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.near = conv(3, 8, stride=2), SplitBlock(8)
        self.down, self.far = conv(8, 12, stride=2), nn.Sequential(SplitBlock(12), PositionAttention(12))
        self.boxes = nn.ModuleList(
            nn.Sequential(conv(c, 10), nn.SiLU(), nn.Conv2d(10, 4 * BINS, 1)) for c in (8, 12)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(conv(c, 10), nn.SiLU(), nn.Conv2d(10, CLASSES, 1)) for c in (8, 12)
        )
        self.register_buffer("strides", torch.tensor([2.0, 4.0]))
        self.expected = nn.Conv2d(BINS, 1, 1, bias=False)
        self.expected.weight.data[:] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)

    def forward(self, x):
        near = self.near(F.silu(self.stem(x)))
        far = self.far(F.silu(self.down(near)))
        near = near + F.interpolate(far, size=near.shape[2:])[:, :8]
        features = [near, far]
        n = x.shape[0]
        boxes = torch.cat(
            [head(y).view(n, 4 * BINS, -1) for head, y in zip(self.boxes, features, strict=True)], 2
        )
        scores = torch.cat(
            [head(y).view(n, CLASSES, -1) for head, y in zip(self.scores, features, strict=True)], 2
        )
        points, scales = anchors(features, self.strides)
        sides = boxes.view(n, 4, BINS, -1).transpose(2, 1).softmax(1)
        left_top, right_bottom = self.expected(sides).view(n, 4, -1).chunk(2, 1)
        points, scales = points.transpose(0, 1), scales.transpose(0, 1)
        low, high = points - left_top, points + right_bottom
        return torch.cat([torch.cat([(low + high) / 2, high - low], 1) * scales, scores.sigmoid()], 1)
