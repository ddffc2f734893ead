"""A model that torch.export refuses as a whole is traced in its largest exportable parts."""

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import TraceError
from edgeprune.graph.calls import macs_by_path
from edgeprune.graph.parts import describe_parts, exportable_parts, put_back
from edgeprune.graph.trace import run


class Detector(nn.Module):
    """A backbone and a head that export, between code that depends on the data."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        self.head = nn.Linear(4, 5)
        self.rare = nn.Linear(4, 2)

    def forward(self, images):
        features = self.backbone(torch.stack(images)).mean((2, 3))
        scores = self.head(features)
        found = [s for s in scores if s.max() > -1e9]
        self.rare(features[:0])
        return found


class Levels(nn.Module):
    """One head on two levels, a neck with a keyword and a constant, a module that nothing calls."""

    def __init__(self, *, scales=(2, 2)):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        self.neck, self.scales = Neck(), scales
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        found = [self.head(f).flatten(2) for f in (x[..., ::2, ::2], x)]
        for scale in self.scales:
            found.append(self.neck(feat=x, scale=scale).flatten(2))
        y = torch.cat(found, 2)
        return y[y.amax((1, 2)) > -1e9] @ torch.ones(y.shape[2], 4)


class Neck(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, feat, scale=1):
        return self.b(torch.relu(self.a(feat))) * scale


def images(n=4):
    torch.manual_seed(0)
    return [torch.randn(3, 8, 8) for _ in range(n)]


def test_the_largest_exportable_submodules_are_the_parts():
    """Whole modules, none inside another, each with a trace that computes what the module does."""
    net, given = Detector().eval(), images()
    parts, missed = exportable_parts(net, lambda m: m(given))
    assert [p.path for p in parts] == ["backbone", "head", "rare"] and not missed
    for part in parts:
        module = net.get_submodule(part.path)
        with torch.no_grad():
            torch.testing.assert_close(run(part.trace.graph, part.inputs)[0], module(*part.inputs))


def test_a_part_that_the_example_left_empty_is_traced_on_noise():
    """No detection reached it; its shape is known, its samples are none."""
    parts, _ = exportable_parts(Detector().eval(), lambda m: m(images()))
    rare = next(p for p in parts if p.path == "rare")
    assert rare.rows == 0 and len(rare.inputs[0]) >= 2


def test_calls_in_several_shapes_are_one_part_with_a_trace_of_each():
    """The largest comes first, rows count every call, and each trace computes what the module does."""
    net = Levels().eval()
    parts, missed = exportable_parts(net, lambda m: m(torch.randn(5, 3, 12, 12)))
    assert [p.path for p in parts] == ["head", "neck"] and missed == {"idle": "not called in the run"}
    head, neck = parts
    assert [tuple(x[0].shape[-2:]) for x in (w.inputs for w in head.ways)] == [(12, 12), (6, 6)]
    assert [w.rows for w in head.ways] == [5, 5] and [w.rows for w in neck.ways] == [10]
    for part in parts:
        for way, traced in zip(part.ways, part.traces, strict=True):
            module = way.around(net.get_submodule(part.path))
            with torch.no_grad():
                torch.testing.assert_close(run(traced.graph, way.inputs)[0], module(*way.inputs))


def test_a_keyword_and_a_constant_are_bound_and_their_graph_is_called_the_same_way():
    """Another constant than the traced one is refused, not computed wrongly."""
    net, x = Levels().eval(), torch.randn(3, 3, 12, 12)
    parts, _ = exportable_parts(net, lambda m: m(x))
    neck = parts[1]
    graph = neck.ways[0].instead(neck.trace.graph, net.neck)
    with torch.no_grad():
        torch.testing.assert_close(graph(feat=x, scale=2), net.neck(feat=x, scale=2))
        with pytest.raises(TraceError, match="traced with 2 as its argument 2"):
            graph(feat=x, scale=3)
    parts, _ = exportable_parts(Levels(scales=(2, 4)).eval(), lambda m: m(x))
    assert [w.fixed for w in parts[1].ways] == [{1: 2}, {1: 4}]


def test_a_module_that_takes_anything_else_is_missed_with_the_reason():
    """An object in a call may hold what changes with the image."""

    class Scaled(nn.Linear):
        def forward(self, x, scale):
            return super().forward(x) * float(scale)

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Scaled(4, 4)

        def forward(self, x):
            return self.layer(x, np.float32(2))[: int(x.sum() > -1e9)]

    parts, missed = exportable_parts(Odd().eval(), lambda m: m(torch.randn(2, 4)))
    assert not parts and missed == {"layer": "takes more than tensors and constants: float32"}


def test_the_refusal_of_a_whole_offers_no_export_of_a_part_that_takes_constants():
    """A line to copy must run; with a constant in the call it would not."""

    class Only(Levels):
        def forward(self, x):
            y = self.neck(feat=x, scale=2)
            return y[y.amax((1, 2, 3)) > 0]

    told = describe_parts(Only().eval(), (torch.randn(4, 3, 8, 8),))
    assert "prune_parts" in told.tip and "torch.export.save" not in told.tip


def test_macs_are_counted_where_they_run_in_every_call_and_outside_of_modules():
    """head: 5 x (10^2 + 4^2) x 8 x 27 and 16 per position; neck: twice 144 positions x 30; then y @ ones."""
    x = torch.randn(5, 3, 12, 12)
    spent = macs_by_path(Levels().eval(), lambda m: m(x))
    positions = 10 * 10 + 4 * 4
    assert spent["head"] == 5 * positions * (8 * 27 + 16)
    assert spent["head.0"] == 5 * positions * 8 * 27
    assert spent["neck"] == 2 * 5 * 144 * (18 + 12)
    last = 5 * 2 * (positions + 2 * 144) * 4
    assert spent[""] == spent["head"] + spent["neck"] + last


def test_attention_and_recurrent_layers_that_no_part_holds_are_counted():
    """Fused, they would count as nothing: 4 projections, two products of T x 8; 4 gates of 8 + 6."""

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.r = nn.MultiheadAttention(8, 2, batch_first=True), nn.LSTM(8, 6)

        def forward(self, x):
            return self.a(x, x, x, need_weights=False)[0], self.r(x)

    spent = macs_by_path(Attends().eval(), lambda m: m(torch.randn(3, 5, 8)))
    assert spent["a"] == 3 * 5 * (4 * 64 + 2 * 5 * 8)
    assert spent["r"] == 3 * 5 * 4 * 6 * (8 + 6)


def test_a_module_that_stands_in_two_places_is_one_part_and_put_back_in_both():
    """Its calls are counted together, whichever name they came through."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.ReLU())
            self.two.append(self.one[0])

        def forward(self, x):
            y = self.two[1](self.two[0](self.one[0](x)))
            return y[y[:, 0] > -1e9]

    net = Shared().eval()
    parts, missed = exportable_parts(net, lambda m: m(torch.randn(3, 4)))
    assert [(p.path, p.rows) for p in parts] == [("one.0", 6)]
    assert missed == {}
    put_back(net, "one.0", nn.Identity())
    assert net.two[1] is net.one[0] and isinstance(net.two[1], nn.Identity)


def test_put_back_replaces_the_submodule_and_the_model_runs():
    """The graph of a part stands where the module stood."""
    net, given = Detector().eval(), images()
    before = net(given)
    parts, _ = exportable_parts(net, lambda m: m(given))
    put_back(net, "backbone", parts[0].trace.graph)
    assert net.backbone is parts[0].trace.graph
    for a, b in zip(net(given), before, strict=True):
        torch.testing.assert_close(a, b)
