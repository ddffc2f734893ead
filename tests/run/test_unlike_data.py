"""`compress` says before anything is removed that its data are not what the network was trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.run import prepare
from edgeprune.session.progress import Progress


class Notes(Progress):
    """Keeps what the user would see."""

    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


class Prepared(Exception):
    """Ends a run where the dense network would be exported."""


def stop(*_, **__):
    raise Prepared


@pytest.mark.parametrize(("scale", "warned"), [(1, False), (4, True)])
def test_data_of_another_scale_are_reported(tmp_path, monkeypatch, scale, warned):
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(200, 1, 8, 8)).astype(np.float32)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    with torch.no_grad():
        net.train()(torch.from_numpy(images))
    monkeypatch.setattr(prepare, "export_trace", stop)
    notes = Notes()
    with pytest.raises(Prepared):
        edgeprune.compress(
            net.eval(), (scale * images, None), macs=0.5, output=tmp_path / "run", progress=notes
        )
    assert any("not like the training data" in text for text in notes.texts) == warned
