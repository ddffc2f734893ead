"""No recovery step changes a network that lost nothing, on any data; moments are matched by ratio."""

from __future__ import annotations

import importlib

import nets
import numpy as np
import pytest
import torch
from cutting import apart, prepared, squared, without
from torch import nn

from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace, run
from edgeprune.recovery import recover_closed_form
from edgeprune.recovery.batchnorm import TRAINING, batch_norms, set_training
from edgeprune.recovery.lockstep import MEMORY
from edgeprune.surgery.cut import cut

closed_form = importlib.import_module("edgeprune.recovery.closed_form")
NORMED = ("chain", "residual", "concat", "depthwise")


class Squeezed(nn.Module):
    """An inverted-residual block with squeeze-and-excitation between a stem and a head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.stem, self.norm0 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.widen, self.norm1 = nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.narrow, self.norm3 = nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        nets.settle(self)

    def forward(self, x):
        x = torch.relu(self.norm0(self.stem(torch.relu(self.first(x)))))
        y = nn.functional.relu6(self.norm1(self.widen(x)))
        y = nn.functional.relu6(self.norm2(self.deep(y)))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = x + self.norm3(self.narrow(y * gate))
        return self.head(torch.relu(x).mean((2, 3)))


def foreign(net, *shape, **kw):
    """Trace, couplings and inputs whose moments are far from the running statistics."""
    traced, couplings, inputs = prepared(net, *shape, **kw)
    return traced, couplings, [(3 * x + 1,) for (x,) in inputs]


def built(name):
    if name == "squeezed":
        torch.manual_seed(0)
        return Squeezed(), (3, 6, 6)
    net, inputs = nets.build(name)
    return net, tuple(inputs[0].shape[1:])


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("name", [*NORMED, "squeezed", "mlp", "conv1d", "flatten"])
def test_every_step_leaves_a_network_that_lost_nothing_as_it_is(name, refit, monkeypatch):
    """Every layer and every norm is really fitted to its own dense outputs, and no output moves by 1e-9."""
    net, shape = built(name)
    traced, couplings, inputs = foreign(net, *shape)
    monkeypatch.setattr(closed_form, "differs", lambda *_: True)
    lanes = [traced, Trace(traced.copy(), traced.inputs, traced.dynamic)]
    nothing = np.zeros(couplings.count, bool)
    with torch.no_grad():
        closed_form._recover(lanes, couplings, nothing, inputs, refit=refit, memory=MEMORY)
    assert apart(*lanes, inputs) < 1e-9
    assert apart(recover_closed_form(traced, couplings, nothing, inputs)[0], traced, inputs) == 0


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("name", [*NORMED, "squeezed"])
def test_losing_channels_that_nothing_reads_changes_no_output(name, refit):
    """The removed channels' weights are zero in every reader: what is left computes the dense outputs."""
    net, shape = built(name)
    traced, couplings, inputs = foreign(net, *shape)
    removed = couplings.exact & (np.arange(couplings.count) % 4 == 1)
    with torch.no_grad():
        for tensor, dim in couplings.reads:
            vector = couplings.channel_maps[couplings.tensors[tensor][dim]]
            gone = np.flatnonzero((vector >= 0) & removed[np.maximum(vector, 0)])
            state_tensors(traced.graph)[tensor].index_fill_(dim, torch.from_numpy(gone), 0.0)
    assert removed.any()
    assert apart(traced, cut(traced, couplings, removed), inputs) < 1e-9
    small, _ = recover_closed_form(traced, couplings, removed, inputs, refit=refit)
    assert apart(traced, small, inputs) < 1e-9


def test_matched_statistics_are_ratios_of_moments_on_the_same_images():
    """var' = var·var_pruned/var_dense and mean' follows; so the norm's output has the dense moments."""
    net, inputs = nets.build("chain")
    traced, couplings, batches = foreign(net, *inputs[0].shape[1:])
    removed = without(couplings, "a.weight", 0, 4)
    bare = cut(traced, couplings, removed)
    small, _ = recover_closed_form(traced, couplings, removed, batches, refit=False)
    node = batch_norms(traced.graph)[0].args[0].name

    def seen(which):
        values = []
        for batch in batches:
            env = {}
            with torch.no_grad():
                _Keeping(which.graph, node, env).run(*batch, enable_io_processing=False)
            values.append(env[node].movedim(1, -1).flatten(0, -2))
        return torch.cat(values)

    kept = [1, 2, 3, 5]
    dense, pruned = seen(traced)[:, kept], seen(bare)
    before, after = state_tensors(bare.graph), state_tensors(small.graph)
    ratio = pruned.var(0) / dense.var(0)
    torch.testing.assert_close(after["bn.running_var"], before["bn.running_var"] * ratio)
    moved = pruned.mean(0) - (dense.mean(0) - before["bn.running_mean"]) * ratio.sqrt()
    torch.testing.assert_close(after["bn.running_mean"], moved)


class _Keeping(torch.fx.Interpreter):
    """Keeps one node's value."""

    def __init__(self, graph, name, env):
        super().__init__(graph)
        self.wanted, self.kept = name, env

    def run_node(self, n):
        value = super().run_node(n)
        if n.name == self.wanted:
            self.kept[n.name] = value
        return value


def test_a_depthwise_convolution_is_refitted_by_group():
    """It is fitted, its error on held-out images falls, and fresh inputs gain over a fit without it."""
    torch.manual_seed(0)
    traced, couplings, inputs = prepared(Squeezed(), 3, 6, 6, batches=12)
    removed = without(couplings, "stem.weight", 1, 4)
    small, fits = recover_closed_form(traced, couplings, removed, inputs[:8])
    deep = [f for f in fits if f.layer == "deep.weight"]
    assert deep[0].kind == "groups"
    assert deep[0].error_after < 0.99 * deep[0].error_before
    assert {"squeeze.weight", "excite.weight", "narrow.weight"} <= {f.layer for f in fits}
    assert squared(traced, small, inputs[8:]) < 0.3 * squared(
        traced, cut(traced, couplings, removed), inputs[8:]
    )


def test_the_last_layer_of_a_block_makes_up_for_its_skip_connection(monkeypatch):
    """One branch loses a channel that the other still sees: fitted to the sum, it loses almost nothing."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
            self.b.load_state_dict(self.a.state_dict())
            self.c, self.d = nn.Conv2d(6, 5, 1, bias=False), nn.Conv2d(6, 5, 1, bias=False)
            self.norm, self.head = nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)
            nets.settle(self)

        def forward(self, x):
            skip, branch = self.c(torch.relu(self.a(x))), self.norm(self.d(torch.relu(self.b(x))))
            return self.head(torch.relu(skip + branch))

    torch.manual_seed(0)
    traced, couplings, inputs = prepared(Sum(), 3, 8, 8, batches=10)
    removed = without(couplings, "a.weight", 2)
    block, fits = recover_closed_form(traced, couplings, removed, inputs[:8])
    assert [f.layer for f in fits] == ["c.weight", "d.weight"] or len(fits) > 1
    monkeypatch.setattr("edgeprune.recovery.fits.LayerTask._skips", lambda _: None)
    alone, _ = recover_closed_form(traced, couplings, removed, inputs[:8])
    assert squared(traced, block, inputs[8:]) < 0.01 * squared(traced, alone, inputs[8:])


def test_norms_behind_layers_that_cannot_be_refitted_get_scale_and_shift():
    """A convolution that is used twice keeps its weights; the batch norm behind makes up for a part."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, padding=1)
            self.mix, self.norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
            self.head = nn.Conv2d(8, 2, 1)
            nets.settle(self)

        def forward(self, x):
            x = torch.relu(self.a(x))
            x = torch.relu(self.norm(self.mix(torch.relu(self.mix(x)))))
            return self.head(x)

    torch.manual_seed(0)
    traced, couplings, inputs = prepared(Twice(), 3, 6, 6, batches=10)
    removed = without(couplings, "mix.weight", 3)
    small, fits = recover_closed_form(traced, couplings, removed, inputs[:8])
    assert "norm" in [f.kind for f in fits]
    assert all(f.error_after <= f.error_before for f in fits)
    plain = state_tensors(cut(traced, couplings, removed).graph)
    after = state_tensors(small.graph)
    assert torch.equal(after["mix.weight"], plain["mix.weight"])
    assert not torch.equal(after["norm.weight"], plain["norm.weight"])


def test_evaluation_form_and_statistics_of_the_dense_trace_stay():
    """The result normalises by running statistics, and the trace that was given is not written to."""
    net, inputs = nets.build("chain")
    traced, couplings, batches = foreign(net, *inputs[0].shape[1:])
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    small, _ = recover_closed_form(traced, couplings, without(couplings, "a.weight", 2), batches, refit=False)
    assert all(n.args[TRAINING] is False for n in batch_norms(small.graph))
    assert all(torch.equal(t, before[n]) for n, t in state_tensors(traced.graph).items())


def test_a_cumulative_average_trains_with_a_momentum():
    """momentum=None exports as 0.0, which would freeze the statistics: training uses 0.1."""
    net, inputs = nets.build("chain")
    net.bn.momentum = None
    traced, _, batches = prepared(net, *inputs[0].shape[1:])
    graph = traced.copy()
    set_training(graph, True)
    before = state_tensors(graph)["bn.running_mean"].clone()
    with torch.no_grad():
        run(graph, batches[0])
    assert not torch.equal(state_tensors(graph)["bn.running_mean"], before)
