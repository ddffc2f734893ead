"""Further random token blocks: rarer attention, cells, experts, shared and cross attention, norms on time.

Same protocol as blocks_tokens.py; importing this module adds them to TOKENS.
"""

from __future__ import annotations

import math

import torch
from blocks import Block, divisor, width
from blocks_tokens import Mlp, block, norm
from torch import nn
from torch.nn import functional as F


class Heads(Block):
    """Splitting into heads and joining them again."""

    def split(self, x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def join(self, y):
        return y.transpose(1, 2).flatten(2)


@block
class Biased(Heads):
    """Positions enter through scores: a table by distance, slopes per head, head mixing, cosine, a scale."""

    def make(self, rng, c, t):
        self.heads, self.dim = rng.choice((2, 3, 4)), rng.choice((2, 4))
        inner = self.heads * self.dim
        self.q, self.k = nn.Linear(c, inner, bias=False), nn.Linear(c, inner, bias=False)
        self.v, self.out = nn.Linear(c, inner), nn.Linear(inner, c)
        self.kind = rng.choice(("distance", "slopes", "talking", "cosine", "scale", "causal", "sigmoid"))
        self.table, self.norm = nn.Embedding(2 * t, self.heads), norm(rng, c)
        at = torch.arange(t)
        self.register_buffer("apart", at[:, None] - at[None] + t)
        self.register_buffer("mask", torch.full((t, t), float("-inf")).triu(1))
        self.register_buffer("slopes", torch.rand(self.heads, 1, 1))
        self.before, self.after = (
            nn.Parameter(torch.randn(self.heads, self.heads)),
            nn.Linear(self.heads, self.heads),
        )
        self.scale = nn.Parameter(torch.rand(self.heads, 1, 1) + 0.5)
        self.gate = nn.Linear(c, inner) if rng.random() < 0.3 else None

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (self.split(f(y), self.heads) for f in (self.q, self.k, self.v))
        if self.kind == "cosine":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.mT
        if self.kind == "distance":
            scores = scores + self.table(self.apart).permute(2, 0, 1)
        elif self.kind == "slopes":
            scores = scores - self.slopes * self.apart
        elif self.kind == "talking":
            scores = torch.einsum("gh,nhij->ngij", self.before, scores)
        elif self.kind in ("scale", "cosine"):
            scores = scores * self.scale.exp()
        elif self.kind == "causal":
            scores = scores / math.sqrt(self.dim) + self.mask
        share = torch.sigmoid(scores) if self.kind == "sigmoid" else scores.softmax(-1)
        if self.kind == "talking":
            share = self.after(share.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        z = self.join(share @ v)
        return x + self.out(z if self.gate is None else z * torch.sigmoid(self.gate(y)))


@block
class Summary(Heads):
    """Attention that changes the number of tokens: learned queries, one query, pooled or linear attention."""

    def make(self, rng, c, t):
        self.kind = rng.choice(("latents", "class", "pool", "linear", "reduced"))
        self.heads, self.dim = rng.choice((1, 2, 3)), 3
        inner = self.heads * self.dim
        self.q, self.kv, self.out = nn.Linear(c, inner), nn.Linear(c, 2 * inner), nn.Linear(inner, c)
        self.size = {"latents": 3, "class": 1, "pool": 1}.get(self.kind, t)
        self.latents, self.score = nn.Parameter(torch.randn(1, 3, c)), nn.Linear(c, 1)
        self.reduce = nn.Conv1d(c, c, 2, 2)

    @staticmethod
    def fits(channels, size):
        return size >= 2

    def forward(self, x):
        if self.kind == "pool":
            return (self.score(x).softmax(1) * x).sum(1, keepdim=True)
        seen = self.reduce(x.mT).mT if self.kind == "reduced" else x
        k, v = (self.split(z, self.heads) for z in self.kv(seen).chunk(2, -1))
        start = {"latents": self.latents.expand(x.shape[0], -1, -1), "class": x[:, :1]}.get(self.kind, x)
        q = self.split(self.q(start), self.heads)
        if self.kind == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            state = torch.einsum("nhtd,nhte->nhde", k, v)
            y = torch.einsum("nhtd,nhde->nhte", q, state) / torch.einsum(
                "nhtd,nhd->nht", q, k.sum(2)
            ).unsqueeze(-1)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        y = self.out(self.join(y))
        return y if self.kind in ("latents", "class") else x + y


@block
class TorchAttention(Block):
    """nn.MultiheadAttention with its options: other key widths, masks, weights asked for, extra keys."""

    def make(self, rng, c, t):
        heads = divisor(rng, c)
        self.kind = rng.choice(("cross", "weights", "mask", "padding", "extra", "decoder"))
        self.memory, activation = nn.Linear(c, 5), rng.choice(("relu", "gelu"))
        if self.kind == "cross":
            self.inner = nn.MultiheadAttention(c, heads, kdim=5, vdim=5, batch_first=True)
        elif self.kind == "decoder":
            self.inner = nn.TransformerDecoderLayer(
                c, heads, 2 * c, activation=activation, batch_first=True, norm_first=rng.random() < 0.5
            )
        else:
            self.inner = nn.MultiheadAttention(
                c, heads, batch_first=True, bias=rng.random() < 0.7, add_zero_attn=self.kind == "extra"
            )
        self.register_buffer("mask", torch.full((t, t), float("-inf")).triu(1))
        self.register_buffer("hidden", torch.arange(t) == t - 1)

    def forward(self, x):
        if self.kind == "cross":
            m = torch.relu(self.memory(x))
            return x + self.inner(x, m, m, need_weights=False)[0]
        if self.kind == "decoder":
            return self.inner(x, torch.tanh(x[:, :2]))
        if self.kind == "weights":
            y, share = self.inner(x, x, x)
            return x + y + share.mean(-1, keepdim=True)
        if self.kind == "mask":
            return x + self.inner(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        if self.kind == "padding":
            gone = self.hidden.expand(x.shape[0], -1)
            return x + self.inner(x, x, x, key_padding_mask=gone, need_weights=False)[0]
        return x + self.inner(x, x, x, need_weights=False)[0]


@block
class Stepped(Block):
    """Recurrence written out: cells step by step, learned first states, an encoder feeding a decoder."""

    def make(self, rng, c, t):
        self.kind = rng.choice(
            ("lstm_cell", "gru_cell", "rnn_cell", "learned", "decoder", "stack", "projected")
        )
        h = rng.randint(3, 6)
        cell = {"gru_cell": nn.GRUCell, "rnn_cell": nn.RNNCell}.get(self.kind, nn.LSTMCell)
        self.cell, self.hidden = cell(c, h), h
        self.gru, self.lstm = nn.GRU(c, h, batch_first=True), nn.LSTM(c, h, batch_first=True)
        self.second = nn.LSTM(h, h, batch_first=True)
        self.first = nn.Parameter(torch.randn(1, 1, h))
        self.layers = nn.ModuleList(nn.GRU(c if i == 0 else h + c, h, batch_first=True) for i in range(2))
        self.projected = nn.LSTM(c, h + 2, batch_first=True, proj_size=h)
        self.channels = h

    def forward(self, x):
        n = x.shape[0]
        if self.kind == "learned":
            return self.gru(x, self.first.expand(-1, n, -1).contiguous())[0]
        if self.kind == "decoder":
            y, state = self.lstm(x)
            return self.second(torch.relu(y), state)[0]
        if self.kind == "stack":
            y = self.layers[0](x)[0]
            return self.layers[1](torch.cat([y, x], -1))[0] + y
        if self.kind == "projected":
            return self.projected(x)[0]
        state, out = x.new_zeros(n, self.hidden), []
        memory = x.new_zeros(n, self.hidden)
        for i in range(x.shape[1]):
            if self.kind == "lstm_cell":
                state, memory = self.cell(x[:, i], (state, memory))
            else:
                state = self.cell(x[:, i], state)
            out.append(state)
        return torch.stack(out, 1)


@block
class Experts(Block):
    """Weights in one tensor of three dimensions, mixed by a gate; low-rank pairs; a bilinear product."""

    def make(self, rng, c, t):
        self.kind = rng.choice(("experts", "batched", "lowrank", "bilinear", "gated_sum"))
        self.channels = h = width(rng, 4, 8)
        self.gate, self.up = nn.Linear(c, 3), nn.Parameter(torch.randn(3, c, h) / 3)
        self.down, self.a, self.b = nn.Parameter(torch.randn(3, h, h) / 3), nn.Linear(c, h), nn.Linear(c, h)
        self.rank, self.scale = nn.Parameter(torch.randn(c, 2)), nn.Parameter(torch.randn(2, h))
        self.pair = nn.Bilinear(c, c, h)

    def forward(self, x):
        if self.kind == "lowrank":
            return self.a(x) + x @ self.rank @ self.scale
        if self.kind == "bilinear":
            return self.pair(x, torch.tanh(x))
        share = self.gate(x).softmax(-1)
        if self.kind == "gated_sum":
            return share[..., :1] * self.a(x) + share[..., 1:2] * torch.relu(self.b(x))
        if self.kind == "experts":
            y = torch.relu(torch.einsum("ntc,ech->nteh", x, self.up))
            return torch.einsum("nteh,ehk,nte->ntk", y, self.down, share)
        n, t, c = x.shape
        y = torch.bmm(x.reshape(1, n * t, c).expand(3, -1, -1), self.up)
        y = torch.bmm(F.silu(y), self.down).view(3, n, t, -1)
        return (y * share.permute(2, 0, 1).unsqueeze(-1)).sum(0)


@block
class OnTime(Block):
    """Norms and filters that see time as positions, and tokens shifted, padded, masked or counted."""

    def make(self, rng, c, t):
        self.kind = rng.choice(
            ("batch", "instance", "group", "shift", "causal", "cumsum", "masked", "spectrum", "difference")
        )
        self.inner = nn.Linear(c, c)
        self.norm = {
            "batch": lambda: nn.BatchNorm1d(c), "instance": lambda: nn.InstanceNorm1d(c),
            "group": lambda: nn.GroupNorm(divisor(rng, c), c),
        }.get(self.kind, nn.Identity)()  # fmt: skip
        self.conv, self.cut = nn.Conv1d(c, c, 2), rng.randint(1, c - 1)
        self.filter = nn.Parameter(torch.randn(t, c))
        self.register_buffer("mask", torch.arange(t) < t - 1)

    @staticmethod
    def fits(channels, size):
        return size >= 2

    def forward(self, x):
        y = self.inner(x)
        if self.kind in ("batch", "instance", "group"):
            return self.norm(y.mT).mT
        if self.kind == "shift":
            late = F.pad(y, (0, 0, 1, 0))[:, :-1]
            return torch.cat([late[..., : self.cut], y[..., self.cut :]], -1)
        if self.kind == "causal":
            return self.conv(F.pad(y.mT, (1, 0))).mT
        if self.kind == "cumsum":
            return torch.cumsum(y, 1) / torch.arange(1, y.shape[1] + 1).unsqueeze(-1)
        if self.kind == "masked":
            there = self.mask.unsqueeze(-1)
            seen = (y * there).sum(1, keepdim=True) / there.sum(0)
            return torch.where(there, y, seen)
        if self.kind == "difference":
            return torch.cat([y[:, :1], y[:, 1:] - y[:, :-1]], 1)
        return y * torch.sigmoid(self.filter) + y.flip(1)


@block
class Shared(Block):
    """One block called twice, as ALBERT does, or two layers that share a weight, once transposed."""

    def make(self, rng, c, t):
        self.kind, self.inner = rng.choice(("twice", "tied", "transposed")), Mlp(rng, c, t)
        self.a, self.b, self.mid = nn.Linear(c, 6), nn.Linear(c, 6), nn.Linear(6, c)
        if self.kind == "tied":
            self.b.weight = self.a.weight

    def forward(self, x):
        if self.kind == "twice":
            return self.inner(torch.tanh(self.inner(x)))
        y = torch.relu(self.a(x))
        if self.kind == "transposed":
            return F.linear(y, self.a.weight.t()) + x
        return self.mid(y + torch.sigmoid(self.b(torch.relu(self.mid(y)))))
