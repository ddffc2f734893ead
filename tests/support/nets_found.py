"""Minimal networks of what random networks broke once; each holds in every test over NETS."""

from __future__ import annotations

import torch
from patterns import conv, pattern
from torch import nn


@pattern("ordered")
class Ordered(nn.Module):
    """Channels in an order of a table: its numbers are out of range once some are gone, so they stay."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 5), conv(5, 3)
        self.register_buffer("order", torch.tensor([5, 3, 1, 0, 2, 4]))

    def forward(self, x):
        return self.c(torch.relu(self.b(self.a(x)[:, self.order]))).mean((2, 3))


@pattern("cell", (4, 5))
class Cell(nn.Module):
    """A cell that starts from a constant: its rows are samples, which nothing may remove."""

    def __init__(self):
        super().__init__()
        self.hidden, self.cell, self.head = 6, nn.LSTMCell(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        state = memory = torch.ones(2, self.hidden, dtype=x.dtype)
        for i in range(x.shape[1]):
            state, memory = self.cell(x[:, i], (state, memory))
        return self.head(state)
