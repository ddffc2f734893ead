"""Removing components: what must hold of the cut graph, and what must be refused."""

from __future__ import annotations

from dataclasses import replace

import nets
import numpy as np
import pytest
import torch
from generate import draw_removal
from torch import nn
from torch.nn import functional as F

from edgeprune.coupling import opspec
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.labels import Value
from edgeprune.coupling.rules import combine
from edgeprune.errors import TraceError
from edgeprune.graph.trace import run, save, trace
from edgeprune.surgery.cut import cut, retrace
from edgeprune.surgery.oracle import masked, zeroed

aten = torch.ops.aten


def prepared(name, *, full=False):
    traced = nets.traced(name, full=full)
    return traced, analyse(traced)


@pytest.mark.parametrize("name", nets.NETS)
def test_removed_equals_silenced(name):
    """On every pattern: cutting exact components gives what silencing them gives, by three oracles."""
    traced, couplings = prepared(name)
    removed = draw_removal(couplings, 3) & couplings.exact
    small = run(cut(traced, couplings, removed).graph, traced.inputs)
    for full in (
        run(zeroed(traced, couplings, removed).graph, traced.inputs),
        run(zeroed(traced, couplings, removed, readers_only=False).graph, traced.inputs),
        masked(traced, couplings, removed),
    ):
        for a, b in zip(small, full, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-9)
    assert couplings.count < 2 or removed.any()


@pytest.mark.parametrize("name", ["shuffle", "attention_fused", "lstm", "view", "two_inputs", "outputs"])
def test_cut_graph_stands_alone(name, tmp_path):
    """It exports again with its free batch, runs at another batch size, and loads from .pt2."""
    traced, couplings = prepared(name, full=True)
    small = cut(traced, couplings, draw_removal(couplings, 5))
    again = retrace(small)
    assert again.dynamic == traced.dynamic == (True,) * len(traced.inputs)
    larger = tuple(torch.cat([x, x.flip(0), x]) for x in traced.inputs)
    reference = run(small.graph, larger)
    save(small, tmp_path / "small.pt2")
    loaded = trace(torch.export.load(tmp_path / "small.pt2"))
    for graph in (again.graph, loaded.graph):
        for a, b in zip(reference, run(graph, larger), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-12)
    assert [x.shape[1:] for x in run(small.graph, larger)] == [
        x.shape[1:] for x in run(traced.graph, traced.inputs)
    ]


def test_nothing_of_the_given_trace_changes():
    """A cut is a new trace; the old one still computes the same."""
    traced, couplings = prepared("residual")
    before = run(traced.graph, traced.inputs)[0].clone()
    cut(traced, couplings, draw_removal(couplings, 1))
    assert torch.equal(run(traced.graph, traced.inputs)[0], before)


def test_tied_weights_stay_tied():
    """Three readers, one smaller Parameter."""
    traced, couplings = prepared("tied")
    small = cut(traced, couplings, draw_removal(couplings, 2))
    shared = [p for p in small.graph.parameters() if p.dim() == 2 and p.shape[0] == p.shape[1]]
    assert len(shared) == 1
    assert shared[0].shape[0] < 8


def test_a_plan_that_empties_a_dimension_is_refused():
    """At least one index stays in every dimension of every node."""
    traced, couplings = prepared("chain")
    removed = np.zeros(couplings.count, bool)
    channel_map = couplings.tensors["a.weight"][0]
    removed[couplings.channel_maps[channel_map]] = True
    with pytest.raises(TraceError, match="removes every channel of a layer; keep at least one per layer"):
        cut(traced, couplings, removed)


def test_width_removal_keeps_the_scale_of_the_full_head():
    """The operator's implied 1/sqrt(width) is written down before the width shrinks."""
    from edgeprune.coupling.components import FactorChoice

    traced = nets.traced("attention_masked")
    couplings = analyse(traced, choice=FactorChoice(heads="width"))
    removed = draw_removal(couplings, 4) & (couplings.exact | couplings.contracted)
    small = cut(traced, couplings, removed)
    scales = [n.kwargs.get("scale") for n in small.graph.graph.nodes if "scaled_dot" in str(n.target)]
    assert scales == [pytest.approx(3**-0.5)]
    assert torch.allclose(
        run(small.graph, traced.inputs)[0], masked(traced, couplings, removed)[0], rtol=0, atol=1e-9
    )


class Squeezed(nn.Module):
    """Pooled to one position, squeezed of whatever has size 1."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(torch.relu(self.conv(x)), 1).squeeze())


@pytest.mark.parametrize("full", [False, True])
def test_a_squeeze_leaves_the_last_channel_where_it_is(full):
    """A layer down to one channel keeps that dimension, though the squeeze names none."""
    net, x = nets.settle(Squeezed()).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    traced = trace(net, (x,)) if full else nets.quick_trace(net, (x,))
    couplings = analyse(traced)
    removed = np.arange(couplings.count) > 0
    assert couplings.count == 6
    small = run(cut(traced, couplings, removed).graph, traced.inputs)[0]
    assert torch.allclose(small, masked(traced, couplings, removed)[0], rtol=0, atol=1e-9)


def _swaps_branches(ties, call):
    """An add that ties channel i to its mirror image."""
    a, b = call.args[:2]
    flipped = Value(b.shape, tuple(x.flip(1) for x in b.labels))
    return combine(ties, tuple(call.shape), [a, flipped], call.where)


@pytest.mark.parametrize(("name", "target", "wrong"), [("residual", aten.add.Tensor, _swaps_branches)])
def test_the_oracle_catches_a_wrong_rule(name, target, wrong, monkeypatch):
    """The check can fail: a tampered rule gives fitting shapes and wrong values."""
    monkeypatch.setitem(opspec.TABLE, target, opspec.OpSpec(wrong))
    traced, couplings = prepared(name)
    removed = np.zeros(couplings.count, bool)
    removed[couplings.channel_maps[couplings.tensors["stem.weight"][0]][0]] = True
    small = run(cut(traced, couplings, removed).graph, traced.inputs)[0]
    full = run(zeroed(traced, couplings, removed).graph, traced.inputs)[0]
    assert (small - full).abs().max() > 1e-3


def test_a_forgotten_operand_is_caught(monkeypatch):
    """An attention mask that its rule leaves out keeps its full size: the certificate refuses."""
    known = opspec.TABLE[aten.scaled_dot_product_attention.default]

    def forgetful(ties, call):
        return known.rule(
            ties, opspec.OperatorCall(call.node, call.args[:3], {}, call.shape, call.where, call.batch)
        )

    monkeypatch.setitem(
        opspec.TABLE, aten.scaled_dot_product_attention.default, replace(known, rule=forgetful)
    )
    traced, couplings = prepared("attention_masked")
    head = couplings.channel_maps[couplings.tensors["q.weight"][0]][0]
    removed = np.zeros(couplings.count, bool)
    removed[head] = True
    with pytest.raises(TraceError, match=r"does not run|predicted"):
        cut(traced, couplings, removed)


def test_a_movement_that_does_not_commute_is_found_by_replay(monkeypatch):
    """With the rule for rolls taken away, the map of labels looks right and replay still refuses it."""
    observed = opspec.TABLE[aten.flip.default].rule
    known = opspec.TABLE[aten.roll.default]
    monkeypatch.setitem(opspec.TABLE, aten.roll.default, replace(known, rule=observed))
    _, couplings = prepared("roll")
    assert (couplings.channel_maps[couplings.tensors["a.weight"][0]] == -1).all()
    assert any("does not commute with removal" in p.reason for p in couplings.pins)
