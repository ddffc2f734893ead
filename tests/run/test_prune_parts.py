"""A detector whose last steps depend on the data: its parts are pruned where they are."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgeprune
from edgeprune.errors import BudgetError, CriterionError, DataError, ModelError, OutputError, TraceError
from edgeprune.graph.parts import exportable_parts
from edgeprune.graph.trace import run
from edgeprune.run.open_trace import open_trace


class Frozen(nn.Module):
    """Batch norm with fixed statistics, as detectors carry it: buffers only, folded when traced."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "mean"):
            self.register_buffer(name, torch.rand(channels) + 0.5)
        self.register_buffer("var", torch.rand(channels) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.var + 1e-5).rsqrt()
        return x * scale.view(-1, 1, 1) + (self.bias - self.mean * scale).view(-1, 1, 1)


class Pyramid(nn.Module):
    """Two levels, the coarse one brought to the size of the fine one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Frozen(16), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, 2, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(24, 8, 1)

    def forward(self, x):
        fine = self.stem(x)
        coarse = self.right(self.down(fine))
        return {"0": self.left(fine) + F.interpolate(coarse, size=fine.shape[-2:]), "1": coarse}


class Head(nn.Module):
    """Scores at every position of every level, by a width that the forward holds as a number."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.mid, self.out, self.literal = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 2, 1), literal

    def forward(self, x):
        y = torch.relu(self.mid(x))
        return self.out(y.view(-1, 12, *y.shape[2:]) if self.literal else y)


class Detector(nn.Module):
    """Images of one size as a list; the boxes are the positions above a score, as many as there are."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.backbone, self.head = Pyramid(), Head(literal=literal)

    def forward(self, images):
        features = self.backbone(torch.stack(images))
        scores = self.head(features["0"])
        return [(s.amax(0) > 0.1).nonzero() for s in scores]


def images(count=2, size=12):
    torch.manual_seed(1)
    return [torch.randn(3, size, size) for _ in range(count)]


@pytest.fixture
def detector():
    torch.manual_seed(0)
    net = Detector()
    for _ in range(100):  # statistics of its own activations, as after training
        net.backbone(torch.randn(16, 3, 12, 12))
    return net.eval()


def test_parts_are_pruned_in_their_own_classes_and_the_model_runs_on_other_sizes(detector):
    """Half of the MACs go, the caller's module stays as it was, and training is open."""
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    found = edgeprune.prune_parts(detector, images(), macs=0.5)
    assert [(p.path, p.fixed) for p in found.parts] == [("backbone", None), ("head", None)]
    assert not found.missed
    dense, small = found.macs
    assert 0.4 * dense < small <= 0.5 * dense
    for part in found.parts:
        assert part.components[1] < part.components[0] and part.params[1] < part.params[0]
        assert any(p.reason.startswith("output") for p in part.pinned)
    assert isinstance(found.module.backbone, Pyramid)
    assert found.module.backbone.stem[0].out_channels < 16
    assert found.module.backbone.left.out_channels == 8
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert len(found.module(images(3, size=20))) == 3
    found.module.train()
    sum(p.sum() for p in found.module.backbone(torch.stack(images()))["0"]).sum().backward()
    assert found.module.backbone.stem[0].weight.grad is not None


def test_a_sliced_part_computes_what_its_pruned_graph_computes(detector):
    """The record's numbers are those of the module: the part traced again has as many parameters."""
    found = edgeprune.prune_parts(detector, images(), macs=0.5)
    parts, _ = exportable_parts(found.module, lambda m: m(images()), samples=2)
    for part, record in zip(parts, found.parts, strict=True):
        made = run(part.trace.graph, tuple(torch.utils._pytree.tree_leaves(part.inputs)))
        with torch.no_grad():
            own = torch.utils._pytree.tree_leaves(found.module.get_submodule(part.path)(*part.inputs))
        for a, b in zip(made, own, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert record.params[1] == sum(p.numel() for p in part.trace.graph.parameters())


def test_data_refits_what_stays_and_opens_the_other_criteria(detector):
    """On samples of the parts themselves; what came in another size is left out."""
    data = [images(8), images(2, size=10)]
    given = torch.stack(images(4))
    dense = detector.backbone(given)["1"].detach()
    errors = {}
    for name, more in {
        "plain": {}, "refitted": {"data": data}, "scored": {"data": data, "criterion": "ib-gauss"}
    }.items():  # fmt: skip
        found = edgeprune.prune_parts(detector, images(), macs=0.6, **more)
        assert [p.refitted for p in found.parts] == [bool(more)] * 2
        errors[name] = float((found.module.backbone(given)["1"].detach() - dense).pow(2).mean())
    assert errors["refitted"] < 0.8 * errors["plain"]
    assert errors["scored"] < errors["plain"]


def test_a_class_that_cannot_be_sliced_gives_its_graph_and_the_line():
    """The forward holds a width as a number: the part is pruned, for the example's sizes only."""
    torch.manual_seed(0)
    found = edgeprune.prune_parts(Detector(literal=True).eval(), images(), macs=0.5)
    head = found.parts[1]
    assert "reads a size that slicing does not reach: test_prune_parts.py:" in head.fixed
    assert not isinstance(found.module.head, Head)
    assert len(found.module.eval()(images(5))) == 5


class Levels(nn.Module):
    """One head on two levels of a pyramid, a neck with a keyword and a constant, and a threshold."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.neck, self.head = Neck(), Tower(literal=literal)

    def forward(self, x):
        fine = self.neck(feat=self.stem(x), scale=2)
        y = torch.cat([self.head(f).flatten(2) for f in (self.down(fine), fine)], 2)
        return [o[:, o[0] > 0] for o in y]


class Neck(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 16, 3, 1, 1), nn.Conv2d(16, 8, 3, 1, 1)

    def forward(self, feat, scale):
        return self.b(torch.relu(self.a(feat))) * scale


class Tower(nn.Module):
    """Its width is a number in the forward where it is literal; the tower inside is a module of its own."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 12, 3, 1, 1))
        self.out, self.literal = nn.Conv2d(12, 5, 1), literal

    def forward(self, x):
        y = self.tower(x)
        return self.out(y.view(-1, 12, *y.shape[2:]) if self.literal else y)


def levels(**how):
    torch.manual_seed(0)
    return Levels(**how).eval(), torch.randn(4, 3, 32, 32)


def test_a_head_on_several_levels_is_one_part_and_all_its_calls_count():
    """16 x 16 and 8 x 8 positions of four images, by hand; other image sizes pass, weights stay shared."""
    net, x = levels()
    found = edgeprune.prune_parts(net, x, macs=0.5)
    assert [p.path for p in found.parts] == ["stem", "down", "neck", "head"] and not found.missed
    head = found.parts[-1]
    assert head.macs[0] == 4 * (16 * 16 + 8 * 8) * (8 * 16 * 9 + 16 * 12 * 9 + 12 * 5)
    assert head.fixed is None and head.components[1] < head.components[0]
    dense, small = found.macs
    assert 0.4 * dense < small <= 0.5 * dense
    wide, narrow = found.module.head.tower[0], found.module.neck.a
    assert isinstance(found.module.head, Tower) and wide.out_channels < 16 and narrow.out_channels < 16
    assert isinstance(found.module.neck, Neck) and found.parts[2].attributes["a.out_channels"][0] == 16
    assert len(found.module(torch.randn(1, 3, 48, 40))) == 1
    again, _ = exportable_parts(found.module, lambda m: m(x), samples=2)
    for part in again:
        for way, traced in zip(part.ways, part.traces, strict=True):
            module = way.around(found.module.get_submodule(part.path))
            with torch.no_grad():
                torch.testing.assert_close(run(traced.graph, way.inputs)[0], module(*way.inputs))


def test_samples_of_a_head_on_several_levels_refit_it():
    """Those in the size of its largest call are what it learns from."""
    net, x = levels()
    found = edgeprune.prune_parts(net, x, macs=0.6, data=[torch.randn(8, 3, 32, 32)], criterion="ib-gauss")
    assert all(p.refitted for p in found.parts if p.components[0])


def test_a_width_in_the_forward_stays_and_the_rest_of_the_class_is_pruned():
    """The layer that the literal width comes from is kept whole; the one before it is not."""
    net, x = levels(literal=True)
    found = edgeprune.prune_parts(net, x, macs=0.7)
    assert [p.path for p in found.parts] == ["stem", "down", "neck", "head"]
    assert found.parts[3].whole == ("tower.2",)
    assert found.module.head.tower[0].out_channels < 16 and found.module.head.literal
    assert found.macs[1] <= 0.7 * found.macs[0]
    assert len(found.module(x)) == 4


def test_a_class_that_no_graph_can_replace_gives_its_children():
    """Two levels and all widths in the forward: the class loses nothing and no graph takes both sizes."""

    class Literal(Tower):
        def forward(self, x):
            y = self.tower[0](x)
            y = self.tower[2](torch.relu(y.view(-1, 16, *y.shape[2:])))
            return self.out(y.view(-1, 12, *y.shape[2:]))

    net, x = levels()
    net.head = Literal().eval()
    found = edgeprune.prune_parts(net, x, macs=0.95)
    assert [p.path for p in found.parts] == [
        "stem",
        "down",
        "neck",
        "head.tower.0",
        "head.tower.2",
        "head.out",
    ]
    assert len(found.module(x)) == 4


class Missing(Levels):
    """A head that is called with an object, and a product that the forward takes itself."""

    def __init__(self):
        super().__init__()
        self.odd = Odd(8, 64, 3, padding=1)

    def forward(self, x):
        fine = self.stem(x)
        y = self.odd(self.neck(feat=fine, scale=2), options={"stride": np.float32(1)}).flatten(2)
        y = torch.cat([y, (y @ torch.ones(256, 256)), self.head(fine).flatten(2).repeat(1, 13, 1)[:, :64]], 2)
        return [o[:, o[0] > 0] for o in y]


class Odd(nn.Conv2d):
    """Has weights of its own and a part inside."""

    def __init__(self, *sizes, **how):
        super().__init__(*sizes, **how)
        self.after = nn.Conv2d(64, 64, 1)

    def forward(self, x, options):
        return self.after(super().forward(x) * float(options["stride"]))


def test_the_budget_is_of_the_whole_model_and_what_no_part_holds_is_counted():
    """Half of the parts is not half of the model: refused with both shares, and met where it can be."""
    torch.manual_seed(0)
    net, x = Missing().eval(), torch.randn(4, 3, 32, 32)
    odd = 4 * 256 * 8 * 64 * 9
    with pytest.raises(
        BudgetError, match=r"at least \d\d\.\d% of the model's MACs .*are in no part: odd \(takes more"
    ):
        edgeprune.prune_parts(net, x, macs=0.3)
    found = edgeprune.prune_parts(net, x, macs=0.9)
    assert found.missed_macs["odd"] == odd and "odd.after" in [p.path for p in found.parts]
    assert found.outside == odd + 4 * 64 * 256 * 256
    assert found.macs[0] == found.outside + sum(p.macs[0] for p in found.parts)
    assert found.macs[1] <= 0.9 * found.macs[0]


class Whole(nn.Module):
    """Nothing in it exports but one layer between two boundaries."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > -1e9 else x


class Uncalled(Whole):
    def forward(self, x):
        return F.linear(x, self.layer.weight)[: int(x.argmax())]


def test_what_cannot_be_pruned_says_why(detector):
    """No part, nothing free, a call that fails, a criterion without data: each with the next step."""
    x = torch.randn(4, 4)
    with pytest.raises(TraceError, match=r"no part of Uncalled .* layer \(not called in the run"):
        edgeprune.prune_parts(Uncalled(), x)
    with pytest.raises(BudgetError, match=r"macs=0\.5: at least 100\.0% .*output 'linear'"):
        edgeprune.prune_parts(Whole(), x)
    with pytest.raises(ModelError, match=r"Detector does not run on example_inputs: .*a tuple"):
        edgeprune.prune_parts(detector, tuple(images()))
    with pytest.raises(DataError, match="criterion=taylor: no data reached backbone"):
        edgeprune.prune_parts(detector, images(), criterion="taylor", data=[images(2, size=10)])
    with pytest.raises(CriterionError, match="--criterion l3: no such criterion"):
        edgeprune.prune_parts(detector, images(), criterion="l3")


def test_the_refusal_of_the_whole_names_this_way():
    """`compress` and `inspect` cannot take such a model; their message says what can."""
    from edgeprune.frontend.loaded import from_module

    class OneImage(Detector):
        def forward(self, x):
            return super().forward(list(x))

    with pytest.raises(TraceError, match=r"backbone \(\d+%\).*edgeprune\.prune_parts\(model, example_inputs"):
        open_trace(from_module(OneImage(), torch.stack(images())))


def test_a_detector_of_torchvision_keeps_its_class_and_loses_half():
    """SSDlite: the backbone gives up its channels, the heads between boundaries keep theirs."""
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    found = edgeprune.prune_parts(model, [torch.rand(3, 64, 64) for _ in range(2)], macs=0.6)
    assert found.macs[1] <= 0.6 * found.macs[0]
    assert all(part.fixed is None for part in found.parts) and type(found.module) is type(model)
    with torch.no_grad():
        boxes = found.module([torch.rand(3, 80, 100)])
    assert np.isfinite(boxes[0]["scores"].numpy()).all()


class Unit(nn.Module):
    """Convolution and norm, as detectors repeat them; knows where its input comes from."""

    def __init__(self, inputs, outputs, size=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.silu(self.norm(self.conv(x)))


class Mixing(nn.Module):
    """Attention over positions: heads are an attribute, the width is read from the input."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.value, self.key = heads, width // heads, width // heads // 2
        self.all, self.place = Unit(width, width + 2 * heads * self.key), Unit(width, width, 3, width)

    def forward(self, x):
        n, width, h, w = x.shape
        parts = self.all(x).view(n, self.heads, 2 * self.key + self.value, h * w)
        q, k, v = parts.split([self.key, self.key, self.value], 2)
        weights = (q.transpose(-2, -1) @ k * self.key**-0.5).softmax(-1)
        return (v @ weights.transpose(-2, -1)).view(n, width, h, w) + self.place(v.reshape(n, width, h, w))


class Halves(nn.Module):
    """One half of the channels goes through attention; the width of a half is written as a number."""

    def __init__(self, width, heads):
        super().__init__()
        self.half = width // 2
        self.first, self.last = Unit(width, width), Unit(width, width)
        self.mixing = Mixing(self.half, heads)
        self.feed = nn.Sequential(Unit(self.half, 64), Unit(64, self.half))

    def forward(self, x):
        a, b = self.first(x).split((self.half, self.half), 1)
        b = b + self.mixing(b)
        return self.last(torch.cat([a, b + self.feed(b)], 1))


class Chain(nn.Module):
    """Layers in a list, each of which says which earlier ones it reads; ends in what passes a threshold."""

    def __init__(self, *, literal):
        super().__init__()
        layers = [
            nn.Sequential(Unit(3, 16, 3), Unit(16, 48, 3), Unit(48, 16, 3)),
            Halves(16, 2),
            LiteralWidth() if literal else nn.Sequential(Unit(16, 48, 3), Unit(48, 16, 3)),
            nn.Sequential(Unit(32, 24, 3), nn.Conv2d(24, 4, 1)),
        ]
        for i, (layer, source) in enumerate(zip(layers, (-1, -1, -1, [-1, 1]), strict=True)):
            layer.f, layer.i, layer.kind = source, i, type(layer).__name__
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        outputs = []
        for layer in self.layers:
            if layer.f != -1:
                x = torch.cat([x if j == -1 else outputs[j] for j in layer.f], 1)
            x = layer(x)
            outputs.append(x)
        return x[x > x.mean()]


class LiteralWidth(nn.Module):
    """Its forward holds the inner width as a number: the class cannot be sliced."""

    stride = 2

    def __init__(self):
        super().__init__()
        self.a, self.b = Unit(16, 48, 3), Unit(48, 16, 3)
        self.anchors = [torch.zeros(2), (1, 2)]

    def forward(self, x):
        y = self.a(x)
        return self.b(y.view(-1, 48, *y.shape[2:]))


def test_a_graph_in_the_place_of_a_layer_answers_what_the_forward_asks_of_it():
    """`layer.f` of a list of layers, constants of the class, tensors beside them; no methods, no weights."""
    torch.manual_seed(0)
    model = Chain(literal=True).eval()
    found = edgeprune.prune_parts(model, torch.randn(2, 3, 12, 12), macs=0.4)
    part = next(p for p in found.parts if p.path == "layers.2")
    assert part.fixed is not None
    stand_in = found.module.layers[2]
    assert not isinstance(stand_in, LiteralWidth)
    assert (stand_in.f, stand_in.i, stand_in.kind, stand_in.stride) == (-1, 2, "LiteralWidth", 2)
    assert stand_in.anchors[1] == (1, 2) and stand_in.anchors[0] is not model.layers[2].anchors[0]
    assert found.module(torch.randn(3, 3, 12, 12)).dim() == 1


def test_attention_that_reads_its_width_from_its_input_keeps_its_class():
    """What the class cannot express stays whole and is named; the rest of the part is pruned."""
    torch.manual_seed(0)
    found = edgeprune.prune_parts(Chain(literal=False).eval(), torch.randn(2, 3, 12, 12), macs=0.6)
    part = next(p for p in found.parts if p.path == "layers.1")
    assert part.fixed is None and isinstance(found.module.layers[1], Halves)
    assert part.whole
    assert part.components[1] < part.components[0]
    assert found.macs[1] <= 0.6 * found.macs[0]
    assert found.module(torch.randn(2, 3, 16, 20)).dim() == 1


def test_a_budget_that_whole_submodules_do_not_allow_is_met_with_graphs():
    """The budget comes first: where the class leaves too little to remove, the graph loses more."""

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.halves = Halves(16, 2)

        def forward(self, x):
            y = self.halves(x)
            return y[y > y.mean()]

    torch.manual_seed(0)
    found = edgeprune.prune_parts(Alone().eval(), torch.randn(2, 16, 12, 12), macs=0.45)
    (part,) = found.parts
    assert part.fixed is not None and part.whole == ()
    assert found.macs[1] <= 0.45 * found.macs[0]


def test_parts_end_in_files_that_compute_what_the_pruned_module_computes(detector, tmp_path):
    """A pair of files per part, proven and timed; onnxruntime gives the outputs of the sliced class."""
    found = edgeprune.prune_parts(detector, images(), macs=0.5)
    files = edgeprune.export_parts(found, tmp_path / "parts", seconds=0.3)
    assert [file.path for file in files] == ["backbone", "head"]
    given = torch.stack(images(3))
    session = onnxruntime.InferenceSession(str(tmp_path / "parts" / files[0].file))
    outputs = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    with torch.no_grad():
        expected = found.module.backbone(given)
    for a, b in zip(outputs, expected.values(), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=1e-4)
    sizes = [(tmp_path / "parts" / name).stat().st_size for name in (files[0].file, files[0].dense_file)]
    assert sizes[0] < sizes[1]
    record = json.loads((tmp_path / "parts" / "parts.json").read_text())
    measured = [entry["bench"]["ratios"][0]["ratio"]["value"] for entry in record]
    assert measured == [file.ratio.value for file in files]
    with pytest.raises(OutputError, match="parts"):
        edgeprune.export_parts(found, tmp_path / "parts", seconds=0.3)


def test_a_part_that_is_called_in_several_shapes_gives_a_file_for_each(tmp_path):
    """The head runs on two levels, and each has its own sizes."""
    net, x = levels()
    found = edgeprune.prune_parts(net, x, macs=0.7)
    files = [f for f in edgeprune.export_parts(found, tmp_path / "p", seconds=0.2) if f.path == "head"]
    assert [f.file for f in files] == ["head.0.onnx", "head.1.onnx"]
    assert files[0].inputs != files[1].inputs
