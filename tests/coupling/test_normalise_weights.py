"""Weights that are computed from others become the weight itself, and nothing else changes."""

from __future__ import annotations

import nets
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from edgeprune.coupling.analysis import analyse
from edgeprune.frontend.load import load_model
from edgeprune.graph.trace import quiet, run, trace

X = torch.linspace(-1, 1, 12).reshape(2, 6)


def parameters(net, x=X):
    traced = trace(net.eval(), (x,))
    (out,) = run(traced.graph, (x,))
    assert torch.equal(out, net(x))
    return dict(traced.graph.named_parameters())


def test_every_norm_of_weights_gives_one_parameter_by_the_layers_own_name():
    """Lengths, directions and singular vectors are gone, and the function is the same bit for bit."""
    net, inputs = nets.build("weight_norm")
    traced = trace(net, inputs)
    assert {n for n, _ in traced.graph.named_parameters()} == {
        f"{layer}.{kind}" for layer in ("a", "b", "c", "d", "e", "head") for kind in ("weight", "bias")
    }
    assert torch.equal(run(traced.graph, inputs)[0], net(*inputs))
    for layer in "abcde":
        weight = traced.graph.get_parameter(f"{layer}.weight")
        assert torch.equal(weight, getattr(net, layer).weight)
        assert weight.requires_grad


def test_a_direction_that_is_read_elsewhere_too_stays_as_it_was():
    """One parameter in place of both uses would untie them."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = parametrizations.weight_norm(nn.Linear(6, 6))

        def forward(self, x):
            return self.a(x) @ self.a.parametrizations.weight.original1

    assert "a.weight" not in parameters(Net())


def test_masks_of_pruning_hooks_are_left_to_what_reads_masks():
    """A product with zeros and ones says more than its result."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.random_unstructured(net[0], "weight", 0.5)
    assert "0.weight_orig" in parameters(net)


def test_a_user_s_own_parametrisation_is_computed_once():
    """Symmetric by construction; afterwards a plain weight."""

    class Symmetric(nn.Module):
        def forward(self, w):
            return (w + w.T) / 2

    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    nn.utils.parametrize.register_parametrization(net[0], "weight", Symmetric())
    assert set(parameters(net)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_a_file_with_every_norm_of_weights_loads_and_is_pruned(tmp_path):
    """What the norms compute with is arithmetic alone (vdot, mv), so the file is not refused as unsafe."""
    net, inputs = nets.build("weight_norm")
    with quiet():  # torch warns that the old hooks set an attribute
        torch.export.save(torch.export.export(net, inputs), tmp_path / "net.pt2")
    loaded = load_model(tmp_path / "net.pt2")
    assert analyse(trace(loaded.program)).count == analyse(nets.traced("weight_norm")).count
