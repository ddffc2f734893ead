"""Random image blocks that mix channels or positions: windows, attention, tables, shuffled parts.

Same protocol as blocks.py; importing this module adds them to IMAGE.
"""

from __future__ import annotations

import torch
from blocks import Block, block, divisor, keeping, width
from torch import nn
from torch.nn import functional as F


@block
class WindowAttention(Block):
    """Swin: a shift, windows, heads under a table of relative positions and a mask, and all the way back."""

    def make(self, rng, c, s):
        self.w, self.heads, self.dim = rng.choice([d for d in (2, 4) if s % d == 0]), rng.choice((1, 2, 3)), 2
        self.grid, self.shift = rng.random() < 0.3, rng.choice((0, 1))
        self.norm = rng.choice((nn.LayerNorm, nn.Identity))(c)
        inner = self.heads * self.dim
        self.qkv, self.out = nn.Linear(c, 3 * inner, bias=rng.random() < 0.7), nn.Linear(inner, c)
        self.table = nn.Parameter(torch.randn((2 * self.w - 1) ** 2, self.heads))
        at = torch.stack(torch.meshgrid(torch.arange(self.w), torch.arange(self.w), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None]) + self.w - 1
        self.register_buffer("index", (apart[0] * (2 * self.w - 1) + apart[1]).flatten())
        self.register_buffer("mask", torch.zeros((s // self.w) ** 2, self.w**2, self.w**2))
        self.mask[-1, : self.w] = -100.0
        self.cosine, self.scale = rng.random() < 0.3, nn.Parameter(torch.rand(self.heads, 1, 1) + 0.5)

    @staticmethod
    def fits(channels, size):
        return size % 2 == 0

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.norm(x.permute(0, 2, 3, 1))
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2)) if self.shift else y
        a, b = h // self.w, w // self.w
        if self.grid:
            y = y.view(n, self.w, a, self.w, b, c).permute(0, 2, 4, 1, 3, 5)
        else:
            y = y.view(n, a, self.w, b, self.w, c).permute(0, 1, 3, 2, 4, 5)
        y = self.attend(y.reshape(n * a * b, self.w**2, c), a * b)
        y = y.view(n, a, b, self.w, self.w, c)
        y = (y.permute(0, 3, 1, 4, 2, 5) if self.grid else y.permute(0, 1, 3, 2, 4, 5)).reshape(n, h, w, c)
        y = torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y
        return x + y.permute(0, 3, 1, 2)

    def attend(self, x, windows):
        m, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(m, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        if self.cosine:
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.scale
        else:
            scores = q * self.dim**-0.5 @ k.transpose(-2, -1)
        bias = self.table[self.index].view(t, t, self.heads).permute(2, 0, 1).unsqueeze(0)
        scores = (scores + bias).view(m // windows, windows, self.heads, t, t)
        scores = (scores + self.mask.unsqueeze(1).unsqueeze(0)).view(m, self.heads, t, t)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(m, t, self.heads * self.dim))


@block
class NonLocal(Block):
    """Attention over all positions of a feature map, embedded by 1x1 convolutions, by hand or by einsum."""

    def make(self, rng, c, s):
        r = rng.randint(2, 5)
        self.q, self.k, self.v = nn.Conv2d(c, r, 1), nn.Conv2d(c, r, 1), nn.Conv2d(c, r + 1, 1)
        self.out, self.kind = nn.Conv2d(r + 1, c, 1), rng.choice(("matmul", "einsum", "bmm", "context"))
        self.weigh = nn.Conv2d(c, 1, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        if self.kind == "context":
            share = self.weigh(x).view(n, 1, h * w).softmax(-1)
            seen = torch.matmul(self.v(x).flatten(2), share.transpose(1, 2)).unsqueeze(-1)
            return x + self.out(torch.relu(seen))
        q, k, v = self.q(x).flatten(2), self.k(x).flatten(2), self.v(x).flatten(2)
        if self.kind == "einsum":
            mixed = torch.einsum("nij,ncj->nci", torch.einsum("nci,ncj->nij", q, k).softmax(-1), v)
        elif self.kind == "bmm":
            mixed = torch.bmm(torch.bmm(q.permute(0, 2, 1), k).softmax(-1), v.permute(0, 2, 1)).permute(
                0, 2, 1
            )
        else:
            mixed = v @ torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, -1).transpose(1, 2)
        return x + self.out(mixed.reshape(n, -1, h, w))


@block
class Parts(Block):
    """Concatenation of splits of shuffles: parts are shuffled, permuted, dropped, worked on and joined."""

    def make(self, rng, c, s):
        self.groups = divisor(rng, c)
        first = rng.randint(1, c - 2)
        second = rng.randint(1, c - first - 1)
        self.sizes = [first, second, c - first - second]
        self.order = rng.sample(range(3), 3)
        self.kind = [rng.choice(("keep", "act", "conv", "flip", "self")) for _ in self.sizes]
        self.convs = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in self.sizes)
        self.again, self.before, self.after = rng.random() < 0.5, nn.Conv2d(c, c, 1), rng.random() < 0.5
        self.pointwise = rng.random() < 0.6
        self.last = nn.Conv2d(c, c, 1, groups=divisor(rng, c))

    @staticmethod
    def fits(channels, size):
        return channels >= 3

    def shuffle(self, x):
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    @staticmethod
    def work(x, kind, conv):
        if kind == "self":
            return x * torch.sigmoid(conv(x))
        if kind == "conv":
            return conv(x)
        return {"keep": x, "act": torch.relu(x), "flip": x.flip(2)}[kind]

    def forward(self, x):
        x = self.shuffle(self.before(x) if self.pointwise else x)
        parts = []
        for part, kind, conv in zip(x.split(self.sizes, 1), self.kind, self.convs, strict=True):
            parts.append(self.work(part, kind, conv))
        y = torch.cat([parts[i] for i in self.order], 1)
        y = self.shuffle(y) if self.again else y
        return self.last(y) if self.after else y


@block
class Chosen(Block):
    """Channels or positions taken by number: by a fixed table, by slices with steps, by what the data say."""

    def make(self, rng, c, s):
        self.kind = rng.choice(
            ("order", "select", "steps", "some", "gather", "scatter", "sort", "take", "write")
        )
        self.conv = nn.Conv2d(c, c, 1)
        self.register_buffer("order", torch.tensor(rng.sample(range(c), c)))
        self.register_buffer("some", torch.tensor(rng.sample(range(c), c - 1)))
        self.channels = {"some": c - 1, "steps": (c + 1) // 2, "take": c - 1}.get(self.kind, c)
        self.at = rng.randint(0, c - 1)
        self.mark = nn.Conv2d(c, 1, 1)

    @staticmethod
    def fits(channels, size):
        return channels >= 4

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "order":
            return y[:, self.order]
        if self.kind == "some":
            return torch.index_select(y, 1, self.some)
        if self.kind == "steps":
            return y[:, ::2]
        if self.kind == "select":
            return y * torch.sigmoid(y[:, self.at : self.at + 1]) + y[:, self.at].unsqueeze(1)
        if self.kind == "take":
            return torch.cat([y[:, : self.at], y[:, self.at + 1 :]], 1)
        flat = y.flatten(2)
        order = self.mark(x).flatten(2).argsort(-1)
        if self.kind == "gather":
            return flat.gather(2, order.expand(-1, y.shape[1], -1)).view(y.shape)
        if self.kind == "scatter":
            return torch.zeros_like(flat).scatter_add(2, order.expand(-1, y.shape[1], -1), flat).view(y.shape)
        if self.kind == "sort":
            return flat.sort(-1).values.view(y.shape)
        head = y[:, :, :1] * 2
        return torch.cat([head, y[:, :, 1:]], 2)


@block
class SpatialGate(Block):
    """Statistics over channels gate positions; the kernel, the pooling and the norm vary."""

    def make(self, rng, c, s):
        self.kind, self.inner = rng.choice(("cbam", "eca", "variance", "channel_max")), nn.Conv2d(c, c, 1)
        self.conv, self.across = nn.Conv2d(2, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        y = self.inner(x)
        if self.kind == "cbam":
            seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
            return y * torch.sigmoid(self.conv(seen))
        if self.kind == "eca":
            pooled = F.adaptive_avg_pool2d(y, 1).squeeze(-1).transpose(1, 2)
            return y * torch.sigmoid(self.across(pooled)).transpose(1, 2).unsqueeze(-1)
        if self.kind == "variance":
            return y / (y.var(1, keepdim=True) + 1e-3).sqrt() + x
        return y + torch.max(y, 1, keepdim=True).values


@block
class Kernels(Block):
    """Convolutions out of the ordinary: standardised, dilated, asymmetric, 'same', transposed in groups."""

    def make(self, rng, c, s):
        self.kind = rng.choice(
            ("standard", "dilated", "tall", "same", "grouped", "depthwise_up", "blur", "partial")
        )
        self.channels = width(rng)
        self.conv = nn.Conv2d(c, self.channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(self.channels)
        if self.kind == "dilated":
            self.conv = nn.Conv2d(c, self.channels, 3, padding=2, dilation=2)
        elif self.kind == "tall":
            self.conv = nn.Sequential(
                nn.Conv2d(c, 5, (3, 1), padding=(1, 0)), nn.Conv2d(5, self.channels, (1, 3), padding=(0, 1))
            )
        elif self.kind == "same":
            self.conv = nn.Conv2d(c, self.channels, 3, padding="same")
        elif self.kind == "grouped":
            g = divisor(rng, c)
            self.channels = g * rng.randint(1, 3)
            self.conv, self.norm = nn.ConvTranspose2d(c, self.channels, 3, padding=1, groups=g), nn.Identity()
        elif self.kind == "depthwise_up":
            self.channels = c
            self.conv, self.norm = nn.ConvTranspose2d(c, c, 3, padding=1, groups=c), nn.BatchNorm2d(c)
        elif self.kind == "blur":
            self.channels, self.norm = c, nn.Identity()
            self.register_buffer("kernel", torch.rand(1, 1, 3, 3))
        elif self.kind == "partial":  # only the first channels are convolved
            self.channels, self.some, self.norm = c, max(1, c // 3), nn.Identity()
            self.conv = nn.Conv2d(self.some, self.some, 3, padding=1)

    def forward(self, x):
        if self.kind == "standard":
            w = self.conv.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
            return self.norm(F.conv2d(x, w, self.conv.bias, padding=1))
        if self.kind == "blur":
            return F.conv2d(x, self.kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        if self.kind == "partial":
            a, b = x[:, : self.some], x[:, self.some :]
            return torch.cat([self.conv(a), b], 1)
        return torch.relu(self.norm(self.conv(x)))


@block
class Resampled(Block):
    """Padding and resampling of every kind around a convolution; the size is restored at the end."""

    def make(self, rng, c, s):
        self.kind = rng.choice(
            ("reflect", "replicate", "circular", "bicubic", "exact", "grid", "unfold", "half")
        )
        self.channels = width(rng)
        self.conv = nn.Conv2d(c, self.channels, 3)
        self.linear = nn.Linear(c * 4, self.channels)
        self.pad = nn.ZeroPad2d((0, 2, 1, 1))
        self.offset = nn.Conv2d(c, 2, 1)

    @staticmethod
    def fits(channels, size):
        return size >= 4 and size % 2 == 0

    def forward(self, x):
        n, c, h, w = x.shape
        if self.kind in ("reflect", "replicate", "circular"):
            return self.conv(F.pad(x, (1, 1, 1, 1), mode=self.kind))
        if self.kind == "bicubic":
            return self.conv(F.interpolate(x, size=(h + 2, w + 2), mode="bicubic", align_corners=False))
        if self.kind == "exact":
            return self.conv(F.interpolate(x, size=(h + 2, w + 2), mode="nearest-exact"))
        if self.kind == "grid":
            at = torch.tanh(self.offset(x)).permute(0, 2, 3, 1)
            return torch.relu(self.conv(self.pad(F.grid_sample(x, at, align_corners=False))))
        if self.kind == "unfold":  # space to tokens, as a patch embedding by hand
            p = (
                x.view(n, c, h // 2, 2, w // 2, 2)
                .permute(0, 2, 4, 1, 3, 5)
                .reshape(n, h // 2 * (w // 2), c * 4)
            )
            y = self.linear(p).transpose(1, 2).view(n, -1, h // 2, w // 2)
            return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        small = F.adaptive_avg_pool2d(x, h // 2) + F.adaptive_max_pool2d(x, h // 2)
        up = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
        return self.conv(self.pad(torch.maximum(x, up)))


@block
class Selective(Block):
    """Branches weighed against each other by a softmax, a gate, a maximum or a choice."""

    def make(self, rng, c, s):
        self.a, o = keeping(rng, c, s, 1)
        self.b, self.channels = nn.Conv2d(c, o, 3, padding=1), o
        self.kind = rng.choice(("softmax", "highway", "maximum", "where", "lerp", "film", "experts"))
        self.weigh, self.gate = nn.Linear(o, 2 * o), nn.Conv2d(c, o, 1)
        self.film, self.scores = nn.Linear(c, 2 * o), nn.Linear(c, 2)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        if self.kind == "softmax":
            both = torch.stack([a, b], 1)
            n, _, o = both.shape[:3]
            share = self.weigh(both.sum(1).mean((2, 3))).view(n, 2, o).softmax(1)
            return (both * share[..., None, None]).sum(1)
        if self.kind == "maximum":
            return torch.maximum(a, b) - torch.minimum(a, 0.5 * b)
        if self.kind == "where":
            return torch.where(a > 0, a, b)
        if self.kind == "film":
            scale, shift = self.film(x.mean((2, 3))).chunk(2, -1)
            return a * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        if self.kind == "experts":
            share = self.scores(x.mean((2, 3))).softmax(-1)
            return torch.einsum("nkchw,nk->nchw", torch.stack([a, b], 1), share)
        g = torch.sigmoid(self.gate(x))
        return torch.lerp(a, b, g) if self.kind == "lerp" else g * a + (1 - g) * b
