"""Bounded memory and layers with many features: same answers where they must agree, certified elsewhere."""

from __future__ import annotations

import sys

import nets
import pytest
import torch
from cutting import apart, prepared, squared, without
from torch import nn

from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import run
from edgeprune.recovery import recover_closed_form
from edgeprune.recovery.lockstep import LockstepInterpreter, affordable, last_use
from edgeprune.recovery.ridge import GramMoments, best_dual, best_ridge
from edgeprune.surgery.cut import cut

MODULE = sys.modules["edgeprune.recovery.fits"]  # the package names its function alike


class Narrowing(nn.Module):
    """Large activations first, small ones later: a walk in little memory fetches batches on the way."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.norm, self.c = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 3)
        nets.settle(self)

    def forward(self, x):
        x = torch.relu(self.norm(self.b(torch.relu(self.a(x)))))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


def little(traced, inputs):
    """Memory for one batch of everything that lives at the first layer."""
    sizes = affordable(traced, last_use(traced.graph), inputs, 1)
    assert set(sizes.values()) == {1}
    low, high = 1, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        found = affordable(traced, last_use(traced.graph), inputs, middle)
        low, high = (middle, high) if min(found.values()) == 1 else (low, middle)
    return low


def test_a_walk_in_little_memory_ends_with_every_batch():
    """It starts on fewer batches than it ends on, and each value is that of a plain run."""
    traced, _, inputs = prepared(Narrowing(), 2, 16, 16, batches=8)
    memory = little(traced, inputs)
    held = []
    for node in (walk := LockstepInterpreter([traced], inputs, memory)):
        held.append(walk.held)
        last = walk.values[0][node.name]
    assert held[0] < 8
    assert held == sorted(held)
    assert held[-1] == 8
    for value, batch in zip(last, inputs, strict=True):
        assert torch.equal(value, run(traced.graph, batch)[0])


def test_a_walk_holds_no_more_than_its_memory():
    """Live bytes at every node, the node's own included, stay within what was allowed."""
    traced, _, inputs = prepared(Narrowing(), 2, 16, 16, batches=8)
    memory = 2 * little(traced, inputs)
    for _ in (walk := LockstepInterpreter([traced], inputs, memory)):
        live = 0
        for name, values in walk.values[0].items():
            if not any(n.name == name and n.op == "get_attr" for n in traced.graph.graph.nodes):
                live += sum(v.numel() * v.element_size() for v in values)
        assert live <= memory


def test_batches_that_join_late_see_what_was_changed_upstream():
    """With little memory the pruned outputs still lie nearer to the dense ones on fresh inputs."""
    traced, couplings, inputs = prepared(Narrowing(), 2, 16, 16, batches=10)
    removed = without(couplings, "a.weight", 1, 4) | without(couplings, "b.weight", 2)
    small, fits = recover_closed_form(
        traced, couplings, removed, inputs[:8], memory=2 * little(traced, inputs)
    )
    plain = cut(traced, couplings, removed)
    assert len(fits) == 3
    assert squared(traced, small, inputs[8:]) < 0.7 * squared(traced, plain, inputs[8:])


def test_enough_memory_changes_nothing():
    """Held whole, the fit is the same to the last bit whatever more is allowed."""
    traced, couplings, inputs = prepared(Narrowing(), 2, 16, 16)
    removed = without(couplings, "a.weight", 1, 4)
    one, _ = recover_closed_form(traced, couplings, removed, inputs)
    two, _ = recover_closed_form(traced, couplings, removed, inputs, memory=1 << 40)
    assert apart(one, two, inputs) == 0


def test_few_rows_give_the_solution_of_the_whole_gram():
    """The dual form agrees with the primal one at equal rows: solution, ridge, errors and offset."""
    torch.manual_seed(0)
    x = torch.randn(40, 12, dtype=torch.float64)
    y = x[:, :3] @ torch.randn(3, 4, dtype=torch.float64) + 0.3 * torch.randn(40, 4, dtype=torch.float64)
    held = torch.arange(40) >= 30
    train, rest = GramMoments(), GramMoments()
    train.add(x[:30], y[:30])
    rest.add(x[30:], y[30:])
    wanted = best_ridge(train, rest, False)
    solution, offset, *others = best_dual(x, y, held, centred=False)
    assert torch.allclose(solution, wanted[0], atol=1e-9)
    assert others == pytest.approx(wanted[1:])
    assert float(offset.abs().max()) == 0
    moved, offset, *_ = best_dual(x + 3, y + 5, held, centred=True)
    same, ridge, *_ = best_ridge(train, rest, True)
    if ridge == wanted[1]:
        assert torch.allclose(moved, same, atol=1e-9)
    assert torch.allclose(offset, 5 + y.mean(0) - (3 + x.mean(0)) @ moved, atol=1e-9)


class Flat(nn.Module):
    """A linear layer over many features, six of every channel."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Conv1d(2, 8, 3, padding=1), nn.Linear(48, 4)
        with torch.no_grad():
            self.a.weight[5], self.a.bias[5] = 0.5 * self.a.weight[2], 0.5 * self.a.bias[2]

    def forward(self, x):
        return self.head(torch.relu(self.a(x)).flatten(1))


class Deep(nn.Module):
    """Channel 5 of the first layer halves channel 2; a padded convolution reads both."""

    def __init__(self, bias, norm):
        super().__init__()
        self.a = nn.Conv2d(2, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 5, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.head = nn.Conv2d(5, 3, 1)
        with torch.no_grad():
            self.a.weight[5], self.a.bias[5] = 0.5 * self.a.weight[2], 0.5 * self.a.bias[2]
        nets.settle(self)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.b(torch.relu(self.a(x))))))


@pytest.mark.parametrize(
    "net",
    [Flat(), Deep(True, False), Deep(False, False), Deep(False, True)],
    ids=["flat", "bias", "bare", "norm"],
)
def test_layers_with_too_many_features_make_up_for_a_twin(net, monkeypatch):
    """Few rows (linear) and one mixing for all taps (convolution) both find the twin."""
    shape = (2, 6) if isinstance(net, Flat) else (2, 7, 7)
    traced, couplings, inputs = prepared(net, *shape, batches=8)
    monkeypatch.setattr(MODULE, "MAX_FEATURES", 30)
    removed = without(couplings, "a.weight", 5)
    small, fits = recover_closed_form(traced, couplings, removed, inputs)
    plain = cut(traced, couplings, removed)
    name = "head.weight" if isinstance(net, Flat) else "b.weight"
    assert fits[0].layer == name
    assert fits[0].error_after < 0.01 * fits[0].error_before
    assert squared(traced, small, inputs) < 0.01 * squared(traced, plain, inputs)


def test_a_mixing_that_does_not_help_is_taken_back(monkeypatch):
    """Where held-out outputs get worse, the weights are the plain slices again."""
    traced, couplings, inputs = prepared(Deep(True, False), 2, 7, 7)
    monkeypatch.setattr(MODULE, "MAX_FEATURES", 30)
    errors = iter([1.0, 2.0])
    monkeypatch.setattr(MODULE, "_held_error", lambda *_: next(errors))
    removed = without(couplings, "a.weight", 0)
    small, fits = recover_closed_form(traced, couplings, removed, inputs)
    plain = state_tensors(cut(traced, couplings, removed).graph)["b.weight"]
    assert fits[0].error_after == fits[0].error_before
    assert torch.allclose(state_tensors(small.graph)["b.weight"], plain, atol=1e-12)
