"""Random building blocks on images, (N, C, H, W), for the generator of networks.

A block is made by `Block(rng, channels, size)` and tells what it gives in `channels` and
`size`. `fits` says whether it can be built there. Everything random is drawn when it is
built, so a seed fixes the network.
"""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F

IMAGE = []
ACTIVATIONS = (
    torch.relu, F.gelu, torch.sigmoid, torch.tanh, F.silu, F.hardswish, F.relu6, F.leaky_relu, F.elu,
    F.softplus, nn.Dropout(0.3), torch.abs,
)  # fmt: skip
INPLACE = (nn.ReLU(inplace=True), nn.SiLU(inplace=True), torch.relu_, torch.sigmoid_)


def block(cls):
    IMAGE.append(cls)
    return cls


class Draw(random.Random):
    """A seeded source; in-place operators only on request, because they make the export slower."""

    def __init__(self, seed, *, inplace=False):
        super().__init__(seed)
        self.began = seed
        self.activations = (*ACTIVATIONS, *INPLACE) if inplace else ACTIVATIONS
        self.inplace = inplace


def width(rng, low=4, high=10):
    return rng.randint(low, high)


def divisor(rng, n):
    return rng.choice([d for d in range(1, n + 1) if n % d == 0])


class Block(nn.Module):
    """Keeps the shape unless a subclass says otherwise; earlier seeds than `since` do not know it."""

    since = 0

    def __init__(self, rng, channels, size):
        super().__init__()
        self.channels, self.size = channels, size
        self.make(rng, channels, size)

    @staticmethod
    def fits(channels, size):
        return True


@block
class ConvAct(Block):
    def make(self, rng, c, s):
        self.channels = width(rng)
        groups = divisor(rng, c) if rng.random() < 0.3 else 1
        if groups > 1:
            self.channels = groups * rng.randint(1, 3)
        k, stride = rng.choice((1, 3)), 2 if s % 2 == 0 and s > 4 and rng.random() < 0.3 else 1
        self.size = s // stride
        self.conv = nn.Conv2d(c, self.channels, k, stride, k // 2, groups=groups, bias=rng.random() < 0.7)
        self.norm = norm(rng, self.channels)
        self.act = rng.choice(rng.activations)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


def norm(rng, c):
    kind = rng.choice(("batch", "batch", "none", "group", "instance", "layer"))
    if kind == "batch":
        return nn.BatchNorm2d(c)
    if kind == "group":
        return nn.GroupNorm(divisor(rng, c), c)
    if kind == "instance":
        return nn.InstanceNorm2d(c, affine=rng.random() < 0.5)
    return ChannelsLast(nn.LayerNorm(c)) if kind == "layer" else nn.Identity()


class ChannelsLast(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@block
class Separable(Block):
    def make(self, rng, c, s):
        times, self.channels = rng.choice((1, 1, 2)), width(rng)
        self.dw = nn.Conv2d(c, c * times, 3, padding=1, groups=c)
        self.pw, self.bn = nn.Conv2d(c * times, self.channels, 1), nn.BatchNorm2d(c * times)
        self.inplace = rng.inplace

    def forward(self, x):
        return self.pw(F.relu(self.bn(self.dw(x)), inplace=self.inplace))


@block
class Residual(Block):
    """One or two inner blocks beside an identity, a projection, or a shortcut padded with zeros."""

    def make(self, rng, c, s):
        self.inner, o, t = chain(rng, c, s, rng.randint(1, 2))
        self.channels, self.size, self.step = o, t, s // t
        self.kind = "identity" if (c, s) == (o, t) else rng.choice(("project", "pad"))
        if self.kind == "pad" and o < c:
            self.kind = "project"
        if s % t or t > s:
            self.kind, self.inner, self.channels, self.size = "identity", nn.Conv2d(c, c, 3, padding=1), c, s
        if self.kind == "project":
            self.shortcut = nn.Conv2d(c, o, 1, self.step)
        self.extra, self.gain = o - c, rng.random() < 0.3
        self.gamma = nn.Parameter(torch.rand(self.channels, 1, 1) + 0.5)

    def forward(self, x):
        y = self.inner(x)
        y = y * self.gamma if self.gain else y
        if self.kind == "project":
            return y + self.shortcut(x)
        if self.kind == "pad":
            x = F.pad(
                x[:, :, :: self.step, :: self.step],
                (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2),
            )
        return F.relu(x + y)


@block
class Branches(Block):
    """Inception: two or three branches of their own depth, joined by concatenation."""

    def make(self, rng, c, s):
        parts = [keeping(rng, c, s, rng.randint(1, 2)) for _ in range(rng.randint(2, 3))]
        self.parts = nn.ModuleList(p for p, _ in parts)
        self.channels = sum(o for _, o in parts) + c
        self.squeeze = nn.Conv2d(self.channels, width(rng), 1)
        self.order = rng.sample(range(len(parts) + 1), len(parts) + 1)
        self.channels = self.squeeze.out_channels

    def forward(self, x):
        made = [*(p(x) for p in self.parts), x]
        return self.squeeze(torch.cat([made[i] for i in self.order], 1))


@block
class DenseStep(Block):
    def make(self, rng, c, s):
        self.inner, o = keeping(rng, c, s, 1)
        self.channels = c + o

    @staticmethod
    def fits(channels, size):
        return channels <= 14

    def forward(self, x):
        return torch.cat([self.inner(x), x], 1)


@block
class Squeeze(Block):
    def make(self, rng, c, s):
        r = rng.randint(2, 4)
        self.down, self.up = nn.Conv2d(c, r, 1), nn.Conv2d(r, c, 1)
        self.linear, self.act = rng.random() < 0.5, rng.choice((torch.sigmoid, F.hardsigmoid))

    def forward(self, x):
        pooled = F.adaptive_avg_pool2d(x, 1) if self.linear else x.mean((2, 3), keepdim=True)
        return x * self.act(self.up(torch.relu(self.down(pooled))))


@block
class ShuffleUnit(Block):
    def make(self, rng, c, s):
        self.half = c // 2
        self.inner = nn.Sequential(nn.Conv2d(self.half, self.half, 1), nn.ReLU(), nn.BatchNorm2d(self.half))
        self.operator = rng.random() < 0.3

    @staticmethod
    def fits(channels, size):
        return channels % 2 == 0

    def forward(self, x):
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.inner(b)], 1)
        if self.operator:
            return F.channel_shuffle(x, 2)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@block
class Interleave(Block):
    def make(self, rng, c, s):
        (self.a, o), self.channels = keeping(rng, c, s, 1), 0
        self.b, self.channels = nn.Conv2d(c, o, 1), 2 * o
        self.at = rng.choice((1, 2))

    def forward(self, x):
        return torch.stack([self.a(x), self.b(x)], self.at).flatten(1, 2)


@block
class SplitMix(Block):
    def make(self, rng, c, s):
        cut = rng.randint(1, c - 1)
        self.sizes, self.channels = [cut, c - cut], width(rng)
        self.a, self.b = nn.Conv2d(cut, self.channels, 3, padding=1), nn.Conv2d(c - cut, self.channels, 1)
        self.gated = rng.random() < 0.4

    @staticmethod
    def fits(channels, size):
        return channels > 1

    def forward(self, x):
        a, b = torch.split(x, self.sizes, 1)
        return self.a(a) * torch.sigmoid(self.b(b)) if self.gated else self.a(a) + self.b(b)


@block
class Pool(Block):
    def make(self, rng, c, s):
        self.size, self.kind = s // 2, rng.choice((F.max_pool2d, F.avg_pool2d))

    @staticmethod
    def fits(channels, size):
        return size % 2 == 0 and size > 2

    def forward(self, x):
        return self.kind(x, 2)


@block
class Up(Block):
    def make(self, rng, c, s):
        self.size, self.kind = 2 * s, rng.choice(("nearest", "bilinear", "transposed"))
        if self.kind == "transposed":
            self.channels = width(rng)
            self.conv = nn.ConvTranspose2d(c, self.channels, 2, 2)

    @staticmethod
    def fits(channels, size):
        return size <= 4

    def forward(self, x):
        if self.kind == "transposed":
            return self.conv(x)
        return F.interpolate(x, scale_factor=2.0, mode=self.kind)


@block
class Shuffled(Block):
    """Space to depth or depth to space, by operator or by strided slices."""

    def make(self, rng, c, s):
        self.kind = rng.choice(("up", "down", "focus")) if s % 2 == 0 and s > 2 else "up"
        o = rng.randint(2, 4)
        self.conv = nn.Conv2d(c, 4 * o if self.kind == "up" else o, 1)
        self.channels, self.size = (o, 2 * s) if self.kind == "up" else (4 * o, s // 2)

    @staticmethod
    def fits(channels, size):
        return size <= 8

    def forward(self, x):
        x = self.conv(x)
        if self.kind == "focus":
            return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        return F.pixel_shuffle(x, 2) if self.kind == "up" else F.pixel_unshuffle(x, 2)


@block
class Odd(Block):
    """Rarer things in a row of one: slopes, gates, flips, rolls, tables, tied and computed weights."""

    def make(self, rng, c, s):
        self.kind = rng.choice(
            ("prelu", "glu", "flip", "roll", "roll_channels", "table", "tied", "computed", "twice", "grn")
        )
        if self.kind == "glu":
            self.channels = width(rng)
        self.conv = nn.Conv2d(c, self.channels * 2 if self.kind == "glu" else c, 3, padding=1)
        self.act, self.scale = nn.PReLU(c), nn.Parameter(torch.rand(c, 1, 1, 1) + 0.5)
        self.table = nn.Parameter(torch.randn(1, c, s, s))
        self.register_buffer("shift", torch.randn(c, 1, 1))

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "prelu":
            return self.act(y)
        if self.kind == "glu":
            return F.glu(y, 1)
        if self.kind == "flip":
            return y + y.flip(1)
        if self.kind == "roll":
            return torch.roll(y, (1, -1), (2, 3)) + self.shift
        if self.kind == "roll_channels":
            return torch.roll(y, 1, 1)
        if self.kind == "table":
            return y + self.table
        if self.kind == "tied":
            return F.conv2d(torch.relu(y), self.conv.weight, padding=1)
        if self.kind == "computed":
            return F.conv2d(x, self.conv.weight * self.scale, self.conv.bias, padding=1)
        if self.kind == "grn":
            energy = y.norm(dim=(2, 3), keepdim=True)
            return y * (energy / (energy.mean(1, keepdim=True) + 1e-6)) + y
        return torch.relu(self.conv(torch.relu(y)))


@block
class ConvNext(Block):
    def make(self, rng, c, s):
        self.dw, self.norm = nn.Conv2d(c, c, 3, padding=1, groups=c), nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
        self.gamma = nn.Parameter(torch.rand(c) + 0.5)

    def forward(self, x):
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def chain(rng, channels, size, depth, pick=None):
    """`depth` random blocks in a row; gives the module with its channels and size."""
    blocks = []
    for _ in range(depth):
        known = [b for b in (pick or IMAGE) if b.fits(channels, size) and b.since <= rng.began]
        made = rng.choice(known)(rng, channels, size)
        blocks.append(made)
        channels, size = made.channels, made.size
    return nn.Sequential(*blocks), channels, size


def keeping(rng, channels, size, depth):
    """A chain that keeps the spatial size, ending in a convolution; gives module and channels."""
    made, c, s = chain(rng, channels, size, depth, [Separable, Squeeze, SplitMix, ConvNext, Odd])
    assert s == size
    last = nn.Conv2d(c, width(rng), 1)
    return nn.Sequential(made, last), last.out_channels
