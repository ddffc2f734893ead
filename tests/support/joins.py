"""Random networks with two inputs and several outputs, for the generator.

`Pair(rng)` has a stem per input (image, tokens, words or a vector), brings both to the
same width and joins them; it gives a tuple, a dictionary or one tensor.
"""

from __future__ import annotations

import torch
from blocks import IMAGE, chain, width
from blocks_tokens import TOKENS
from torch import nn
from torch.nn import functional as F


class Stem(nn.Module):
    """One input, worked on and read as tokens (N, T, C) of `channels`."""

    def __init__(self, rng, channels):
        super().__init__()
        self.kind = rng.choice(("image", "tokens", "words", "vector"))
        if self.kind == "image":
            self.shape, self.first = (3, 4, 4), nn.Conv2d(3, 6, 3, padding=1)
            self.body, c, _ = chain(rng, 6, 4, 1, IMAGE)
        else:
            self.shape = {"tokens": (4, 5), "words": ("int", 4), "vector": (5,)}[self.kind]
            self.first = nn.Embedding(7, 8) if self.kind == "words" else nn.Linear(5, 8)
            self.body, c, _ = chain(rng, 8, 1 if self.kind == "vector" else 4, 1, TOKENS)
        self.last = nn.Linear(c, channels)

    def forward(self, x):
        y = self.first(x)
        if self.kind == "image":
            return self.last(self.body(y).flatten(2).transpose(1, 2))
        return self.last(self.body(y.unsqueeze(1) if self.kind == "vector" else y))


class Pair(nn.Module):
    """Two stems, one way of joining, one kind of output."""

    def __init__(self, rng):
        super().__init__()
        c = width(rng, 4, 8)
        self.left, self.right, self.c = Stem(rng, c), Stem(rng, c), c
        self.shape = (self.left.shape, self.right.shape)
        self.join = rng.choice(("add", "cat", "product", "cross", "film", "distance", "time", "start"))
        wide = 2 * c if self.join in ("cat", "film") else c
        self.q, self.k, self.v = nn.Linear(c, c), nn.Linear(c, c), nn.Linear(c, c)
        self.film, self.rnn = nn.Linear(c, 2 * c), nn.GRU(c, c, batch_first=True)
        self.head, self.other = nn.Linear(wide if self.join == "cat" else c, 3), nn.Linear(c, 2)
        self.gives = rng.choice(("one", "tuple", "dict", "inner"))

    def forward(self, a, b):
        a, b = torch.relu(self.left(a)), torch.tanh(self.right(b))
        y = self.joined(a, b)
        main, beside = self.head(y), self.other(b.mean(1))
        if self.gives == "tuple":
            return main, beside
        if self.gives == "dict":
            return {"main": main, "parts": (beside, main.softmax(-1))}
        return (main, a.mean(1)) if self.gives == "inner" else main

    def joined(self, a, b):
        x, z = a.mean(1), b.mean(1)
        if self.join == "add":
            return x + z
        if self.join == "cat":
            return torch.cat([x, z], -1)
        if self.join == "product":
            return x * torch.sigmoid(self.q(z)) - z
        if self.join == "film":
            scale, shift = self.film(z).chunk(2, -1)
            return x * scale + shift
        if self.join == "distance":
            return self.q(x) * torch.exp(-(x - z).pow(2).sum(-1, keepdim=True))
        if self.join == "time":
            return self.rnn(torch.cat([a, b], 1))[0][:, -1]
        if self.join == "start":
            return self.rnn(a, z[None].contiguous())[0][:, -1]
        return F.scaled_dot_product_attention(self.q(a), self.k(b), self.v(b)).mean(1)
