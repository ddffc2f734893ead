"""Stacked recurrent layers are split on load and compute the same."""

import pytest
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.graph.trace import reexport, run, trace
from edgeprune.surgery.cut import cut


class Stacked(nn.Module):
    """A recurrent stack whose last output, or last hidden state, is classified."""

    def __init__(self, kind, layers, both, first, hidden):
        super().__init__()
        self.rnn = kind(6, 8, layers, bidirectional=both, batch_first=first)
        self.head = nn.Linear(16 if both else 8, 3)
        self.first, self.hidden = first, hidden

    def forward(self, x):
        out, state = self.rnn(x)
        if self.hidden:
            state = state[0] if isinstance(state, tuple) else state
            return self.head(torch.cat([state[-2], state[-1]], -1) if self.rnn.bidirectional else state[-1])
        return self.head(out[:, -1] if self.first else out[-1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_float32_stack_computes_the_same_layer_by_layer(kind, both, first, hidden):
    """float32 is the case that matters: its kernel refuses the symbolic sizes of a free batch."""
    torch.manual_seed(0)
    net = Stacked(kind, 2, both, first, hidden).eval()
    x = torch.randn(4, 5, 6)
    traced = trace(net, (x,))
    layers = [n for n in traced.graph.graph.nodes if "lstm" in str(n.target) or "gru" in str(n.target)]
    assert all(n.args[4] == 1 for n in layers) and len(layers) == 2
    torch.testing.assert_close(run(traced.graph, (x,))[0], net(x))


def test_a_cut_stack_exports_again():
    """Half of every layer's units go and the graph stands alone."""
    net = Stacked(nn.LSTM, 3, True, True, True).eval()
    traced = trace(net, (torch.randn(4, 5, 6),))
    couplings = analyse(traced)
    removed = torch.arange(couplings.count).numpy() % 2 == 1
    small = cut(traced, couplings, removed)
    program = reexport(small.graph, small.inputs, small.dynamic)
    out = program.module()(torch.randn(7, 5, 6) if small.dynamic[0] else torch.randn(4, 5, 6))
    assert out.shape[1] == 3
