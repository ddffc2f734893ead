"""The batch of a Trace is free however the arguments are taken, and a fixed one is said to be fixed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.frontend.loaded import from_module
from edgeprune.graph.trace import reexport, run, trace
from edgeprune.report.summary import timed_batch
from edgeprune.run.open_trace import open_trace
from edgeprune.session.options import Options


class Positional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, first, second):
        return self.b(torch.relu(self.a(first) + self.a(second)))


class Starred(Positional):
    def forward(self, *xs):
        return super().forward(*xs)


class OneAndRest(Positional):
    def forward(self, first, *rest, scale=1.0, **more):
        return super().forward(first, *rest) * scale


class Everything(Positional):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class Nested(Positional):
    def forward(self, pair):
        return super().forward(pair["first"], pair["second"])


class HoldsItsBatch(Positional):
    """A parameter with a row per sample of the batch of 2."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2, 4))

    def forward(self, *xs):
        return super().forward(*xs) + self.rows


class HoldsTheSecond(Positional):
    """Only the second input has a fixed first dimension: the batch of the first stays free."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2, 8))

    def forward(self, first, second):
        return self.b(torch.relu(self.a(first) + self.a(second + self.rows).sum(0)))


PAIR = (torch.randn(2, 8), torch.randn(2, 8))


@pytest.mark.parametrize("kind", [Positional, Starred, OneAndRest, Everything, Nested])
def test_the_batch_is_free_whatever_the_signature(kind):
    """`*xs`, `**kwargs` and nested arguments take five samples, and so does a re-export."""
    model = kind().eval()
    inputs = ({"first": PAIR[0], "second": PAIR[1]},) if kind is Nested else PAIR
    given = trace(model, inputs)
    assert given.dynamic == (True, True)
    again = trace(reexport(given.graph, given.inputs, given.dynamic))
    assert again.dynamic == (True, True)
    first, second = torch.randn(5, 8), torch.randn(5, 8)
    with torch.no_grad():
        wanted = Positional.forward(model, first, second)
        torch.testing.assert_close(run(again.graph, (first, second))[0], wanted)


@pytest.mark.parametrize(
    ("kind", "dynamic"), [(HoldsItsBatch, (False, False)), (HoldsTheSecond, (True, False))]
)
def test_a_batch_that_torch_export_makes_a_constant_counts_as_fixed(kind, dynamic):
    """Dim.AUTO leaves a symbol that equals 2; a Trace that calls it free cannot be exported again."""
    given = trace(kind().eval(), PAIR)
    assert given.dynamic == dynamic
    assert trace(reexport(given.graph, given.inputs, given.dynamic)).dynamic == dynamic


@pytest.mark.parametrize("kind", [HoldsItsBatch, HoldsTheSecond])
def test_a_fixed_batch_is_noted_with_its_reason(kind):
    """Otherwise a file for two samples ships, and nobody was told."""
    _, notes = open_trace(from_module(kind(), PAIR))
    held = "xs[0]" if kind is HoldsItsBatch else "second"
    reason = f"the model's code takes no other for {held}"
    assert notes == (f"the batch is fixed at 2, in the files as well: {reason}",)


def test_an_exporter_that_refuses_a_free_batch_is_quoted(monkeypatch):
    """The first exception, which the fixed export hides, reaches the note."""
    export = torch.export.export

    def refusing(model, args, *rest, dynamic_shapes=None, **kwargs):
        leaves = torch.utils._pytree.tree_leaves(dynamic_shapes)
        if any(leaf is not None for leaf in leaves):
            raise ValueError("no symbols today\nand a second line")
        return export(model, args, *rest, **kwargs)

    monkeypatch.setattr(torch.export, "export", refusing)
    monkeypatch.setattr("edgeprune.run.open_trace.free_batch", lambda traced: None)
    traced, notes = open_trace(from_module(Positional(), PAIR))
    assert traced.dynamic == (False, False)
    assert notes == ("the batch is fixed at 2, in the files as well: no symbols today",)


def test_the_report_names_the_batch_that_the_files_have():
    """A file for two samples is timed at two whatever was asked; a free one at what was asked."""
    held, free = trace(HoldsItsBatch().eval(), PAIR), trace(Starred().eval(), PAIR)
    assert timed_batch(held, Options(), 1) == 2
    assert timed_batch(trace(HoldsTheSecond().eval(), PAIR), Options(), 1) == 1
    assert timed_batch(free, Options(), 1) == 1
    assert timed_batch(free, Options(fixed_batch=4), 1) == 4
