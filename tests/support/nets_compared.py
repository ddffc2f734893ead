"""Networks that compare along positions: what is chosen there depends on the data, channels do not."""

from __future__ import annotations

import torch
from patterns import conv, pattern
from torch import nn


@pattern("topk")
class TopK(nn.Module):
    """The largest five positions of every channel, and the three smallest of some."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        y = self.b(torch.relu(self.a(x))).flatten(2)
        largest, places = y.topk(5, -1)
        smallest = y.topk(3, largest=False).values
        return self.head(largest.mean(-1) - smallest.sum(-1) + 0.1 * places.to(x.dtype).mean(-1))


@pattern("compared")
class Compared(nn.Module):
    """Sort, median, a running maximum, the place of the largest; spreads and products over positions."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        y = torch.relu(self.a(x))
        y = y.sort(2, descending=True).values + y.cummax(3).values * y.max(3, keepdim=True).values
        y = torch.tanh(self.b(y))
        spread, mean = torch.std_mean(y, (2, 3))
        last = y[:, :, 0]
        ordered = last.median(-1).values + last.kthvalue(2).values + last.argmax(-1) * 0.1
        return self.head(spread * mean + ordered + last.prod(-1) + (last > 0).any(-1).to(x.dtype))


@pattern("topk_channels")
class TopKChannels(nn.Module):
    """The largest channels are chosen by the data: those stay, the others are free."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(6, 5), nn.Linear(3, 4)

    def forward(self, x):
        y = self.b(torch.relu(self.a(x))).mean((2, 3))
        return self.head(y.topk(3, 1).values)
