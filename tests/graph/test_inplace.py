"""Writes are replaced in the graph only where nobody else sees them; otherwise it is traced again."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeprune.graph import inplace
from edgeprune.graph.normalise import drop_guards
from edgeprune.graph.trace import export_program, run, trace


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.a(x), inplace=True)
        y = self.b(x)
        y += x
        return F.relu(y, inplace=True).mean((2, 3))


class SeenThroughAView(nn.Module):
    """The write changes what a view that was taken before shows."""

    def forward(self, x):
        y = x * 2
        half = y[:, :2]
        y.add_(1)
        return half * 3


class WritesItsInput(nn.Module):
    def forward(self, x):
        x.mul_(2)
        return x + 1


class Mask(nn.Module):
    """A table that is written part by part and depends on no data."""

    def forward(self, x):
        table = x.new_zeros((4, 4))
        for i, part in enumerate((slice(0, 1), slice(1, 3))):
            table[part] = i + 1
        return x @ table


class BroaderOperand(nn.Module):
    """A write keeps the type of what is written; its twin would promote."""

    def forward(self, x):
        y = x + 1
        y.add_(torch.ones(4, dtype=torch.float64))
        return y


def flat(net, x):
    graph = export_program(net, (x,)).module()
    drop_guards(graph)
    return graph


@pytest.mark.parametrize("net", [Residual(), Mask()])
def test_simple_writes_need_no_second_trace(net):
    """No operator that writes is left, and the outputs are the same."""
    x = torch.randn(2, 3, 4, 4) if isinstance(net, Residual) else torch.randn(2, 4)
    graph = flat(net.eval(), x)
    assert inplace.replace_writes(graph, (x,))
    assert not any(inplace.writes(n) for n in graph.graph.nodes if n.op == "call_function")
    torch.testing.assert_close(run(graph, (x,))[0], net(x))


@pytest.mark.parametrize("net", [SeenThroughAView(), WritesItsInput(), BroaderOperand()])
def test_writes_that_others_see_are_left_to_the_second_trace(net):
    """Refused in place, and still right as a whole."""
    x = torch.randn(2, 4)
    assert not inplace.replace_writes(flat(net, x.clone()), (x.clone(),))
    traced = trace(net, (x.clone(),))
    torch.testing.assert_close(run(traced.graph, (x.clone(),))[0], net(x.clone()))
