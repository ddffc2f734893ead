"""Closed-form compensation: exact where it can be, never worse on held-out rows, careful where it must be."""

from __future__ import annotations

import nets
import pytest
import torch
from cutting import apart, prepared, squared, without
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import trace
from edgeprune.recovery import recover_closed_form
from edgeprune.surgery.cut import cut


class Linear(nn.Module):
    """Unit 3 is 2·unit 0 − unit 1 + 0.5: nothing is lost when it goes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        with torch.no_grad():
            self.a.weight[3] = 2 * self.a.weight[0] - self.a.weight[1]
            self.a.bias[3] = 2 * self.a.bias[0] - self.a.bias[1] + 0.5

    def forward(self, x):
        return self.b(self.a(x))


class Twins(nn.Module):
    """Channel 2 after the activation doubles channel 4; what reads them is a padded convolution."""

    def __init__(self, bias=True, norm=False, padding=1):
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 4, 3, padding=padding, bias=bias)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.c = nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            self.a.weight[2], self.a.bias[2] = 2 * self.a.weight[4], 2 * self.a.bias[4]
        nets.settle(self)

    def forward(self, x):
        return self.c(torch.relu(self.norm(self.b(torch.relu(self.a(x))))))


def test_a_linearly_dependent_unit_leaves_without_a_trace():
    """Offset included: the outputs are those of the dense network to the ridge's order."""
    traced, couplings, inputs = prepared(Linear(), 6)
    removed = without(couplings, "a.weight", 3)
    small, fits = recover_closed_form(traced, couplings, removed, inputs)
    assert apart(traced, cut(traced, couplings, removed), inputs) > 0.1
    assert apart(traced, small, inputs) < 1e-3
    assert [f.layer for f in fits] == ["b.weight"]


@pytest.mark.parametrize("kind", [{}, {"bias": False}, {"bias": False, "norm": True}, {"padding": "same"}])
def test_a_twin_channel_is_made_up_for_up_to_the_border(kind):
    """Through zero padding too: patches hold the padding as zeros, so borders are fitted as they are."""
    traced, couplings, inputs = prepared(Twins(**kind), 2, 7, 7)
    removed = without(couplings, "a.weight", 2)
    small, _ = recover_closed_form(traced, couplings, removed, inputs)
    plain = cut(traced, couplings, removed)
    assert apart(traced, plain, inputs) > 1e-2
    assert apart(traced, small, inputs) < 2e-3 * apart(traced, plain, inputs) + 1e-3


def test_without_a_bias_the_offset_goes_to_the_batch_norm_behind():
    """Removing a channel with a large constant part shifts the running mean, and only there."""
    net = Twins(bias=False, norm=True, padding=0)
    with torch.no_grad():
        net.a.bias[1] += 5.0
    traced, couplings, inputs = prepared(net, 2, 7, 7)
    removed = without(couplings, "a.weight", 1)
    small, _ = recover_closed_form(traced, couplings, removed, inputs)
    before, after = (state_tensors(t.graph)["norm.running_mean"] for t in (traced, small))
    assert (before - after).abs().max() > 0.1
    assert squared(traced, small, inputs) < 0.1 * squared(traced, cut(traced, couplings, removed), inputs)


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise", "flatten", "dense", "conv1d"])
def test_held_out_error_never_grows(name):
    """Every fit's error_after is at most its error_before, and some fit gains."""
    net, inputs = nets.build(name)
    shape = inputs[0].shape[1:]
    traced, couplings, batches = prepared(net, *shape, batches=16)
    removed = couplings.exact & (torch.arange(couplings.count).numpy() % 3 == 0)
    _, fits = recover_closed_form(traced, couplings, removed, batches)
    assert fits
    assert all(f.error_after <= f.error_before for f in fits)
    assert any(f.error_after < 0.99 * f.error_before for f in fits)


def test_fresh_inputs_gain_too():
    """On inputs that the fit never saw, the outputs lie nearer to the dense ones than without it."""
    net, inputs = nets.build("residual")
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:], batches=8)
    removed = without(couplings, "a.weight", 0, 2, 5)
    small, _ = recover_closed_form(traced, couplings, removed, batches[:6])
    assert squared(traced, small, batches[6:]) < 0.7 * squared(
        traced, cut(traced, couplings, removed), batches[6:]
    )


def test_a_layer_that_reads_what_it_read_before_is_left_alone():
    """The first layer only lost outputs: it has no fit, and the rows that it keeps are the dense ones."""
    net, inputs = nets.build("chain")
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:])
    small, fits = recover_closed_form(traced, couplings, without(couplings, "a.weight", 1, 4), batches)
    assert "a.weight" not in [f.layer for f in fits]
    assert all(f.error_before > 0 for f in fits)
    kept = [0, 2, 3, 5]
    before, after = (state_tensors(t.graph)["a.weight"] for t in (traced, small))
    assert torch.equal(after, before[kept])


@pytest.mark.parametrize("name", ["reused", "tied"])
def test_a_weight_that_several_layers_share_is_only_sliced(name):
    """It cannot fit one reader without harming another: its kept slices are the dense ones."""
    net, inputs = nets.build(name)
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:])
    shared = {"reused": "block.weight", "tied": "c.weight"}[name]
    removed = without(couplings, shared, 0)
    small, fits = recover_closed_form(traced, couplings, removed, batches)
    plain = cut(traced, couplings, removed)
    assert shared not in [f.layer for f in fits]
    assert torch.equal(state_tensors(small.graph)[shared], state_tensors(plain.graph)[shared])


def test_a_head_tied_to_an_embedding_is_only_sliced():
    """Refitting the head would rewrite the embedding that it is: both stay slices of the dense weight."""

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.mix, self.head = (
                nn.Embedding(7, 6),
                nn.Linear(6, 6),
                nn.Linear(6, 7, bias=False),
            )
            self.head.weight = self.tokens.weight

        def forward(self, x):
            return self.head(torch.tanh(self.mix(self.tokens(x))))

    torch.manual_seed(0)
    inputs = [(torch.randint(0, 7, (16, 5)),) for _ in range(3)]
    traced = trace(Language().double().eval(), (inputs[0][0][:2],))
    couplings = analyse(traced)
    removed = without(couplings, "mix.weight", 1, 3)
    small, fits = recover_closed_form(traced, couplings, removed, inputs)
    plain = state_tensors(cut(traced, couplings, removed).graph)
    for name in ("tokens.weight", "head.weight"):
        if name in plain:
            assert torch.equal(state_tensors(small.graph)[name], plain[name])
    assert not {"tokens.weight", "head.weight"} & {f.layer for f in fits}


def test_a_transposed_convolution_is_only_sliced():
    """Its patches are not those of the output: no fit, and what follows it still compensates."""
    net, inputs = nets.build("transposed")
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:])
    removed = without(couplings, "down.weight", 1)
    small, fits = recover_closed_form(traced, couplings, removed, batches)
    plain = cut(traced, couplings, removed)
    assert torch.equal(state_tensors(small.graph)["up.weight"], state_tensors(plain.graph)["up.weight"])
    assert "out.weight" in [f.layer for f in fits]


def test_nothing_removed_changes_nothing():
    """An empty removal gives the dense network and no fit."""
    net, inputs = nets.build("residual")
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:])
    removed = without(couplings, "a.weight")
    small, fits = recover_closed_form(traced, couplings, removed, batches)
    assert fits == ()
    assert apart(traced, small, batches) == 0


def test_the_dense_trace_is_not_written_to():
    """Every state tensor of the trace that was given keeps its values."""
    net, inputs = nets.build("chain")
    traced, couplings, batches = prepared(net, *inputs[0].shape[1:])
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    recover_closed_form(traced, couplings, without(couplings, "a.weight", 0, 1), batches)
    assert all(torch.equal(t, before[n]) for n, t in state_tensors(traced.graph).items())
