"""Grouped transposed convolutions: the weight is (inputs, outputs per group, …), like no other."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from captured import captured
from scoring import pattern
from torch import nn

import edgeprune
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.criteria import BUILT_IN, Context, score
from edgeprune.data import open_data
from edgeprune.graph.trace import run, trace
from edgeprune.masks.evidence import evidence
from edgeprune.masks.sources import mask_from_zeros
from edgeprune.surgery.cut import cut
from edgeprune.surgery.oracle import masked

NAMES = ("transposed_groups1d", "transposed_groups2d", "transposed_groups3d")


def group_components(couplings):
    """Components of the inputs of the transposed layer, one per group, shape (groups, inputs per group)."""
    layer = next(x for x in couplings.layers if x.groups > 1)
    inputs = couplings.channel_maps[couplings.tensors[layer.weight][0]]
    return inputs.reshape(layer.groups, -1)


def test_magnitude_is_the_norm_of_a_whole_group():
    """A group's filters are its rows of the weight and what writes its inputs: closed form on ones."""
    net, _ = nets.build("transposed_groups1d", dtype=torch.float32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
        net.up.weight[4:] = 3.0  # the second of two groups
    traced = trace(net, (torch.randn(2, 3, 6),))
    couplings = analyse(traced)
    scores = score("l2", Context(traced, couplings))
    first, second = group_components(couplings)[:, 0]
    # 4 filters of `a` with 3 weights each, 4 inputs × 6 outputs × 2 taps of `up`
    assert scores.component[first] == pytest.approx(np.sqrt(4 * 3 + 4 * 6 * 2))
    assert scores.component[second] == pytest.approx(np.sqrt(4 * 3 + 9 * 4 * 6 * 2))


@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        *((c, NAMES[0]) for c in sorted(BUILT_IN)),
        *((c, n) for c in ("l2", "fpgm", "taylor") for n in NAMES[1:]),
    ],
)
def test_every_criterion_ranks_positions_within_groups(criterion, name):
    """The other choice, the same positions of every group, is scored as well."""
    net, inputs = nets.build(name, dtype=torch.float32)
    traced = trace(net, inputs)
    couplings = analyse(traced, choice=FactorChoice(groups="position"))
    x = np.random.default_rng(0).normal(size=(32, *inputs[0].shape[1:])).astype(np.float32)
    data = open_data((x, np.arange(32) % 4))
    scores = score(criterion, Context(traced, couplings, captured(traced, couplings, data, np.arange(32))))
    assert scores.component.shape == (couplings.count,)
    assert np.ptp(scores.component) > 0


@pytest.mark.parametrize("groups", ["whole", "position"])
@pytest.mark.parametrize("name", [*NAMES, "transposed_multiplier"])
def test_removing_equals_silencing(name, groups):
    """Both choices, in one to three dimensions, in double precision."""
    net, inputs = nets.build(name)
    traced = trace(net, inputs)
    couplings = analyse(traced, choice=FactorChoice(groups=groups))
    layer = next(x for x in couplings.layers if x.groups > 1)
    free = np.unique(couplings.channel_maps[layer.outputs])
    removed = np.zeros(couplings.count, bool)
    removed[free[free >= 0][0]] = True
    small = run(cut(traced, couplings, removed).graph, inputs)[0]
    torch.testing.assert_close(small, masked(traced, couplings, removed)[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_of_a_group_count_as_its_connections(name):
    """A mask that zeroes one group of the weight leaves none of that component's connections."""
    net, inputs = nets.build(name, dtype=torch.float32)
    couplings = analyse(trace(net, inputs))
    components = group_components(couplings)
    size = components.shape[1]
    with torch.no_grad():
        net.up.weight[:size] = 0.0
        net.b.weight[:, : net.up.weight.shape[1]] = 0.0  # what reads the group's outputs
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    share = evidence(mask_from_zeros(state), {}, couplings).kept_share
    assert share[components[0, 0]] == 0.0
    assert (share[components[1:, 0]] == 1.0).all()


class Outer(nn.Module):
    """Code that no export takes, around a network that it does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.sum() < 1e9 else x


@pytest.mark.parametrize("name", NAMES)
def test_parts_with_them_are_pruned(name):
    """The user's own class, sliced: it runs, with fewer MACs, and every layer fits its attributes."""
    net, inputs = nets.build(name, dtype=torch.float32)
    pruned = edgeprune.prune_parts(Outer(net), inputs, macs=0.5).module.inner
    assert pruned(*inputs).shape == net(*inputs).shape
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in net.parameters())
    up = pruned.up
    assert up.weight.shape[:2] == (up.in_channels, up.out_channels // up.groups)


def test_the_contexts_of_the_contract_hold_grouped_transposed_layers():
    """The contract's tests score them on whole groups, with every criterion."""
    layers = pattern("transposed_groups1d", samples=8).couplings.layers
    assert [layer.groups for layer in layers] == [1, 2, 1, 1]
