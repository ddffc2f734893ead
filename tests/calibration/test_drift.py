"""The report says when batch-norm statistics and calibration data are of different kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.calibration.drift import FAR, drift, warning
from edgeprune.data import open_data
from edgeprune.graph.trace import trace


def settled(images):
    """A small network whose running statistics are those of `images`."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU(),
        nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6, momentum=None), nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip
    with torch.no_grad():
        net.train()(torch.from_numpy(images))
    return trace(net.eval(), (torch.from_numpy(images[:2]),))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(256, 3, 8, 8)).astype(np.float32)


def measured(traced, images):
    return drift(traced, open_data((images, None)), np.arange(len(images)))


def test_data_of_the_training_domain_are_near_and_say_nothing(images):
    fresh = np.random.default_rng(1).normal(size=(128, 3, 8, 8)).astype(np.float32)
    near = measured(settled(images), fresh)
    assert near.samples == 64
    assert near.median < FAR / 2
    assert warning(near) is None


def test_wrong_scaling_is_reported_with_its_distance_and_layer(images):
    far = measured(settled(images), 3 * images)
    # The first batch norm reads three times the spread around the same mean: a distance near 2 per channel.
    assert far.median == pytest.approx(2, abs=0.4)
    assert f"{far.median:.2f}" in warning(far)
    assert far.farthest in warning(far)


def test_the_distance_is_that_of_two_normal_distributions(images):
    traced = trace(nn.Sequential(nn.BatchNorm2d(3, eps=0.0)).eval(), (torch.from_numpy(images[:2]),))
    shifted = 0.5 * images + 2
    axes = (0, 2, 3)
    expected = np.hypot(shifted[:64].mean(axes), shifted[:64].std(axes) - 1)
    assert measured(traced, shifted[:64]).median == pytest.approx(np.median(expected), rel=1e-5)


def test_a_network_without_batch_norm_has_no_distance(images):
    traced = trace(nn.Conv2d(3, 2, 3).eval(), (torch.from_numpy(images[:2]),))
    assert measured(traced, images) is None
    assert warning(None) is None
