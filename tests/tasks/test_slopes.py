"""Losses, slopes, distillation, divergence: gradients in float64, draws from the model, zero at equality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.registry import fit_task, resolve_task

RNG = np.random.default_rng(7)
CASES: dict[str, tuple[tuple[int, ...], Any]] = {
    "classification": ((12, 5), RNG.integers(0, 5, 12)),
    "binary": ((12, 1), RNG.integers(0, 2, 12)),
    "multilabel": ((12, 4), RNG.integers(0, 2, (12, 4))),
    "regression": ((12, 3), RNG.normal(size=(12, 3))),
    "forecasting": ((12, 6, 2), RNG.normal(size=(12, 6, 2))),
    "segmentation": ((4, 3, 4, 5), RNG.choice([0, 1, 2, 255], (4, 4, 5))),
    "tokens": ((6, 7, 4), RNG.choice([0, 1, 2, 3, -100], (6, 7))),
    "ctc": ((5, 8, 4), [RNG.integers(1, 4, n) for n in (3, 1, 0, 2, 4)]),
    "embedding": ((12, 6), RNG.normal(size=(12, 6))),
    "generic": ((12, 6), None),
}


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


def fitted(name: str, out: torch.Tensor, targets: Any) -> Any:
    return fit_task(resolve_task(name), (out.numpy(),), targets)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", ["classification", "binary", "multilabel", "segmentation", "tokens", "ctc"])
def test_slopes_under_the_targets_are_the_gradient_of_the_loss(name: str):
    """Numerically, in float64: the loss is the slopes' likelihood over the number of what counts."""
    shape, targets = CASES[name]
    out = tensor(*shape)
    task = fitted(name, out, targets)
    slopes = task.slopes((out,), targets, generator())[1][0]
    leaf = out.clone().requires_grad_()
    (by_loss,) = torch.autograd.grad(task.loss((leaf,), targets), leaf)
    count = float(task.nll((out,), targets) / task.loss((out,), targets))
    torch.testing.assert_close(slopes, by_loss * count)
    step = 1e-5 * tensor(*shape)
    rise = float(task.nll((out + step,), targets) - task.nll((out - step,), targets))
    assert rise == pytest.approx(2 * float((slopes * step).sum()), rel=1e-5, abs=1e-9)


def test_slopes_of_classifiers_are_probability_less_label():
    """The closed form of cross-entropy, for C logits, for one logit and for several."""
    out, labels = tensor(9, 4), RNG.integers(0, 4, 9)
    wanted = out.softmax(1) - F.one_hot(torch.from_numpy(labels), 4)
    classes, several = resolve_task("classification"), resolve_task("multilabel")
    torch.testing.assert_close(classes.slopes((out,), labels, generator())[1][0], wanted)
    rows = RNG.integers(0, 2, (9, 4))
    wanted = out.sigmoid() - torch.from_numpy(rows)
    torch.testing.assert_close(several.slopes((out,), rows, generator())[1][0], wanted)
    one, yes = tensor(9, 1), RNG.integers(0, 2, 9)
    wanted = one.sigmoid() - torch.from_numpy(yes)[:, None]
    torch.testing.assert_close(resolve_task("binary").slopes((one,), yes, generator())[1][0], wanted)


def test_ignored_positions_have_no_slope():
    """Padding and unlabelled pixels train nothing."""
    for name in ("segmentation", "tokens"):
        shape, targets = CASES[name]
        out = tensor(*shape)
        slopes = fitted(name, out, targets).slopes((out,), targets, generator())[1][0]
        slopes = slopes if name == "tokens" else slopes.movedim(1, -1)
        left_out = torch.from_numpy((targets < 0) | (targets == 255))
        assert (slopes[left_out] == 0).all() and (slopes[~left_out] != 0).any()


@pytest.mark.parametrize("name", [*CASES, "probabilities"])
def test_drawn_slopes_average_to_zero(name: str):
    """The mean slope of targets drawn from the model is zero (the score function), within its own error."""
    shape, targets = CASES.get(name, ((12, 5), None))
    out = tensor(*shape)
    if name == "probabilities":
        out = out.softmax(1)
    task = fitted("classification" if name == "probabilities" else name, out, targets)
    seed, draws = generator(), 1500
    values = torch.stack([task.slopes((out,), None, seed)[0][0] for _ in range(draws)])
    error = values.std(0) / draws**0.5
    assert float((values.mean(0).abs() / (error + 1e-9)).max()) < 5.5
    assert float(values.std()) > 0


def test_drawn_slopes_have_the_variance_of_the_model():
    """p(1 − p) for one logit; 1/σ² for a Gaussian of the residuals' deviation."""
    out = torch.tensor([[0.0], [2.0], [-1.0]], dtype=torch.float64)
    seed = generator()
    binary = resolve_task("binary")
    values = torch.stack([binary.slopes((out,), None, seed)[0][0] for _ in range(6000)])
    p = out.sigmoid()
    torch.testing.assert_close(values.var(0), p * (1 - p), rtol=0.1, atol=0.01)
    y = RNG.normal(size=(500, 2)) * [1, 100]
    near = torch.from_numpy(y + RNG.normal(size=(500, 2)) * [0.1, 20])
    task = fit_task(resolve_task("regression"), (near.numpy(),), y)
    drawn = torch.stack([task.slopes((near,), None, seed)[0][0] for _ in range(200)])
    sigma = torch.from_numpy(np.sqrt(((near.numpy() - y) ** 2).mean(0)))
    torch.testing.assert_close(drawn.reshape(-1, 2).std(0), 1 / sigma, rtol=0.03, atol=0)


def test_generic_slopes_make_channels_of_unlike_range_count_equally():
    """A change of one standard deviation in any channel is met by slopes of one size."""
    out = tensor(4000, 3) * torch.tensor([1.0, 1e-3, 1e3])
    task = fit_task(resolve_task("generic"), (out.numpy(),), None)
    slopes = task.slopes((out,), None, generator())[0][0]
    sizes = (slopes * out.std(0)).std(0)
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_divergence_and_distance_are_zero_at_equality_only(name: str):
    """Both are 0 for the dense outputs themselves and grow with the noise on them."""
    shape, targets = CASES[name]
    out = tensor(*shape)
    task = fitted(name, out, targets)
    assert task.divergence((out,), (out,)) == pytest.approx(0, abs=1e-9)
    assert float(task.distil((out,), (out,))) == pytest.approx(0, abs=1e-9)
    noise = tensor(*shape)
    small, large = (task.divergence((out + size * noise,), (out,)) for size in (0.1, 1.0))
    assert 0 < small < large
    leaf = (out + 0.1 * noise).requires_grad_()
    distance = task.distil((leaf,), (out,))
    (slope,) = torch.autograd.grad(distance, leaf)
    assert float(distance.detach()) > 0 and float((slope**2).sum()) > 0


def test_divergence_of_classifiers_is_in_nats():
    """KL of the class probabilities, the mean over samples; for one logit that of the two outcomes."""
    dense, out = tensor(6, 4), tensor(6, 4)
    wanted = F.kl_div(out.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="batchmean")
    assert resolve_task("classification").divergence((out,), (dense,)) == pytest.approx(float(wanted))
    p, q = dense[:, :1].sigmoid(), out[:, :1].sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert resolve_task("binary").divergence((out[:, :1],), (dense[:, :1],)) == pytest.approx(
        float(kl.mean())
    )


def test_the_regression_loss_is_robust():
    """Quadratic within one spread of the target and linear beyond: an outlier's slope is bounded."""
    y = RNG.normal(size=(100, 1))
    out = torch.from_numpy(y.copy())
    task = fit_task(resolve_task("regression"), (out.numpy(),), y)
    spread = float(task.scales[0].spread[0])
    for wrong, expected in ((0.1 * spread, 0.005), (10 * spread, 9.5)):
        moved = out.clone()
        moved[0] += wrong
        assert float(task.loss((moved,), y)) * 100 == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n in CASES if n != "generic"])
def test_a_step_down_the_slope_lowers_the_loss(name: str):
    """Training on the loss moves outputs towards the targets."""
    shape, targets = CASES[name]
    out = tensor(*shape)
    task = fitted(name, out, targets)
    leaf = out.clone().requires_grad_()
    before = task.loss((leaf,), targets)
    (slope,) = torch.autograd.grad(before, leaf)
    after = task.loss((out - 0.1 * slope / slope.norm(),), targets)
    assert float(after) < float(before.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_outputs_have_slopes_of_their_own_type(dtype: torch.dtype):
    """Computed in float32, handed back as the outputs are."""
    for name, (shape, targets) in CASES.items():
        out = tensor(*shape)
        task = fitted(name, out, targets)
        for slopes in task.slopes((out.to(dtype),), targets, generator()):
            assert slopes[0].dtype == dtype and slopes[0].isfinite().all(), name


def test_draws_follow_the_seed():
    """The same seed gives the same slopes, another seed others."""
    out = tensor(50, 5)
    task = resolve_task("classification")
    one, same = (task.slopes((out,), None, generator())[0][0] for _ in range(2))
    other = task.slopes((out,), None, torch.Generator().manual_seed(1))[0][0]
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert issubclass(type(task), CategoricalTask)
