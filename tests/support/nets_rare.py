"""Tiny networks with rarer structure: tied weights, parts, tables, several inputs, unknown operators."""

from __future__ import annotations

import torch
from patterns import conv, pattern
from torch import nn
from torch.nn import functional as F


@pattern("tied", (6,))
class Tied(nn.Module):
    """One weight object used by two layers, once transposed."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.c.weight = self.b.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x))
        x = torch.relu(self.c(x))
        return self.head(F.linear(x, self.b.weight.t()))


@pattern("reused")
class Reused(nn.Module):
    """One module called twice: what it reads and writes is one set of channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.fc = conv(3, 6), conv(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for _ in range(2):
            x = torch.relu(self.block(x))
        return self.fc(x.mean((2, 3)))


@pattern("split")
class Split(nn.Module):
    """Unequal parts go separate ways; one part is a gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.fc = conv(3, 10), conv(4, 5), conv(3, 5), nn.Linear(5, 4)

    def forward(self, x):
        p, q, r = torch.split(self.a(x), [4, 3, 3], 1)
        return self.fc((self.b(p) + self.c(q * torch.sigmoid(r))).mean((2, 3)))


@pattern("glu", (10,))
class Glu(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 12), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(F.glu(self.a(x)))


@pattern("functional")
class Functional(nn.Module):
    """Parameters that belong to no layer module."""

    def __init__(self):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 3, 3, 3) / 5), nn.Parameter(torch.randn(6))
        self.scale, self.w2 = nn.Parameter(torch.rand(6, 1, 1) + 0.5), nn.Parameter(torch.randn(6, 4) / 3)
        self.register_buffer("shift", torch.randn(1, 6, 1, 1))

    def forward(self, x):
        x = F.conv2d(x, self.w1, self.b1, padding=1) * self.scale + self.shift
        return F.leaky_relu(x).mean((2, 3)) @ self.w2


@pattern("inception")
class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three, self.five = (
            conv(3, 3, 1),
            conv(3, 4),
            nn.Sequential(conv(3, 2, 1), conv(2, 3, 5)),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(3, 2, 1))
        self.next, self.fc = conv(12, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)
        return self.fc(F.avg_pool2d(torch.relu(self.next(x)), 8).flatten(1))


@pattern("transposed")
class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.out = conv(3, 6, stride=2), nn.ConvTranspose2d(6, 5, 2, 2), conv(5, 2)

    def forward(self, x):
        return self.out(torch.relu(self.up(torch.relu(self.down(x)))))


@pattern("unet")
class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.mid, self.up = conv(3, 5), conv(5, 6), nn.ConvTranspose2d(6, 4, 2, 2)
        self.dec, self.out = conv(9, 5), conv(5, 2, 1)

    def forward(self, x):
        a = torch.relu(self.enc(x))
        b = self.up(torch.relu(self.mid(F.max_pool2d(a, 2))))
        return self.out(torch.relu(self.dec(torch.cat([a, b], 1))))


@pattern("pixel_shuffle")
class PixelShuffle(nn.Module):
    """Four channels make one finer channel: they go together."""

    def __init__(self):
        super().__init__()
        self.a, self.up, self.b = conv(3, 5), conv(5, 12), conv(3, 2)

    def forward(self, x):
        return self.b(torch.relu(F.pixel_shuffle(self.up(torch.relu(self.a(x))), 2)))


@pattern("focus")
class Focus(nn.Module):
    """Space to depth by strided slices, as in YOLOv5's first layer, on inner channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = conv(3, 4), conv(16, 5), nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


@pattern("roll")
class Roll(nn.Module):
    """Channels rolled around do not commute with removal and must stay."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 5), conv(5, 3)

    def forward(self, x):
        x = torch.roll(torch.relu(self.a(x)), 2, 1)
        return self.c(torch.relu(self.b(x))).mean((2, 3))


@pattern("flip")
class Flip(nn.Module):
    """A flip along channels commutes with removal of mirrored channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 6), conv(6, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.b(x + x.flip(1)).mean((2, 3))


@pattern("unknown")
class Unknown(nn.Module):
    """The cumulative product of channels has no rule: those channels stay, the others are free."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 5), conv(5, 3)

    def forward(self, x):
        x = torch.cummax(torch.sigmoid(self.a(x)), 1).values
        return self.c(torch.relu(self.b(x))).mean((2, 3))


@pattern("outputs")
class Outputs(nn.Module):
    """Two outputs in a dictionary; one of them is an inner layer that must stay whole."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 5), conv(5, 3)

    def forward(self, x):
        y = torch.relu(self.b(torch.relu(self.a(x))))
        return {"mask": self.c(y), "features": (y, y.mean((2, 3)))}


@pattern("two_inputs", (3, 8, 8), (5,))
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = conv(3, 6), nn.Linear(5, 6), nn.Linear(12, 4)

    def forward(self, x, y):
        x, y = torch.relu(self.a(x)).mean((2, 3)), torch.relu(self.b(y))
        return self.fc(torch.cat([x * y, x - y], 1))


@pattern("conv1d", (3, 16))
class Conv1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.Conv1d(6, 5, 3, 2)
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        x = F.max_pool1d(F.elu(self.bn(self.a(x))), 2)
        return self.fc(F.adaptive_avg_pool1d(torch.relu(self.b(x)), 1).squeeze(-1))


@pattern("conv3d", (3, 4, 6, 6))
class Conv3d(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.Conv3d(6, 5, 1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        x = F.max_pool3d(torch.relu(self.bn(self.a(x))), 2)
        return self.fc(F.adaptive_avg_pool3d(torch.relu(self.b(x)), 1).flatten(1))


@pattern("prelu")
class PRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.act, self.b = conv(3, 6), nn.PReLU(6), conv(6, 3)

    def forward(self, x):
        return self.b(self.act(self.a(x))).mean((2, 3))


@pattern("padding")
class Padding(nn.Module):
    """Positions padded by value, reflection and replication; then channels padded with zeros."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Conv2d(8, 3, 3)

    def forward(self, x):
        x = self.a(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        x = self.b(F.pad(torch.relu(x), (1, 1, 1, 1), value=0.5))
        return self.c(F.pad(torch.relu(x), (0, 0, 0, 0, 1, 2))).mean((2, 3))
