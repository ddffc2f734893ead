"""A network that gives other outputs for the same input is refused; the line or the buffer is named."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import TraceError
from edgeprune.frontend.loaded import from_module
from edgeprune.graph.trace import run, trace
from edgeprune.run.open_trace import open_trace
from edgeprune.run.parts import prune_parts


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(functional.dropout(torch.relu(self.a(x)), 0.5))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.a(x).reshape(len(x), 1, 12).chunk(3, -1)
        q, k, v = (torch.cat([part, -part], 1) for part in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.4)


class State(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.register_buffer("carried", torch.zeros(8))

    def forward(self, x):
        y = self.a(x) + self.carried
        self.carried.copy_(y.mean(0))
        return y


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 8)

    def forward(self, x):
        return self.a(x + torch.randn_like(x))


class Watched(nn.Module):
    """Keeps a running mean of a layer, which no output reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x):
        y = torch.relu(self.a(x))
        self.seen.copy_(0.9 * self.seen + 0.1 * y.mean(0))
        return self.b(y)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.LSTM(4, 8, 2, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.layers.train()(x.unsqueeze(1))[0]


class Unnormalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False))

    def forward(self, x):
        return self.stem(x)


def reloaded(model):
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.randn(4, 4),)), buffer)
    buffer.seek(0)
    return torch.export.load(buffer)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (Functional, r"dropout with p=0.5 at test_determinism.py:\d+.*training=self.training"),
        (Attention, r"dropout of attention with p=0.4 at test_determinism.py:\d+.*dropout_p"),
        (State, r"writes to the buffer 'carried'.*an input and an output"),
        (Noise, r"randn_like at test_determinism.py:\d+.*as an input"),
    ],
)
def test_a_model_that_is_no_function_of_its_input_is_refused_with_the_cause(kind, cause):
    """Run twice before anything else: the random operator's line or the written buffer is named."""
    with pytest.raises(TraceError, match=f"no function of its input.*{cause}"):
        open_trace(from_module(kind(), torch.randn(4, 4)))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("through_file", [False, True])
def test_dropout_between_recurrent_layers_is_not_dropped_silently(through_file):
    """Splitting an LSTM into its layers would take the dropout away; it is refused instead."""
    model = Recurrent().eval()
    with pytest.raises(TraceError, match=r"p=0\.3 between the recurrent layers at test_determinism\.py"):
        trace(reloaded(model) if through_file else model, (torch.randn(4, 4),))


def test_a_buffer_that_no_output_reads_does_not_matter():
    """Its writes are dropped, so that a layer as wide as it stays removable; the model is not changed."""
    model = Watched().eval()
    traced, _ = open_trace(from_module(model, torch.randn(4, 4)))
    assert not any("copy_" in str(node.target) for node in traced.graph.graph.nodes)
    assert not model.seen.any()
    with torch.no_grad():
        torch.testing.assert_close(run(traced.graph, traced.inputs)[0], model(traced.inputs[0]))


def test_parts_that_are_no_function_are_not_pruned():
    """A child with dropout left on is no part; the reason is the same sentence."""

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.noisy, self.tail = Functional(), nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))

        def forward(self, x):
            return self.tail(self.noisy(x))

    done = prune_parts(Whole(), torch.randn(4, 4), macs=0.9)
    assert "no function of its input" in done.missed.get("noisy", "") or "noisy.a" in [
        part.path for part in done.parts
    ]
    assert "noisy" not in [part.path for part in done.parts]


@pytest.mark.parametrize("through_file", [False, True])
def test_batch_norm_without_running_statistics_is_named_with_the_reason(through_file):
    """`eval()` would not help: the layer keeps no statistics, and the message says which one."""
    model = Unnormalised().eval()
    with pytest.raises(TraceError, match=r"'stem\.1' at .*track_running_stats=False") as caught:
        trace(reloaded(model) if through_file else model, (torch.randn(4, 4),))
    assert "eval()" not in str(caught.value)
