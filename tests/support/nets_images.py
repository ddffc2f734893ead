"""Tiny image networks: the patterns of ordinary CNNs."""

from __future__ import annotations

import torch
from patterns import conv, pattern
from torch import nn
from torch.nn import functional as F


@pattern("chain")
class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b, self.fc = conv(3, 6), nn.BatchNorm2d(6), conv(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.a(x)))
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


@pattern("mlp", (12,))
class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(12, 10), nn.GELU(), nn.Dropout(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.net(x)


@pattern("residual")
class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = conv(3, 6), conv(6, 7), conv(7, 6), nn.Linear(6, 4)
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.bn(self.b(F.relu(self.a(x)))))
        return self.head(x.mean((2, 3)))


@pattern("inplace")
class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = conv(3, 6), conv(6, 6), nn.Linear(6, 4)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        x = self.relu(self.a(x))
        y = self.b(x)
        y += x
        y = self.drop(self.relu(y))
        y.clamp_(max=3.0)
        return self.fc(y.mean((2, 3)))


@pattern("concat")
class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.next, self.fc = conv(3, 5), conv(3, 4), conv(12, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.cat([torch.relu(self.left(x)), x, torch.sigmoid(self.right(x))], 1)
        return self.fc(torch.relu(self.next(x)).mean((2, 3)))


@pattern("dense")
class Dense(nn.Module):
    """Every layer reads all before it, as in DenseNet."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 4)
        self.convs = nn.ModuleList(conv(4 + 3 * i, 3) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(3))
        self.fc = nn.Linear(13, 4)

    def forward(self, x):
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], 1)
        return self.fc(x.mean((2, 3)))


@pattern("depthwise")
class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.dw, self.down = conv(3, 8, 1), conv(8, 8, groups=8), conv(8, 5, 1)
        self.bn, self.fc = nn.BatchNorm2d(8), nn.Linear(5, 4)

    def forward(self, x):
        x = F.hardswish(self.bn(self.dw(F.relu6(self.up(x)))))
        return self.fc(self.down(x).mean((2, 3)))


@pattern("multiplier")
class Multiplier(nn.Module):
    """A depthwise convolution with two outputs per input."""

    def __init__(self):
        super().__init__()
        self.up, self.dw, self.down = conv(3, 4, 1), conv(4, 8, groups=4), conv(8, 4, 1)

    def forward(self, x):
        return self.down(torch.relu(self.dw(self.up(x)))).mean((2, 3))


@pattern("grouped")
class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.g, self.b = conv(3, 12), conv(12, 8, groups=4), conv(8, 5)

    def forward(self, x):
        return self.b(torch.relu(self.g(torch.relu(self.a(x))))).mean((2, 3))


@pattern("shuffle")
class Shuffle(nn.Module):
    """Split, work on one half, join, interleave: ShuffleNet's unit twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = conv(3, 8), nn.Linear(8, 4)
        self.units = nn.ModuleList(
            nn.Sequential(conv(4, 4, 1), nn.ReLU(), conv(4, 4, groups=4)) for _ in range(2)
        )

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for unit in self.units:
            a, b = x.chunk(2, 1)
            x = torch.cat([a, unit(b)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.fc(x.mean((2, 3)))


@pattern("channel_shuffle")
class ChannelShuffle(nn.Module):
    """The operator of that name between two grouped convolutions."""

    def __init__(self):
        super().__init__()
        self.a, self.g, self.h, self.b = conv(3, 8), conv(8, 8, groups=2), conv(8, 8, groups=4), conv(8, 4)

    def forward(self, x):
        x = F.channel_shuffle(self.g(torch.relu(self.a(x))), 2)
        return self.b(torch.relu(self.h(x))).mean((2, 3))


@pattern("squeeze")
class SqueezeExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = conv(3, 8), conv(8, 6), nn.Linear(6, 4)
        self.down, self.up = conv(8, 3, 1), conv(3, 8, 1)

    def forward(self, x):
        x = torch.relu(self.a(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc(self.b(x * gate).amax((2, 3)))


@pattern("flatten")
class Flatten(nn.Module):
    """A channel becomes 16 inputs of the linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.pool, self.fc1, self.fc2 = conv(3, 5), nn.MaxPool2d(2), nn.Linear(80, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = self.pool(torch.relu(self.a(x)))
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


@pattern("view")
class View(nn.Module):
    """The batch size is read from the input and used in a reshape."""

    def __init__(self):
        super().__init__()
        self.a, self.fc1, self.fc2 = conv(3, 5), nn.Linear(80, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = F.avg_pool2d(torch.relu(self.a(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.view(x.size(0), 5 * 16))))


class TransposedGroups(nn.Module):
    """A layer, a transposed convolution in groups, a layer, in one to three dimensions."""

    rank, groups = 2, 2

    def __init__(self):
        super().__init__()
        plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.rank - 1]
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[self.rank - 1]
        self.a, self.up = plain(3, 8, 1), transposed(8, 12, 2, stride=2, groups=self.groups)
        self.b, self.head = plain(12, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.up(torch.relu(self.a(x))))))
        return self.head(x.flatten(2).mean(2))


@pattern("transposed_groups1d", (3, 6))
class TransposedGroups1d(TransposedGroups):
    rank = 1


@pattern("transposed_groups2d", (3, 4, 4))
class TransposedGroups2d(TransposedGroups):
    groups = 4


@pattern("transposed_groups3d", (3, 3, 3, 3))
class TransposedGroups3d(TransposedGroups):
    rank = 3


@pattern("transposed_multiplier", (3, 4, 4))
class TransposedMultiplier(nn.Module):
    """One input and two outputs per group."""

    def __init__(self):
        super().__init__()
        self.a, self.up = nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 12, 2, stride=2, groups=6)
        self.b = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        return self.b(torch.relu(self.up(torch.relu(self.a(x))))).mean((2, 3))
