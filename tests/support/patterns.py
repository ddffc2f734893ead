"""The register of tiny networks: seeded weights, evaluation mode, statistics that differ per channel."""

from __future__ import annotations

import functools

import torch
from torch import nn

from edgeprune.graph.normalise import functional, normalise
from edgeprune.graph.trace import Trace, quiet, trace

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


@functools.cache
def traced(name, *, full=False):
    """The trace of one pattern: with a fixed batch, or in full with a free one, which takes longer."""
    net, inputs = build(name)
    return trace(net, inputs) if full else quick_trace(net, inputs)


def quick_trace(net, inputs):
    """A trace with a fixed batch and no second pass where the graph is functional as it is."""
    with quiet():
        graph = functional(torch.export.export(net, inputs), tuple(torch.utils._pytree.tree_leaves(inputs)))
        normalise(graph)
    flat = torch.utils._pytree.tree_leaves(inputs)
    return Trace(graph, tuple(flat), (False,) * len(flat))


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
