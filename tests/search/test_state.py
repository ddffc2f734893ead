"""A network on its way down: what its components are in terms of the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.trace import trace
from edgeprune.search.state import RoundRecord, advance, dense_state
from edgeprune.session.options import Options
from edgeprune.surgery.cut import cut, retrace


class Heads(nn.Module):
    """Self-attention of two heads with a linear layer behind."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.last = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 8)
        return self.last(self.out(y).relu()).mean(1)


@pytest.fixture
def dense():
    torch.manual_seed(0)
    traced = trace(Heads().eval(), (torch.randn(2, 5, 8),))
    couplings = analyse(traced)
    return dense_state(traced, couplings)


def shapes(traced):
    return {name: tuple(p.shape) for name, p in traced.graph.named_parameters()}


def test_the_last_head_is_not_thinned_since_the_dense_network_has_no_name_for_that(dense):
    """With one head left its width would become free; no component then stands for a part of a dense one."""
    couplings = dense.couplings
    heads = couplings.channel_maps[couplings.tensors["out.weight"][1]]
    hidden = couplings.channel_maps[couplings.tensors["last.weight"][1]]
    state = dense
    for units in (heads[:1], hidden[:1], hidden[1:2]):
        now = np.isin(state.origin, units)
        assert now.any()
        again = retrace(cut(state.trace, state.couplings, now))
        state = advance(state, again, now, RoundRecord(), Options())
        assert len(np.unique(state.origin)) == state.couplings.count
        assert not couplings.emptied(state.removed)
        assert not state.removed[state.origin].any()
        assert shapes(cut(dense.trace, couplings, state.removed)) == shapes(state.trace)
        assert any("part of a component" in pin.reason for pin in state.couplings.pins)
        assert not np.isin(state.origin, heads).any()


def test_pinned_components_are_numbered_away(dense):
    """What stays has no number; the others keep their order, their group and their flags."""
    stays = np.zeros(dense.couplings.count, bool)
    stays[::2] = True
    found = dense.couplings.keeping(stays, "asked")
    assert found.count == (~stays).sum() == found.exact.size == found.group.size
    for before, after in zip(dense.couplings.channel_maps, found.channel_maps, strict=True):
        free = before >= 0
        assert (after[~free] == -1).all()
        assert (after[free] >= 0).tolist() == (~stays[before[free]]).tolist()
    old = [dense.couplings.group_names[g] for g in dense.couplings.group[~stays]]
    assert [found.group_names[g] for g in found.group] == old
    assert found.pins[-1].reason == "asked"
