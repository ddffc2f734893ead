"""Operators under other names than the usual, or in forms that torch.export keeps as they are."""

from __future__ import annotations

import warnings

import torch
from patterns import conv, pattern
from torch import nn
from torch.nn import functional as F


@pattern("other_names")
class OtherNames(nn.Module):
    """Elementwise operators that torch does not tag as such."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 5), conv(5, 3)
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 1)

    def forward(self, x):
        x = torch.divide(torch.multiply(F.logsigmoid(self.a(x)), self.scale), 1.5)
        x = torch.subtract(torch.rsub(x, self.scale), torch.special.expit(torch.absolute(x)))
        x = torch.where(torch.less(x, 0.5), x, 0.25)
        x = torch.negative(self.b(x))
        return self.c(x.masked_fill(torch.greater(x, 1.0), torch.tensor(0.5, dtype=x.dtype)))


@pattern("weight_norm", (3, 12))
class WeightNorm(nn.Module):
    """Weights made of lengths and directions, or divided by their largest singular value, old and new."""

    def __init__(self):
        super().__init__()
        norms = nn.utils.parametrizations
        self.a = norms.weight_norm(nn.Conv1d(3, 6, 3, padding=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both are deprecated, and found in many files
            self.b = nn.utils.weight_norm(nn.Conv1d(6, 5, 3, padding=1), dim=None)
            self.c = nn.utils.spectral_norm(nn.Conv1d(5, 7, 1))
        self.d, self.e = norms.spectral_norm(nn.Linear(7, 6)), norms.orthogonal(nn.Linear(6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x))))
        x = torch.relu(self.d(torch.relu(self.c(x)).mean(2)))
        return self.head(torch.relu(self.e(x)))


@pattern("lstm_projected", (6, 7))
class LstmProjected(nn.Module):
    """Two layers, both directions, whose outputs are narrower than their cells."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.rnn = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, proj_size=3)
        self.head, self.cells, self.last = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(3, 4)

    def forward(self, x):
        y, (h, c) = self.rnn(torch.tanh(self.stem(x)))
        return self.head(y[:, -1]) + self.cells(c[0] - c[3]) + self.last(h[2])


@pattern("lstm_projected_once", (6, 7))
class LstmProjectedOnce(nn.Module):
    """One layer, no biases; the last output is read."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(7, 8, bias=False, batch_first=True, proj_size=4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])
