"""A profile with known laws in it, and a small network it may stand for."""

import numpy as np
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.trace import trace
from edgeprune.latency.profiles import Profile, ProfiledLayer, ProfilePoint, Whole, Width
from edgeprune.records import Interval

MACHINE = {"architecture": "x86_64", "processor": "made up", "board": None, "cores": 2, "onnxruntime": "1.0"}
MACHINE["flags"] = ["avx", "avx2", "fma"]
SHAPES = ("Conv 3x3 16->32 at 8x8", "Gemm 32->10")


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def small_network():
    """Trace and couplings of Small."""
    torch.manual_seed(0)
    traced = trace(Small().eval(), (torch.randn(2, 3, 8, 8),))
    return traced, analyse(traced)


def interval(value: float) -> Interval:
    return Interval(value, value, value)


def conv_ms(i: float, o: float) -> float:
    """The law of the made-up convolution: blocks of 8 outputs, a cliff where inputs are no multiple of 4."""
    return (0.01 + 0.0004 * i * (np.ceil(o / 8) * 8)) * (1.0 if i % 4 == 0 else 1.8)


def gemm_ms(i: float) -> float:
    return 0.002 + 0.0001 * i


def made_up(networks: int = 40, *, watching: float = 0.001, seed: int = 0) -> Profile:
    """A profile of Small's second convolution and classifier with the laws above and no noise."""
    rng = np.random.default_rng(seed)
    pairs = [(16, 32), *((int(rng.integers(1, 17)), int(rng.integers(1, 33))) for _ in range(networks))]
    layers = (
        ProfiledLayer("c2", "Conv", SHAPES[0], Width(16, "second.weight", 1), Width(32, "second.weight", 0)),
        ProfiledLayer("fc", "Gemm", SHAPES[1], Width(32, "second.weight", 0), Width(10)),
    )
    points, wholes = [], []
    for i, o in pairs:
        own = (conv_ms(i, o), gemm_ms(o))
        points += [ProfilePoint(n, a, b, 1, interval(t + watching)) for n, (a, b, t) in enumerate(
            ((i, o, own[0]), (o, 10, own[1])))]  # fmt: skip
        total = sum(own)
        wholes.append(Whole(((i, o), (o, 10)), interval(total + 0.003), total + 2 * watching, 0.0, 2, 0))
    lots = ((wholes[0].p50_ms.value, wholes[0].operators_ms),)
    return Profile(
        target="host", board=None, machine=dict(MACHINE), threads=1, date="2026-01-01", model="small",
        layers=layers, shapes=SHAPES, points=tuple(points), wholes=tuple(wholes), lots=lots,
        planned=len(wholes), request="made up",
    )  # fmt: skip
