"""Graphs that mask their own weights become plain graphs with a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import quiet, run, trace
from edgeprune.simplify.hooks import fuse_masks
from edgeprune.simplify.lossless import certify, lossless


def pruned_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2)
    )
    prune.ln_structured(net[0], "weight", amount=2, n=2, dim=0)
    prune.l1_unstructured(net[2], "weight", 0.5)
    prune.random_unstructured(net[2], "bias", 1)
    return net.eval(), (torch.randn(2, 3, 7, 7),)


def test_an_exported_program_with_prune_hooks_becomes_plain():
    """`weight_orig` and `weight_mask` become `weight`: outputs bit for bit, masks those of the hooks."""
    net, inputs = pruned_net()
    with quiet():
        program = torch.export.export(net, inputs)
    traced = trace(program)
    plain, mask = fuse_masks(traced)
    assert torch.equal(run(plain.graph, inputs)[0], run(traced.graph, inputs)[0])
    assert set(state_tensors(plain.graph)) == {f"{i}.{n}" for i in (0, 2, 5) for n in ("weight", "bias")}
    assert np.array_equal(mask.keep["0.weight"], net[0].weight_mask.bool().numpy())
    assert set(mask.keep) == {"0.weight", "2.weight", "2.bias"}
    assert "0.weight_orig" in state_tensors(traced.graph)


def test_the_hooked_channels_are_then_removed():
    """Without fusing every masked layer is pinned; with it the two masked filters go."""
    net, inputs = pruned_net()
    traced = trace(net, inputs)
    plain, mask = fuse_masks(traced)
    found = lossless(plain, analyse(plain), mask, [inputs])
    assert state_tensors(found.small.graph)["0.weight"].shape[0] == 4
    assert certify(traced, found.small, [inputs]) <= 1e-6


def test_products_that_are_no_masks_stay():
    """A learned scale, a constant other than 0 and 1, and a weight that is used twice are left alone."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Parameter(torch.randn(4, 4)) for _ in range(3))
            self.scale = nn.Parameter(torch.ones(4, 4))
            self.register_buffer("halves", torch.full((4, 4), 0.5))
            self.register_buffer("ones", torch.ones(4, 4))

        def forward(self, x):
            x = torch.relu(nn.functional.linear(x, self.a * self.scale))
            x = torch.relu(nn.functional.linear(x, self.b * self.halves))
            return nn.functional.linear(nn.functional.linear(x, self.c * self.ones), self.c)

    inputs = (torch.randn(2, 4),)
    traced = trace(Scaled().eval(), inputs)
    plain, mask = fuse_masks(traced)
    assert plain is traced
    assert mask.keep == {}
