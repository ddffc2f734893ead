"""A recipe applied to the user's own class: sliced, updated, proven, or refused with the line."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from generate import draw_removal
from torch import nn

from edgeprune.errors import ModelError, TraceError
from edgeprune.model.trace import run, trace
from edgeprune.surgery import analyse, cut
from edgeprune.surgery.apply import apply_recipe
from edgeprune.surgery.recipe import recipe


def made(net, inputs, seed=3):
    traced = trace(net, inputs)
    couplings = analyse(traced)
    removed = draw_removal(couplings, seed)
    assert removed.any()
    return recipe(traced, couplings, removed), run(cut(traced, couplings, removed).graph, inputs)


@pytest.mark.parametrize("name", ["depthwise", "grouped", "tied", "lstm_states"])
def test_sliced_class_computes_what_the_cut_graph_computes(name):
    """Weights, widths and groups of torch's own layers follow; the given module stays as it was."""
    net, inputs = nets.build(name)
    plan, expected = made(net, inputs)
    before = net(*inputs).clone()
    applied = apply_recipe(net, plan, inputs)
    assert torch.allclose(applied.module(*inputs), expected[0], rtol=0, atol=1e-9)
    assert torch.equal(net(*inputs), before)
    assert applied.attributes
    assert sum(p.numel() for p in applied.module.parameters()) < sum(p.numel() for p in net.parameters())


class Headed(nn.Module):
    """Reads its number of heads from an attribute, or has it written into its forward."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.qkv, self.out, self.heads, self.literal = nn.Linear(8, 45), nn.Linear(15, 4), 5, literal

    def forward(self, x):
        n, t, _ = x.shape
        heads = 5 if self.literal else self.heads
        q, k, v = self.qkv(x).view(n, t, 3, heads, 3).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, t, 3 * heads))


def test_attributes_that_the_forward_reads_are_updated():
    """The number of heads is found as the only size of that value that shrank inside the module."""
    torch.manual_seed(0)
    net, inputs = Headed().double().eval(), (torch.randn(2, 6, 8, dtype=torch.float64),)
    plan, expected = made(net, inputs)
    applied = apply_recipe(net, plan, inputs)
    assert torch.allclose(applied.module(*inputs), expected[0], rtol=0, atol=1e-9)
    assert applied.attributes["heads"] == (5, applied.module.heads)


def test_a_size_written_into_the_forward_is_refused_with_its_line():
    """There is nothing to update, so the message names the line that fails."""
    torch.manual_seed(0)
    net, inputs = Headed(literal=True).double().eval(), (torch.randn(2, 6, 8, dtype=torch.float64),)
    plan, _ = made(net, inputs)
    with pytest.raises(TraceError, match=r"reads a size that slicing does not reach: test_apply.py:\d+"):
        apply_recipe(net, plan, inputs)


def test_a_recipe_of_another_model_is_refused():
    """Unknown names, other shapes, and indices that cut a component in two."""
    net, inputs = nets.build("chain")
    plan, _ = made(net, inputs)
    other, images = nets.build("residual")
    with pytest.raises(ModelError, match=r"has no such tensor|does not fit|the model differs"):
        apply_recipe(other, plan, images)
    kept = plan["tensors"]["a.weight"]["keep"]["0"]
    broken = {"tensors": {**plan["tensors"]}}
    broken["tensors"]["a.weight"] = {
        **plan["tensors"]["a.weight"],
        "keep": {"0": np.setdiff1d(np.arange(6), kept)[:1].tolist()},
    }
    with pytest.raises(ModelError, match="does not fit this model"):
        apply_recipe(net, broken, inputs)
