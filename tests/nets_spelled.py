"""Operators under other names than the usual, or in forms that torch.export keeps as they are."""

from __future__ import annotations

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
