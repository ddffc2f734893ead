"""A small trained network that the tests of whole runs share."""

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def stripes():
    """A convolutional network on stripes of two directions, and its data."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    x = rng.normal(0, 0.3, (600, 1, 12, 12)).astype(np.float32)
    x[y == 1, :, ::3, :] += 1
    x[y == 0, :, :, ::3] += 1
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    return net.eval(), (x, y)
