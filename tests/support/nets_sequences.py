"""Tiny networks on sequences: attention of every spelling, norms, recurrence, embeddings."""

from __future__ import annotations

import math

import torch
from patterns import pattern
from torch import nn
from torch.nn import functional as F

SEQUENCE = (6, 8)


class Encoder(nn.Module):
    """Positions, one attention of the subclass, an MLP, a head; pre-norm."""

    heads, dim, groups = 4, 3, 4

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.position = (
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Parameter(torch.randn(6, 8)),
        )
        self.up, self.down, self.head = nn.Linear(8, 10), nn.Linear(10, 8), nn.Linear(8, 3)
        inner, kv = self.heads * self.dim, self.groups * self.dim
        self.q, self.k, self.v, self.out = (
            nn.Linear(8, inner),
            nn.Linear(8, kv),
            nn.Linear(8, kv),
            nn.Linear(inner, 8),
        )

    def split(self, x, heads):
        return x.view(x.shape[0], x.shape[1], heads, self.dim).transpose(1, 2)

    def project(self, x):
        return (
            self.split(self.q(x), self.heads),
            self.split(self.k(x), self.groups),
            self.split(self.v(x), self.groups),
        )

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def mix(self, x):
        y = self.attend(*self.project(x)).transpose(1, 2)
        return self.out(y.reshape(x.shape[0], x.shape[1], self.heads * self.dim))

    def forward(self, x):
        x = x + self.position
        x = x + self.mix(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


@pattern("attention", SEQUENCE)
class Attention(Encoder):
    pass


@pattern("attention_masked", SEQUENCE)
class Masked(Encoder):
    """A learned bias per head: an operand that is easily forgotten."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 4, 6, 6))

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)


@pattern("attention_by_hand", SEQUENCE)
class ByHand(Encoder):
    def attend(self, q, k, v):
        return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.dim), -1) @ v


@pattern("attention_bmm", SEQUENCE)
class Bmm(Encoder):
    """Heads folded into the batch."""

    def attend(self, q, k, v):
        n, h, t, d = q.shape
        q, k, v = (z.reshape(n * h, t, d) for z in (q, k, v))
        scores = torch.baddbmm(torch.zeros(n * h, t, t, dtype=q.dtype), q, k.transpose(1, 2), alpha=d**-0.5)
        return torch.bmm(scores.softmax(-1), v).view(n, h, t, d)


@pattern("attention_einsum", SEQUENCE)
class Einsum(Encoder):
    def attend(self, q, k, v):
        scores = torch.einsum("nhqd,nhkd->nhqk", q, k) * self.dim**-0.5
        return torch.einsum("...qk,...kd->...qd", scores.softmax(-1), v)


@pattern("attention_fused", SEQUENCE)
class Fused(Encoder):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 36)

    def project(self, x):
        n, t, _ = x.shape
        return self.qkv(x).reshape(n, t, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)


@pattern("attention_grouped", SEQUENCE)
class Grouped(Encoder):
    """Two key-value heads for four query heads: they go together."""

    groups = 2

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pattern("attention_expanded", SEQUENCE)
class Expanded(Encoder):
    """The same by expand and reshape, with more queries per head than heads."""

    heads, groups = 6, 2

    def attend(self, q, k, v):
        n, g, t, d = k.shape
        k, v = (z[:, :, None].expand(n, g, 3, t, d).reshape(n, 3 * g, t, d) for z in (k, v))
        return F.scaled_dot_product_attention(q, k, v)


@pattern("attention_rotary", SEQUENCE)
class Rotary(Encoder):
    """Tables and norms over the width of a head: heads stay free, the tables whole."""

    dim = 4

    def __init__(self):
        super().__init__()
        self.q_norm = nn.RMSNorm(4)
        self.register_buffer("cos", torch.rand(6, 4))
        self.register_buffer("sin", torch.rand(6, 4))

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(self.rotate(self.q_norm(q)), self.rotate(self.q_norm(k)), v)


@pattern("attention_packed", SEQUENCE)
class Packed(Encoder):
    def __init__(self):
        super().__init__()
        self.packed = nn.MultiheadAttention(8, 4, batch_first=True)

    def mix(self, x):
        return self.packed(x, x, x, need_weights=False)[0]


@pattern("encoder_layer", SEQUENCE)
class EncoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 12), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x.transpose(0, 1))[0])


@pattern("words", ("int", 6))
class Words(nn.Module):
    """An embedding whose table is also the output layer: its rows stay, its width is free."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(7, 8), nn.Embedding(6, 8)
        self.up, self.down, self.norm = nn.Linear(8, 10), nn.Linear(10, 8), nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x) + self.position(torch.arange(6))
        x = x + self.down(F.silu(self.up(self.norm(x))))
        return F.linear(x, self.embed.weight)


@pattern("lstm", SEQUENCE)
class Lstm(nn.Module):
    """Two layers: each has its own hidden width."""

    def __init__(self):
        super().__init__()
        self.stem, self.rnn, self.head = nn.Linear(8, 7), nn.LSTM(7, 5, 2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(torch.relu(self.stem(x)))[0][:, -1])


@pattern("gru_bidirectional", SEQUENCE)
class BidirectionalGru(nn.Module):
    """Two layers of both directions, read from the states."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 5, 2, batch_first=True, bidirectional=True), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(torch.cat([*self.rnn(x)[1][-2:]], -1))


@pattern("lstm_states", (6, 8), (5,))
class LstmStates(nn.Module):
    """The initial state is computed, so it goes with the hidden units."""

    def __init__(self):
        super().__init__()
        self.start, self.rnn, self.head = nn.Linear(5, 6), nn.LSTM(8, 6), nn.Linear(6, 3)

    def forward(self, x, y):
        start = self.start(y)[None]
        return self.head(self.rnn(x.transpose(0, 1), (start, torch.zeros_like(start)))[0][-1])


@pattern("mixer", SEQUENCE)
class Mixer(nn.Module):
    """An MLP over tokens: its hidden units are free, the tokens are not."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.inner(x)
        x = x + self.down(F.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2)
        return self.head(x.mean(1))


@pattern("group_norm")
class GroupNorm(nn.Module):
    """Many small groups go whole; few large ones lose the same positions and are not exact."""

    def __init__(self):
        super().__init__()
        self.a, self.many, self.b = nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3)
        self.few, self.c = nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = torch.relu(self.many(self.a(x)))
        return self.c(torch.relu(self.few(self.b(x)))).mean((2, 3))
