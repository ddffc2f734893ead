"""--prune-inputs: features of an input go like channels, and the graph keeps its full input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse, random_half
from edgeprune.errors import ModelError
from edgeprune.graph.features import (
    close_features,
    drop_identity_selections,
    kept_features,
    open_features,
    selected,
)
from edgeprune.graph.trace import run, trace
from edgeprune.simplify.lossless import lossless
from edgeprune.surgery.apply import apply_recipe
from edgeprune.surgery.cut import cut, retrace
from edgeprune.surgery.oracle import masked
from edgeprune.surgery.recipe import recipe


class Flat(nn.Module):
    """Pixels that are flattened before the first layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(36, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))


class Sensors(nn.Module):
    """Channels of a series, scaled first, and read by two convolutions."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Conv1d(6, 8, 3), nn.Conv1d(6, 8, 3)
        self.n, self.b = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = (x - 0.1) / 2
        return self.b(torch.relu(self.n(self.a(x)) + self.c(x)).mean(2))


class Turned(nn.Module):
    """Sensors in the last dimension, moved to the second for the convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(6, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.transpose(1, 2))).mean(2))


class Depthwise(nn.Module):
    """The first layer has a filter of its own for each channel."""

    def __init__(self):
        super().__init__()
        self.a, self.p, self.b = nn.Conv1d(6, 6, 3, groups=6), nn.Conv1d(6, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.p(self.a(x))).mean(2))


class Recurrent(nn.Module):
    """Features in the last dimension."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(x)[0][:, -1])


CASES = {
    "flat": (Flat, (1, 6, 6), "flattened sample"),
    "sensors": (Sensors, (6, 12), "dimension 1"),
    "depthwise": (Depthwise, (6, 12), "dimension 1"),
    "turned": (Turned, (12, 6), "dimension 2"),
    "recurrent": (Recurrent, (12, 6), "dimension 2"),
}


def opened(name):
    torch.manual_seed(0)
    kind, shape, _ = CASES[name]
    net, x = kind().eval().double(), torch.randn(4, *shape, dtype=torch.float64)
    plain = trace(net, (x,))
    return net, x, plain, open_features(plain)[0]


@pytest.mark.parametrize("name", CASES)
def test_a_graph_without_some_features_computes_what_the_dense_one_does_when_they_are_silent(name):
    """The input keeps its size, what was cut is never read, and the list says what is."""
    net, x, plain, traced = opened(name)
    assert torch.equal(run(traced.graph, (x,))[0], net(x))
    couplings = analyse(traced)
    removed = random_half(couplings, 0)
    assert couplings.count > analyse(plain).count or name == "depthwise"
    small = retrace(cut(traced, couplings, removed))
    out = run(small.graph, (x,))[0]
    assert torch.allclose(out, masked(traced, couplings, removed, (x,))[0], atol=1e-9)
    entry = kept_features(small.graph)[0]
    assert entry["of"] == CASES[name][2] and 0 < len(entry["kept"]) < entry["count"]
    assert recipe(traced, couplings, removed)["inputs"] == [entry]
    noisy = x.clone()
    feature = (
        noisy.flatten(1)
        if name == "flat"
        else noisy.movedim(2, 1)
        if name in ("turned", "recurrent")
        else noisy
    )
    feature[:, np.setdiff1d(np.arange(entry["count"]), entry["kept"])] = 1e3
    assert torch.equal(run(small.graph, (noisy,))[0], out)
    feature[:, entry["kept"][0]] += 1.0
    assert not torch.equal(run(small.graph, (noisy,))[0], out)


@pytest.mark.parametrize("name", CASES)
def test_the_users_class_takes_the_features_that_stay(name):
    """Sliced by the recipe and fed the selected features it gives what the cut graph gives."""
    net, x, _, traced = opened(name)
    couplings = analyse(traced)
    removed = random_half(couplings, 1)
    plan, small = recipe(traced, couplings, removed), cut(traced, couplings, removed)
    applied = apply_recipe(net, plan, (x,))
    fed = selected(small.graph, (x,))
    assert fed[0].numel() < x.numel()
    assert torch.allclose(applied.module(*fed), run(small.graph, (x,))[0], atol=1e-9)


def test_a_feature_that_no_weight_reads_goes_without_changing_an_output():
    """Lossless removal finds it, and takes no other feature for a constant or a twin."""
    net, x, plain, traced = opened("flat")
    with torch.no_grad():
        net.a.weight[:, [4, 9]] = 0.0
    traced = open_features(trace(net, (x,)))[0]
    found = lossless(traced, analyse(traced), None, [(x,)])
    assert set(range(36)) - set(kept_features(found.trace.graph)[0]["kept"]) == {4, 9}
    assert len(found.removed) == 2
    assert len(lossless(opened("flat")[3], analyse(opened("flat")[3]), None, [(x,)]).removed) == 0
    assert plain.graph is not traced.graph


def test_a_selection_of_everything_leaves_no_node_behind():
    """An input that kept all its features is read directly."""
    _, x, plain, traced = opened("sensors")
    idle = drop_identity_selections(traced)
    assert len(idle.graph.graph.nodes) == len(plain.graph.graph.nodes)
    assert torch.equal(run(idle.graph, (x,))[0], run(plain.graph, (x,))[0])
    assert drop_identity_selections(plain) is plain


def test_a_network_that_was_cut_before_keeps_its_features_until_asked():
    """Loaded again its selection is fixed; opened again, more of it can go, in the first numbers."""
    _, x, _, traced = opened("sensors")
    couplings = analyse(traced)
    small = retrace(cut(traced, couplings, random_half(couplings, 0)))
    kept = kept_features(small.graph)
    closed = close_features(small)
    fixed = analyse(closed)
    assert "input x" not in fixed.group_names and kept_features(closed.graph) == kept
    assert close_features(closed) is closed
    again, stay = open_features(closed)
    assert stay == () and kept_features(again.graph) == kept
    couplings = analyse(again)
    removed = np.zeros(couplings.count, bool)
    removed[np.flatnonzero(couplings.group == couplings.group_names.index("input x"))[0]] = True
    smaller = retrace(cut(again, couplings, removed))
    assert kept_features(smaller.graph)[0]["kept"] == kept[0]["kept"][1:]
    assert recipe(again, couplings, removed)["inputs"] == kept_features(smaller.graph)
    assert torch.allclose(run(smaller.graph, (x,))[0], masked(again, couplings, removed, (x,))[0], atol=1e-9)


def test_inputs_without_features_are_refused_or_stay_with_the_reason():
    """One grey channel, token numbers, an operator that mixes features: nothing is guessed."""
    grey = trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(ModelError, match=r"input 'input_1' stays as it is: it has one feature"):
        open_features(grey)
    normed = trace(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)).eval(), (torch.randn(2, 6),))
    with pytest.raises(ModelError, match=r"read by aten.layer_norm.*cannot be told apart"):
        open_features(normed)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.a = nn.Embedding(5, 4), nn.Linear(6, 4)

        def forward(self, tokens, x):
            return self.e(tokens).mean(1) + self.a(x)

    both = trace(Two().eval(), (torch.zeros(2, 3, dtype=torch.int64), torch.randn(2, 6)))
    found, stay = open_features(both)
    assert stay == ("input 'tokens' stays as it is: it holds no features",)
    assert [e["input"] for e in kept_features(found.graph)] == ["x"]
