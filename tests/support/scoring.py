"""A tiny network with noise or made-up data, ready to be scored."""

from __future__ import annotations

import nets
import numpy as np
import torch
from captured import captured
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.criteria import Context
from edgeprune.data import open_data
from edgeprune.graph.trace import trace


def context_of(net, x, y=None, *, seed=0, theta=0.0, example=None):
    """Context of a float32 module on samples x (array or token ids) and labels y."""
    example = (torch.from_numpy(x[:2]),) if example is None else example
    traced = trace(net.eval(), example)
    couplings = analyse(traced)
    statistics = captured(traced, couplings, open_data((x, y)), np.arange(len(x)), seed=seed)
    return Context(traced, couplings, statistics, seed, theta)


class Pooled(nn.Module):
    """Class scores of a network that gives a map: the mean of each channel."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).flatten(2).mean(2)


def pattern(name, *, samples=64, seed=0, theta=0.0):
    """Context of one of the tiny networks on noise, with random labels; maps are pooled to class scores."""
    net, inputs = nets.build(name, seed=seed, dtype=torch.float32)
    rng = np.random.default_rng(seed)
    shape = (samples, *inputs[0].shape[1:])
    tokens = not inputs[0].is_floating_point()
    x = rng.integers(0, 7, shape) if tokens else rng.normal(size=shape).astype(np.float32)
    with torch.no_grad():
        out = net(torch.from_numpy(x[:2]))
    if out.dim() > 2:
        net = Pooled(net)
    y = rng.integers(0, out.shape[1], samples)
    return context_of(net, x, y, seed=seed, theta=theta, example=inputs)


def mlp(weights, head):
    """relu(x Wᵀ) → head: a network with one free layer and no bias."""
    net = nn.Sequential(
        nn.Linear(weights.shape[1], len(weights), bias=False), nn.ReLU(), nn.Linear(*head.T.shape)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.as_tensor(weights))
        net[2].weight.copy_(torch.as_tensor(head))
        net[2].bias.zero_()
    return net


def hidden(context, weight="0.weight"):
    """Component of each output channel of a layer."""
    couplings = context.couplings
    return couplings.channel_maps[couplings.tensors[couplings.aliases[weight]][0]]


class RecurrentStack(nn.Module):
    """Two GRU layers: the lower one's units are read by recurrent weights only."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0].mean(1))


class HeadWidth(nn.Module):
    """One attention head: with width free, queries and keys are multiplied with each other only."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        q, k, v = (f(x).unsqueeze(1) for f in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.o(mixed.squeeze(1)).mean(1))


def unread(name, samples=64):
    """Context of a network with components that no plain layer reads."""
    torch.manual_seed(0)
    net, shape = {"recurrent": (RecurrentStack(), (7, 4)), "head_width": (HeadWidth(), (5, 6))}[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, *shape)).astype(np.float32)
    traced = trace(net.eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced, choice=FactorChoice(heads="width"))
    data = open_data((x, rng.integers(0, 3, samples)))
    return Context(traced, couplings, captured(traced, couplings, data, np.arange(samples)))
