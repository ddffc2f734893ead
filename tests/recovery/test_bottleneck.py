"""The penalty is the entropy that it says it is, and the noise is really there."""

from __future__ import annotations

import math

import nets
import numpy as np
import pytest
import torch
from cutting import prepared

from edgeprune.graph.trace import run
from edgeprune.recovery.bottleneck import (
    NOISE,
    Observed,
    gaussian_conditional_entropy,
    noise_scales,
    reading_axes,
    similarity_loss,
)


def test_conditional_entropy_of_gaussians_has_its_closed_form():
    """½·log 2πe·σ² averaged over classes in their shares; the classes' means do not matter."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [6000, 2000])
    x = rng.normal(size=(8000, 1)) * np.where(y == 0, 0.5, 2.0)[:, None] + 10 * y[:, None]
    found = gaussian_conditional_entropy(torch.from_numpy(x), torch.from_numpy(y), torch.tensor([0.01]))
    exact = 0.75 * 0.5 * math.log(2 * math.pi * math.e * 0.25) + 0.25 * 0.5 * math.log(
        2 * math.pi * math.e * 4
    )
    assert float(found) == pytest.approx(exact, abs=0.02)


def test_shrinking_below_the_noise_gains_nothing():
    """τ² is a floor under the variance: a constant activation has the entropy of the noise alone."""
    y = torch.arange(60) % 3
    found = gaussian_conditional_entropy(torch.zeros(60, 4), y, torch.full((4,), 0.3))
    assert float(found) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.09), abs=1e-5)


def test_lonely_classes_are_left_out():
    """One sample of a class has no variance; all lonely gives 0 and a gradient that is finite."""
    x = torch.randn(5, 2, requires_grad=True)
    loss = gaussian_conditional_entropy(x, torch.arange(5), torch.full((2,), 0.1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(x.grad).all()


def test_the_gradient_pulls_samples_of_a_class_together():
    """A step down the penalty makes the class-conditional spread smaller."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 3, requires_grad=True), torch.arange(40) % 4
    gaussian_conditional_entropy(x, y, torch.full((3,), 0.05)).backward()
    moved = x.detach() - 0.5 * x.grad

    def spread(v):
        return sum(v[y == k].var(0).sum() for k in range(4))

    assert spread(moved) < spread(x.detach())


def test_noise_reaches_every_reader_with_its_scale():
    """With scales the outputs differ from call to call; without, they are those of a plain run."""
    net, inputs = nets.build("residual", dtype=torch.float32)
    traced, _, batches = prepared(net, *inputs[0].shape[1:], batches=1, size=400, dtype=torch.float32)
    with torch.no_grad():
        axes = reading_axes(traced.graph, batches[0])
        plain = Observed(traced.graph, axes)
        torch.testing.assert_close(plain.outputs(batches[0])[0], run(traced.graph, batches[0])[0])
        scales = noise_scales(traced.graph, axes, batches)
        assert set(scales) == set(plain.seen)
        noisy = Observed(traced.graph, axes, scales)
        assert not torch.equal(noisy.outputs(batches[0])[0], plain.outputs(batches[0])[0])
        first = next(iter(scales))  # nothing noisy comes before it
        added = (noisy.seen[first] - plain.seen[first]).std(0) / plain.seen[first].std(0)
        torch.testing.assert_close(added, torch.full_like(added, NOISE), rtol=0.2, atol=0)


def test_similarity_does_not_ask_for_equal_widths():
    """0 for rotated or padded features, above 0 for unrelated ones."""
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    padded = torch.cat([x @ rotation, torch.zeros(20, 3)], 1)
    assert float(similarity_loss(padded, x)) < 1e-6
    assert float(similarity_loss(torch.randn(20, 4), x)) > 0.1
