"""A model that torch.export refuses as a whole is traced in its largest exportable parts."""

import torch
from torch import nn

from edgeprune.model.parts import exportable_parts, put_back
from edgeprune.model.trace import run


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


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, x):
        return self.shared(self.shared(x)) if x.sum() > -1e9 else x


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


def test_what_is_called_twice_is_missed_with_the_reason():
    """One trace cannot stand for two calls."""
    parts, missed = exportable_parts(Twice().eval(), lambda m: m(torch.randn(2, 4)))
    assert not parts and "called 2 times" in missed["shared"]


def test_put_back_replaces_the_submodule_and_the_model_runs():
    """The graph of a part stands where the module stood."""
    net, given = Detector().eval(), images()
    before = net(given)
    parts, _ = exportable_parts(net, lambda m: m(given))
    put_back(net, "backbone", parts[0].trace.graph)
    assert net.backbone is parts[0].trace.graph
    for a, b in zip(net(given), before, strict=True):
        torch.testing.assert_close(a, b)
