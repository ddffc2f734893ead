"""Random blocks on signals, (N, C, T), and volumes, (N, C, D, H, W): one protocol for both ranks.

`rank` 1 or 3 comes with the draw (`rng.rank`); otherwise as in blocks.py. Sizes are those
of the last dimension; all positions of a volume have the same size.
"""

from __future__ import annotations

import torch
from blocks import Block, divisor, width
from torch import nn
from torch.nn import functional as F

VOLUMES = []
CONV, UP = {1: nn.Conv1d, 3: nn.Conv3d}, {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}
BATCH_NORM, INSTANCE = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}, {1: nn.InstanceNorm1d, 3: nn.InstanceNorm3d}
POOLS = {
    1: (F.max_pool1d, F.avg_pool1d, lambda x, k: F.adaptive_max_pool1d(x, x.shape[-1] // k)),
    3: (F.max_pool3d, F.avg_pool3d, lambda x, k: F.adaptive_avg_pool3d(x, x.shape[-1] // k)),
}


def block(cls):
    VOLUMES.append(cls)
    return cls


def norm(rng, c):
    kind = rng.choice(("batch", "batch", "group", "instance", "none"))
    if kind == "batch":
        return BATCH_NORM[rng.rank](c)
    if kind == "group":
        return nn.GroupNorm(divisor(rng, c), c)
    return INSTANCE[rng.rank](c, affine=rng.random() < 0.5) if kind == "instance" else nn.Identity()


@block
class Convolved(Block):
    def make(self, rng, c, s):
        groups = divisor(rng, c) if rng.random() < 0.4 else 1
        self.channels = groups * rng.randint(1, 3) if groups > 1 else width(rng)
        k = rng.choice((1, 3))
        self.conv = CONV[rng.rank](
            c, self.channels, k, padding=k // 2, groups=groups, bias=rng.random() < 0.7
        )
        self.norm, self.act = norm(rng, self.channels), rng.choice(rng.activations)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


@block
class Dilated(Block):
    """A residual pair as in temporal networks: causal padding, dilation, an identity or a projection."""

    def make(self, rng, c, s):
        self.rank, self.channels = rng.rank, rng.choice((c, width(rng)))
        self.d = rng.choice((1, 2))
        self.a = CONV[rng.rank](c, self.channels, 3, dilation=self.d)
        self.b = CONV[rng.rank](self.channels, self.channels, 1)
        self.skip = nn.Identity() if self.channels == c else CONV[rng.rank](c, self.channels, 1)
        self.mode = rng.choice(("constant", "replicate"))

    def forward(self, x):
        y = torch.relu(self.a(F.pad(x, (2 * self.d, 0) * self.rank, mode=self.mode)))
        return torch.relu(self.b(y) + self.skip(x))


@block
class Pooled(Block):
    def make(self, rng, c, s):
        self.size, self.kind = s // 2, rng.choice(POOLS[rng.rank])

    @staticmethod
    def fits(channels, size):
        return size % 2 == 0 and size > 2

    def forward(self, x):
        return self.kind(x, 2)


@block
class Enlarged(Block):
    def make(self, rng, c, s):
        self.size, linear = 2 * s, {1: "linear", 3: "trilinear"}[rng.rank]
        self.mode = rng.choice(("nearest", linear, "transposed", "grouped"))
        if self.mode in ("transposed", "grouped"):
            groups = divisor(rng, c) if self.mode == "grouped" else 1
            self.channels = groups * rng.randint(1, 3)
            self.conv = UP[rng.rank](c, self.channels, 2, 2, groups=groups)

    @staticmethod
    def fits(channels, size):
        return size <= 4

    def forward(self, x):
        if self.mode in ("transposed", "grouped"):
            return self.conv(x)
        return F.interpolate(x, scale_factor=2.0, mode=self.mode)


@block
class Gated(Block):
    """Squeeze-excite, a gated pair, slopes, or a depthwise convolution between pointwise ones."""

    def make(self, rng, c, s):
        self.kind = rng.choice(("squeeze", "gate", "glu", "slopes", "separable"))
        conv = CONV[rng.rank]
        if self.kind == "separable":
            self.channels = width(rng)
        self.a, self.b = conv(c, c, 3, padding=1), conv(c, c, 1)
        self.pair, self.act, r = conv(c, 2 * c, 1), nn.PReLU(c), rng.randint(2, 4)
        self.down, self.up = nn.Linear(c, r), nn.Linear(r, c)
        self.dw, self.pw = conv(c, c, 3, padding=1, groups=c), conv(c, self.channels, 1)
        self.bn = BATCH_NORM[rng.rank](c)

    def forward(self, x):
        if self.kind == "squeeze":
            g = torch.sigmoid(self.up(torch.relu(self.down(x.flatten(2).mean(2)))))
            return x * g.view(*g.shape, *(1,) * (x.dim() - 2))
        if self.kind == "gate":
            return torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)) + x
        if self.kind == "glu":
            return F.glu(self.pair(x), 1)
        if self.kind == "slopes":
            return self.act(self.bn(self.a(x)))
        return self.pw(torch.relu(self.bn(self.dw(x))))


@block
class Joined(Block):
    """Two branches, concatenated or interleaved, then shuffled and squeezed."""

    def make(self, rng, c, s):
        o = rng.randint(2, 5)
        self.a, self.b = CONV[rng.rank](c, o, 1), CONV[rng.rank](c, o, 3, padding=1)
        self.kind, self.channels = rng.choice(("cat", "stack", "split", "shuffle")), 2 * o
        self.cut = rng.randint(1, 2 * o - 1)

    def forward(self, x):
        a, b = self.a(x), torch.relu(self.b(x))
        if self.kind == "stack":
            return torch.stack([a, b], 2).flatten(1, 2)
        y = torch.cat([a, b], 1)
        if self.kind == "split":
            p, q = y.tensor_split([self.cut], 1)
            return torch.cat([torch.tanh(q), p], 1)
        if self.kind == "shuffle":
            n, c, *rest = y.shape
            return y.view(n, 2, c // 2, *rest).transpose(1, 2).flatten(1, 2)
        return y
