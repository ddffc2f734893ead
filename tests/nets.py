"""One tiny network per coupling pattern; every weight is seeded, every net is in evaluation mode.

    net, inputs = build("residual")

`NETS` maps a pattern's name to its class; a class names its input shapes in `shapes`
(without batch; a leading "int" marks token ids). Batch norms carry random statistics, so
that removing the wrong channel shows.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

IMAGE = ((3, 8, 8),)
NETS: dict[str, type[nn.Module]] = {}


def pattern(name, *shapes):
    """Register a class under `name` with its input shapes."""

    def register(cls):
        cls.shapes = shapes or IMAGE
        NETS[name] = cls
        return cls

    return register


def build(name, *, seed=0, batch=2, dtype=torch.float64):
    """The network and example inputs of one pattern."""
    torch.manual_seed(seed)
    net = settle(NETS[name]())
    return net.to(dtype), inputs_of(NETS[name].shapes, batch=batch, dtype=dtype)


def settle(net):
    """Evaluation mode, with batch norm statistics and scales that differ per channel."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
            for p in module.parameters(recurse=False):
                nn.init.uniform_(p, 0.5, 1.5)
    return net.eval()


def inputs_of(shapes, *, batch=2, dtype=torch.float64):
    made = []
    for shape in shapes:
        if shape[0] == "int":
            made.append(torch.randint(0, 7, (batch, *shape[1:])))
        else:
            made.append(torch.randn(batch, *shape, dtype=dtype))
    return tuple(made)


def conv(i, o, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


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
