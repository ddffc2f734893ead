"""Attention with positions, scales or biases in tables of their own, as T5 and Swin v2 write them."""

from __future__ import annotations

import math

import torch
from nets_sequences import SEQUENCE, Encoder
from patterns import pattern
from torch import nn
from torch.nn import functional as F


@pattern("attention_buckets", SEQUENCE)
class Buckets(Encoder):
    """T5: distances are sorted into buckets, and a table has a bias for each bucket and head."""

    buckets = 8

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(self.buckets, self.heads)

    def bucket(self, distance):
        half, near = self.buckets // 2, self.buckets // 4
        sign = torch.where(distance > 0, half, 0)
        far = near + (torch.log(distance.abs().clamp(min=1) / near) / math.log(8) * near).long()
        far = torch.min(far, torch.full_like(far, half - 1))
        return sign + torch.where(distance.abs() < near, distance.abs(), far)

    def attend(self, q, k, v):
        places = torch.arange(q.shape[2])
        bias = self.table(self.bucket(places[None] - places[:, None])).permute(2, 0, 1).unsqueeze(0)
        mask = torch.where(places[None] <= places[:, None], 0.0, -1e9)
        return (q @ k.mT + bias + mask.unsqueeze(0)).softmax(-1) @ v


@pattern("attention_hidden", SEQUENCE)
class Hidden(Encoder):
    """Scores that are masked by a condition and a number, and weights that are kept by another."""

    def attend(self, q, k, v):
        scores = q @ k.mT
        near = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
        weights = torch.where(near, scores, -1e9).softmax(-1)
        return torch.where(scores > -1.0, weights, 0.0) @ v


@pattern("attention_cosine", SEQUENCE)
class Cosine(Encoder):
    """Swin v2: the bias of the keys is set to zero in place, and each head has its own temperature."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 36), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.log(10 * torch.ones(self.heads, 1, 1)))
        self.mlp = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, self.heads, bias=False))
        self.register_buffer("places", torch.randn(36, 2))

    def mix(self, x):
        n, t, _ = x.shape
        bias = self.qkv.bias.clone()
        length = bias.numel() // 3
        bias[length : 2 * length].zero_()
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        scores = scores * torch.clamp(self.scale, max=math.log(100.0)).exp()
        table = 16 * torch.sigmoid(self.mlp(self.places).view(t, t, -1).permute(2, 0, 1))
        y = (scores + table.unsqueeze(0)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


@pattern("attention_pooled", SEQUENCE)
class Pooled(Encoder):
    """MViT: every head is pooled by one convolution, which a class token does not pass; both are joined."""

    def __init__(self):
        super().__init__()
        self.pools = nn.ModuleList(nn.Conv1d(3, 3, 3, padding=1, groups=3, bias=False) for _ in range(3))

    def pooled(self, x, pool):
        n, h, t, d = x.shape
        token, rest = torch.tensor_split(x, (1,), 2)
        rest = pool(rest.transpose(2, 3).reshape(n * h, d, t - 1))
        return torch.cat((token, rest.reshape(n, h, d, t - 1).transpose(2, 3)), 2)

    def attend(self, q, k, v):
        q, k, v = (self.pooled(x, pool) for x, pool in zip((q, k, v), self.pools, strict=True))
        return (q @ k.mT).softmax(-1) @ v
