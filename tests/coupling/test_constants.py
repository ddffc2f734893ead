"""Numbers read from a model's constants are constants; state that forward writes is not."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from generate import draw_removal
from torch import nn
from torch.nn import functional as F

from edgeprune.coupling.analysis import analyse
from edgeprune.errors import TraceError
from edgeprune.graph.determinism import require_function
from edgeprune.graph.trace import run, trace
from edgeprune.surgery.cut import cut
from edgeprune.surgery.oracle import masked


class Between(nn.Module):
    """A function of the activations between two layers, with buffers and a tensor that is none."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1), function
        self.register_buffer("strides", torch.tensor([8.0, 16.0]))
        self.register_buffer("count", torch.tensor(2))
        self.register_buffer("mean", torch.zeros(6, 1, 1))
        self.register_buffer("last_seen", torch.zeros(2, 6, 4, 4))
        self.parts = torch.tensor([4, 2])

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


READ = {
    "new_full": lambda net, y: y * y.new_full((4, 1), net.strides[1]),
    "new_full_batch": lambda net, y: y * y.new_full((y.shape[0], 1, 1, 1), net.strides[1]),
    "item": lambda net, y: y * net.strides[0].item(),
    "tolist": lambda net, y: sum(y * v for v in net.strides.tolist()),
    "view": lambda net, y: y.view(y.shape[0], int(net.count), 3, 4, 4).flatten(1, 2),
    "if": lambda net, y: y * 2 if net.count > 1 else y,
    "range": lambda net, y: sum(y + i for i in range(net.count)),
    "slice": lambda net, y: torch.cat([y[:, : net.count], y[:, net.count :] * 2], 1),
    "arange": lambda net, y: y[:, :, torch.arange(int(net.count) * 2)],
    "attribute": lambda net, y: y.view(y.shape[0], int(net.parts[1]), 3, 4, 4).flatten(1, 2),
    "computed": lambda net, y: torch.cat(y.split((net.parts + torch.tensor([-1, 1])).tolist(), 1)[::-1], 1),
    "scale": lambda net, y: F.interpolate(y, scale_factor=float(net.count)),
    "largest": lambda net, y: y / float(net.strides.max()),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(READ))
def test_a_number_from_a_buffer_or_constant_is_a_constant(name):
    """The program exports with a free batch, computes the same, and its channels can be removed."""
    net, x = Between(READ[name]).double().eval(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    traced = trace(net, (x,))
    assert traced.dynamic == (True,)
    more = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(run(traced.graph, (more,))[0], net(more))
    couplings = analyse(traced)
    removed = draw_removal(couplings, 0) & couplings.exact
    assert removed.any()
    small = run(cut(traced, couplings, removed).graph, traced.inputs)[0]
    torch.testing.assert_close(small, masked(traced, couplings, removed)[0], rtol=0, atol=1e-9)


def padded(net, y):
    count = net.count.item()
    torch._check(count >= 1)
    torch._check(count <= 4)
    return F.pad(y[:, :, :count], (0, 0, 0, 2))


@pytest.mark.parametrize("function", [padded, READ["item"], READ["new_full"]])
def test_a_program_that_was_exported_elsewhere_may_read_numbers(function):
    """Its graph holds the operators that read them, sizes that follow from them included."""
    net, x = Between(function).eval(), torch.randn(2, 3, 4, 4)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    assert any("item" in str(n.target) for n in program.graph.nodes)
    traced = trace(program)
    torch.testing.assert_close(run(traced.graph, (x,))[0], net(x))


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda net, y: y * y.sum().item(), "aten.item"),
        (lambda net, y: y * 2 if y.sum() > 0 else y, "decides in Python"),
        (lambda net, y: y * (net.count + y.sum()).item(), "aten.item"),
    ],
)
def test_a_number_from_the_data_is_still_refused(function, what):
    """One operand that depends on the input is enough."""
    with pytest.raises(TraceError, match=what):
        trace(Between(function).eval(), (torch.randn(2, 3, 4, 4),))


def counted(net, y):
    net.count.add_(1)
    return y * net.count.item()


def counted_later(net, y):
    y = y * net.count.item()
    net.count.add_(1)
    return y


@pytest.mark.parametrize("function", [counted, counted_later])
def test_a_number_from_a_buffer_that_forward_writes_is_no_constant(function):
    """Frozen at its first value it would change what the second call computes."""
    with pytest.raises(TraceError, match=r"aten\.item"):
        trace(Between(function).eval(), (torch.randn(2, 3, 4, 4),))


def averaged(net, y):
    net.mean.mul_(0.9).add_(0.1 * y.detach().mean((0, 2, 3)).view(6, 1, 1))
    return y - net.mean


def remembered(net, y):
    before = y + net.last_seen
    net.last_seen.copy_(y.detach())
    return before


@pytest.mark.parametrize("function", [averaged, remembered])
def test_tracing_neither_freezes_nor_moves_state(function):
    """The state stays in the trace, which shows that the network is no function of its input."""
    net, x = Between(function).eval(), torch.randn(2, 3, 4, 4)
    traced = trace(net, (x,))
    assert all((b == 0).all() for name, b in net.named_buffers() if name in ("mean", "last_seen"))
    with pytest.raises(TraceError, match=r"buffer 'mean'|buffer 'last_seen'"):
        require_function(traced)
    couplings = analyse(traced)
    removed = np.zeros(couplings.count, bool)
    removed[:1] = couplings.count > 0
    cut(traced, couplings, removed)


def scratch(net, y):
    net.mean.zero_()
    net.mean.add_(1.5)
    return y * net.mean


def observed(net, y):
    net.mean.copy_(y.detach().mean((0, 2, 3)).view(6, 1, 1))
    return y


@pytest.mark.parametrize("function", [scratch, observed])
def test_a_written_buffer_as_wide_as_a_layer_narrows_with_it(function):
    """Written before it is read, or never read: no state, and no obstacle to removing channels."""
    net, x = Between(function).double().eval(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    traced = require_function(trace(net, (x,)))
    couplings = analyse(traced)
    assert couplings.count == 6
    removed = np.arange(6) < 3
    small = run(cut(traced, couplings, removed).graph, traced.inputs)[0]
    torch.testing.assert_close(small, masked(traced, couplings, removed)[0], rtol=0, atol=1e-9)


TYPES = {
    "type_as": lambda y, x: y.type_as(x),
    "zeros_like": lambda y, x: y + torch.zeros_like(y),
    "new_zeros": lambda y, x: y + x.new_zeros(y.shape),
    "view_as": lambda y, x: y.flatten(2).view_as(y),
    "reshape_as": lambda y, x: y.flatten(2).reshape_as(y),
    "expand_as": lambda y, x: y * y.mean(1, keepdim=True).expand_as(y),
    "to": lambda y, x: y.to(x),
}


class Typed(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.other, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 5, 3), nn.Conv2d(6, 4, 1)
        self.head, self.function = nn.Conv2d(5, 2, 1), function

    def forward(self, x):
        other = self.other(x)
        return self.last(self.function(self.first(x), other)), self.head(other)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_an_operand_of_which_only_type_or_shape_is_read_ties_nothing(name):
    """Both layers stay free, apart from each other, whatever the shapes of the two."""
    net, x = Typed(TYPES[name]).double().eval(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    traced = trace(net, (x,))
    couplings = analyse(traced)
    assert couplings.count == 6 + 5
    removed = draw_removal(couplings, 0) & couplings.exact
    small = run(cut(traced, couplings, removed).graph, traced.inputs)
    for a, b in zip(small, masked(traced, couplings, removed), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_detector_goes_through_whole(dtype):
    """Anchors from strides, boxes as distributions, split blocks, attention over positions: most is free."""
    net, inputs = nets.build("detector", dtype=dtype)
    traced = trace(net, inputs)
    assert traced.dynamic == (True,)
    couplings = analyse(traced)
    assert couplings.share_free() > 0.6
    removed = draw_removal(couplings, 3)
    cut(traced, couplings, removed)
    exact = removed & couplings.exact
    small = run(cut(traced, couplings, exact).graph, traced.inputs)[0]
    tolerance = 1e-9 if dtype is torch.float64 else 1e-3
    torch.testing.assert_close(small, masked(traced, couplings, exact)[0], rtol=0, atol=tolerance)
