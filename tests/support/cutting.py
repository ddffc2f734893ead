"""A traced network, its couplings and noise to run it on."""

from __future__ import annotations

import numpy as np
import torch

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.trace import run, trace


def prepared(net, *shape, batches=4, size=32, dtype=torch.float64, seed=0):
    """Trace, couplings and batches of noise for a module."""
    torch.manual_seed(seed)
    net = net.to(dtype).eval()
    inputs = [(torch.randn(size, *shape, dtype=dtype),) for _ in range(batches)]
    traced = trace(net, (inputs[0][0][:2],))
    return traced, analyse(traced), inputs


def without(couplings, weight, *channels):
    """A removal of these output channels of a layer."""
    removed = np.zeros(couplings.count, dtype=bool)
    vector = couplings.channel_maps[couplings.tensors[couplings.aliases[weight]][0]]
    removed[vector[list(channels)]] = True
    return removed


def apart(a, b, inputs):
    """Largest difference of the first outputs."""
    with torch.no_grad():
        return max(float((run(a.graph, x)[0] - run(b.graph, x)[0]).abs().max()) for x in inputs)


def squared(a, b, inputs):
    """Mean squared difference of the first outputs."""
    with torch.no_grad():
        return float(
            np.mean([float(((run(a.graph, x)[0] - run(b.graph, x)[0]) ** 2).mean()) for x in inputs])
        )
