"""A detector whose last steps depend on the data: its parts are pruned where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgeprune
from edgeprune.errors import BudgetError, CriterionError, DataError, ModelError, TraceError
from edgeprune.model.parts import exportable_parts
from edgeprune.model.trace import run
from edgeprune.pipeline.opening import open_trace


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


class Whole(nn.Module):
    """Nothing in it exports but one layer between two boundaries."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > -1e9 else x


class Loop(Whole):
    def forward(self, x):
        return self.layer(x)[: int(self.layer(x).argmax())]


def test_what_cannot_be_pruned_says_why(detector):
    """No part, nothing free, a call that fails, a criterion without data: each with the next step."""
    x = torch.randn(4, 4)
    with pytest.raises(TraceError, match=r"no part of Loop .* layer \(called 2 times"):
        edgeprune.prune_parts(Loop(), x)
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
    from edgeprune.model.loaded import from_module

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
