"""Sensitivity: curves that rise, a graph that stays as it was, a loss for every group."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from captured import captured, task_for

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.criteria import Context, score
from edgeprune.data import open_data
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import trace
from edgeprune.search.sensitivity import judged, loss_without, sensitivity


class Attention(torch.nn.Module):
    """One head with free widths: queries and keys are read by no weight."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(6, 6) for _ in range(4))
        self.head = torch.nn.Linear(6, 3)

    def forward(self, x):
        q, k, v = (3 * f(x).unsqueeze(1) for f in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.o(mixed.squeeze(1)).mean(1))


def curves_of(net, x, *, choice=None):
    """Trace, couplings and curves of a network under ib-gauss's order."""
    traced = trace(net.eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced, choice=choice)
    statistics = captured(traced, couplings, open_data((x, None)), np.arange(len(x)))
    rank = score("ib-gauss", Context(traced, couplings, statistics)).rank
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    curves = sensitivity(traced, couplings, statistics, rank, [(torch.from_numpy(x),)], task_for(traced))
    assert all(torch.equal(t.detach(), before[n]) for n, t in state_tensors(traced.graph).items())
    return traced, couplings, curves


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "mlp", "depthwise"])
def test_curves_start_at_nothing_and_rise(name):
    """Shares and losses begin at 0; losing nearly a whole group costs more than losing a quarter."""
    net, inputs = nets.build(name, dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(48, *inputs[0].shape[1:])).astype(np.float32)
    _, couplings, curves = curves_of(net, x)
    assert set(curves) == set(range(len(couplings.group_names)))
    for curve in curves.values():
        assert curve.shares[0] == curve.losses[0] == 0
        assert (np.diff(curve.shares) > 0).all()
        assert curve.shares[-1] == 1
        assert curve.losses[-2] > curve.losses[1] * 0.999
        assert curve.losses[-1] > curve.losses[-2] > 0


def test_a_group_that_no_plain_layer_reads_is_not_free():
    """Losing query and key widths changes the outputs: the curve says so, or planning would take them all."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 5, 6)).astype(np.float32)
    _, couplings, curves = curves_of(Attention(), x, choice=FactorChoice(heads="width"))
    curve = curves[couplings.group_names.index("q")]
    assert curve.losses[-2] > 1e-6


def test_a_group_of_one_has_no_curve():
    """Nothing can go from it, and nothing is offered."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 2), torch.nn.ReLU(), torch.nn.Linear(2, 3))
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    _, _, curves = curves_of(net, x)
    assert [c.shares for c in curves.values()] == [(0.0, 0.5, 1.0)]


def test_readers_that_take_over_lose_less_than_those_that_do_not():
    """Absorbing makes a removal cheaper on average, and either way the graph comes back as it was."""
    net, inputs = nets.build("chain", dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(64, *inputs[0].shape[1:])).astype(np.float32)
    traced = trace(net.eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced)
    statistics = captured(traced, couplings, open_data((x, None)), np.arange(len(x)))
    graph, batches = traced.copy(), [(torch.from_numpy(x),)]
    with torch.no_grad():
        wanted = [judged(graph, b) for b in batches]
        lost = []
        for component in range(couplings.count):
            removed = np.arange(couplings.count) == component
            parts = (graph, couplings, statistics, removed, batches, wanted, task_for(traced))
            lost.append((loss_without(*parts, absorb=False), loss_without(*parts)))
        plain, absorbed = np.mean(lost, axis=0)
        assert 0 < absorbed < 0.9 * plain
        assert torch.equal(judged(graph, batches[0])[0], wanted[0][0])
