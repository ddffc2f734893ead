"""Random building blocks on sequences, (N, T, C): attention of every spelling, recurrence, MLPs.

Same protocol as blocks on images: `Block(rng, channels, tokens)` with `channels` and `size`
of what it gives, `fits` for where it can stand.
"""

from __future__ import annotations

import math

import torch
from blocks import Block, divisor, width
from torch import nn
from torch.nn import functional as F

TOKENS = []


def block(cls):
    TOKENS.append(cls)
    return cls


def norm(rng, c):
    return rng.choice((nn.LayerNorm, nn.RMSNorm, nn.Identity, PlainRms))(c)


class PlainRms(nn.Module):
    """RMS norm by hand, as language models write it."""

    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(c) + 0.5)

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@block
class Mlp(Block):
    def make(self, rng, c, t):
        self.norm, hidden = norm(rng, c), width(rng)
        self.gated, self.fused = rng.random() < 0.4, rng.random() < 0.5
        self.up, self.gate = (
            nn.Linear(c, hidden * (2 if self.gated and self.fused else 1)),
            nn.Linear(c, hidden),
        )
        self.down, self.residual = nn.Linear(hidden, c), rng.random() < 0.7

    def forward(self, x):
        y = self.norm(x)
        h = self.up(y)
        if self.gated and self.fused:
            a, b = h.chunk(2, -1)
            h = F.silu(a) * b
        elif self.gated:
            h = torch.sigmoid(self.gate(y)) * h
        else:
            h = F.gelu(h)
        return x + self.down(h) if self.residual else self.down(h)


@block
class Attention(Block):
    """Queries, keys and values fused or apart; the product by operator, by hand, by einsum."""

    def make(self, rng, c, t):
        self.heads, self.dim = rng.choice((1, 2, 4)), rng.choice((2, 3))
        self.groups = divisor(rng, self.heads)
        self.fused = self.groups == self.heads and rng.random() < 0.5
        inner, kv = self.heads * self.dim, self.groups * self.dim
        self.norm = norm(rng, c)
        if self.fused:
            self.qkv = nn.Linear(c, 3 * inner)
        else:
            self.q, self.k, self.v = nn.Linear(c, inner), nn.Linear(c, kv), nn.Linear(c, kv)
        self.out = nn.Linear(inner, c)
        self.product = rng.choice(("operator", "masked", "matmul", "bmm", "einsum"))
        self.per_head = rng.choice(("none", "norm", "rotary"))
        self.spread = rng.choice(("gqa", "interleave", "expand"))
        self.q_norm = nn.RMSNorm(self.dim)
        self.bias = nn.Parameter(torch.randn(1, self.heads, t, t))
        self.register_buffer("cos", torch.rand(t, self.dim))
        self.register_buffer("mask", torch.ones(t, t, dtype=torch.bool).tril())

    def split(self, x, heads):
        return x.view(x.shape[0], x.shape[1], heads, self.dim).transpose(1, 2)

    def forward(self, x):
        n, t, _ = x.shape
        y = self.norm(x)
        if self.fused:
            q, k, v = self.qkv(y).view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = (
                self.split(self.q(y), self.heads),
                self.split(self.k(y), self.groups),
                self.split(self.v(y), self.groups),
            )
        if self.per_head == "norm":
            q, k = self.q_norm(q), self.q_norm(k)
        if self.per_head == "rotary":
            q, k = q * self.cos + q.roll(1, -1) * 0.5, k * self.cos
        y = self.attend(q, *self.spread_out(k, v)).transpose(1, 2)
        return x + self.out(y.reshape(n, t, self.heads * self.dim))

    def spread_out(self, k, v):
        times = self.heads // self.groups
        if times == 1 or (self.spread == "gqa" and self.product in ("operator", "masked")):
            return k, v
        if self.spread == "expand":
            n, g, t, d = k.shape
            return tuple(z[:, :, None].expand(n, g, times, t, d).reshape(n, g * times, t, d) for z in (k, v))
        return k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)

    def attend(self, q, k, v):
        gqa = k.shape[1] != q.shape[1]
        if self.product == "operator":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        if self.product == "masked":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias, enable_gqa=gqa)
        if self.product == "einsum":
            scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(self.dim)
            return torch.einsum("nhqk,nhkd->nhqd", scores.softmax(-1), v)
        if self.product == "bmm":
            n, h, t, d = q.shape
            q, k, v = (z.reshape(n * h, t, d) for z in (q, k, v))
            scores = torch.bmm(q * d**-0.5, k.transpose(1, 2))
            return torch.bmm(F.softmax(scores, 2), v).view(n, h, t, d)
        scores = (q @ k.transpose(-2, -1)) * self.dim**-0.5 + self.bias
        return scores.masked_fill(~self.mask, float("-inf")).softmax(-1) @ v


@block
class Packed(Block):
    """torch's own multi-head attention, batch first or not, alone or in its encoder layer."""

    def make(self, rng, c, t):
        self.kind = rng.choice(("attention", "layer"))
        self.first, heads = rng.random() < 0.5, divisor(rng, c)
        if self.kind == "layer":
            self.inner = nn.TransformerEncoderLayer(
                c, heads, 2 * c, batch_first=self.first, norm_first=rng.random() < 0.5
            )
        else:
            self.inner = nn.MultiheadAttention(c, heads, batch_first=self.first)

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        y = self.inner(x) if self.kind == "layer" else self.inner(x, x, x, need_weights=False)[0]
        return y if self.first else y.transpose(0, 1)


@block
class Recurrent(Block):
    def make(self, rng, c, t):
        hidden, both = rng.randint(3, 6), rng.random() < 0.4
        self.first, self.last = rng.random() < 0.5, rng.random() < 0.3
        kind = rng.choice((nn.LSTM, nn.GRU, nn.RNN))
        self.inner = kind(
            c, hidden, rng.randint(1, 2), bidirectional=both, batch_first=self.first, bias=rng.random() < 0.8
        )
        self.channels, self.size = hidden * (1 + both), 1 if self.last else t

    def forward(self, x):
        y, state = self.inner(x if self.first else x.transpose(0, 1))
        if self.last:
            state = state[0] if isinstance(state, tuple) else state
            state = state[-2:] if self.inner.bidirectional else state[-1:]
            return state.transpose(0, 1).flatten(1).unsqueeze(1)
        return y if self.first else y.transpose(0, 1)


@block
class Along(Block):
    """A 1-d convolution over time, or an MLP over the tokens as in a mixer."""

    def make(self, rng, c, t):
        self.kind = rng.choice(("conv", "mixer", "depthwise", "project"))
        if self.kind in ("conv", "depthwise"):
            self.channels = c if self.kind == "depthwise" else width(rng)
            self.inner = nn.Conv1d(
                c, self.channels, 3, padding=1, groups=c if self.kind == "depthwise" else 1
            )
        elif self.kind == "mixer":
            self.inner = nn.Sequential(nn.Linear(t, 5), nn.GELU(), nn.Linear(5, t))
        else:
            self.weight, self.channels = nn.Parameter(torch.randn(c, 2, 3) / 3), 6

    def forward(self, x):
        if self.kind == "project":
            return torch.einsum("ntc,chd->nthd", x, self.weight).flatten(2)
        y = self.inner(x.transpose(1, 2)).transpose(1, 2)
        return x + y if self.kind == "mixer" else y


@block
class Windows(Block):
    """Positions rolled, cut into windows, worked on, and put back."""

    def make(self, rng, c, t):
        self.w, self.inner = divisor(rng, t), nn.Linear(c, c)
        self.shift, self.merge = rng.randint(0, t - 1), t % 2 == 0 and rng.random() < 0.4
        if self.merge:
            self.size, self.norm, self.reduce = t // 2, nn.LayerNorm(2 * c), nn.Linear(2 * c, c, bias=False)

    def forward(self, x):
        n, t, c = x.shape
        y = torch.roll(x, self.shift, 1).view(n * (t // self.w), self.w, c)
        y = torch.relu(self.inner(y)).view(n, t, c)
        y = torch.roll(y, -self.shift, 1)
        return self.reduce(self.norm(torch.cat([y[:, 0::2], y[:, 1::2]], -1))) if self.merge else x + y


@block
class Tables(Block):
    """Learned positions, a class token, chosen or reordered tokens."""

    def make(self, rng, c, t):
        self.kind = rng.choice(("position", "class", "choose", "gather"))
        self.position, self.token = nn.Parameter(torch.randn(1, t, c)), nn.Parameter(torch.randn(1, 1, c))
        self.size = {"class": t + 1, "choose": 1}.get(self.kind, t)
        self.score = nn.Linear(c, 1)

    def forward(self, x):
        if self.kind == "position":
            return x + self.position
        if self.kind == "class":
            return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        order = self.score(x).squeeze(-1).argsort(1)
        if self.kind == "choose":
            return x[torch.arange(x.shape[0]), order[:, 0]].unsqueeze(1)
        return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
