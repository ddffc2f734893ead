"""Patches are what F.unfold cuts out, for every stride, padding and dilation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cutting import prepared
from torch import nn

from edgeprune.calibration.patches import patch_rows

SETTINGS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "stride": 2},
    {"kernel_size": (3, 2), "padding": (1, 0), "stride": (1, 2)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (2, 3), "padding": (1, 2), "dilation": (1, 2), "stride": 2},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "padding": "same"},
    {"kernel_size": (4, 3), "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_times_weight_are_the_convolution(settings):
    """patch_rows(all rows) @ flat weight + bias equals the layer's own output, positions in order."""
    net = nn.Sequential(nn.Conv2d(3, 4, **settings), nn.ReLU(), nn.Conv2d(4, 2, 1))
    traced, couplings, inputs = prepared(net, 3, 9, 8, batches=1, size=3)
    layer = next(x for x in couplings.layers if x.weight == "0.weight")
    node = next(n for n in traced.graph.graph.nodes if n.name == layer.node)
    with torch.no_grad():
        wanted = net[0](inputs[0][0]).movedim(1, -1).reshape(-1, 4)
        rows = patch_rows(node, layer, inputs[0][0], net[0].weight)(torch.arange(len(wanted)))
        torch.testing.assert_close(rows @ net[0].weight.reshape(4, -1).T + net[0].bias, wanted)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if not isinstance(s.get("padding"), str)], ids=str)
def test_rows_equal_unfold(settings):
    """With whole-number padding the rows equal F.unfold's columns bit by bit."""
    net = nn.Sequential(nn.Conv2d(3, 4, **settings), nn.ReLU(), nn.Conv2d(4, 2, 1))
    traced, couplings, inputs = prepared(net, 3, 9, 8, batches=1, size=3)
    layer = next(x for x in couplings.layers if x.weight == "0.weight")
    node = next(n for n in traced.graph.graph.nodes if n.name == layer.node)
    wanted = F.unfold(inputs[0][0], **settings).movedim(1, -1).reshape(-1, net[0].weight[0].numel())
    chosen = torch.randperm(len(wanted))[:20]
    assert torch.equal(patch_rows(node, layer, inputs[0][0], net[0].weight)(chosen), wanted[chosen])
