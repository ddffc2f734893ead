"""Statistics of the capture pass against NumPy and per-sample autograd."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captured import captured

from edgeprune.calibration import sums as capturing
from edgeprune.calibration.capture import capture, mixing_layers
from edgeprune.coupling.analysis import analyse
from edgeprune.data import open_data
from edgeprune.graph.trace import trace
from edgeprune.tasks.base import TaskPart
from edgeprune.tasks.multi import MultiTask
from edgeprune.tasks.registry import resolve_task


def prepared(name="chain", samples=48, labelled=True, seed=0):
    """Module, trace, couplings and a dataset of noise for one tiny network."""
    net, inputs = nets.build(name, seed=seed, dtype=torch.float32)
    traced = trace(net, inputs)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, *inputs[0].shape[1:])).astype(np.float32)
    with torch.no_grad():
        classes = net(torch.from_numpy(x[:2])).shape[1]
    y = rng.integers(0, classes, samples) if labelled else None
    return net, traced, analyse(traced), open_data((x, y)), x, y


def read_by(net, module, x):
    """What a module reads, for all samples, by an ordinary hook."""
    seen = []
    handle = module.register_forward_hook(lambda m, args, out: seen.append((args[0].detach(), out.detach())))
    with torch.no_grad():
        net(torch.from_numpy(x))
    handle.remove()
    return seen[0][0].double().numpy(), seen[0][1].double().numpy()


def of_weight(found, couplings, weight):
    """Statistics of the layer with this weight."""
    return found.layers[next(layer.node for layer in couplings.layers if layer.weight == weight)]


def test_moments_equal_numpy_on_what_a_hook_saw():
    """mean, second, covariance, reduced and output_std equal direct NumPy over samples and positions."""
    net, traced, couplings, data, x, _ = prepared()
    found = captured(traced, couplings, data, np.arange(48), batch_size=7)
    for weight, module in (("a.weight", net.a), ("b.weight", net.b)):
        read, written = read_by(net, module, x)
        rows = np.moveaxis(read, 1, -1).reshape(-1, read.shape[1])
        layer = of_weight(found, couplings, weight)
        np.testing.assert_allclose(layer.mean, rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(layer.second, rows.T @ rows / len(rows), atol=1e-6)
        np.testing.assert_allclose(layer.covariance, np.cov(rows.T, bias=True), atol=1e-6)
        np.testing.assert_allclose(layer.reduced, read.mean((2, 3)), atol=1e-6)
        np.testing.assert_allclose(layer.output_std, written.std((0, 2, 3)), atol=1e-6)
    assert found.samples == 48
    assert found.label_source == "labels"


def test_the_same_data_give_the_same_bits():
    """Two passes agree to the last bit; a pass over other samples does not."""
    _, traced, couplings, data, _, _ = prepared()
    first, second = (captured(traced, couplings, data, np.arange(40)) for _ in range(2))
    other = captured(traced, couplings, data, np.arange(8, 48))
    for node, layer in first.layers.items():
        for name in ("mean", "second", "reduced", "taylor", "fisher", "output_std"):
            assert np.array_equal(getattr(layer, name), getattr(second.layers[node], name)), name
        assert not np.array_equal(layer.second, other.layers[node].second)


def test_the_order_of_samples_changes_rounding_only():
    """Label-free sums over a permutation of the samples agree to float32's rounding."""
    _, traced, couplings, data, _, _ = prepared()
    first = captured(traced, couplings, data, np.arange(48))
    second = captured(traced, couplings, data, np.random.default_rng(1).permutation(48))
    for node, layer in first.layers.items():
        np.testing.assert_allclose(layer.second, second.layers[node].second, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(layer.taylor, second.layers[node].taylor, rtol=1e-4, atol=1e-7)


def test_taylor_equals_autograd_sample_by_sample():
    """taylor is the mean over samples of |sum over positions of x · d cross-entropy / dx|."""
    net, traced, couplings, data, x, y = prepared(samples=12)
    found = captured(traced, couplings, data, np.arange(12), batch_size=5)
    wanted = np.zeros(6)
    for i in range(12):
        hidden = torch.relu(net.bn(net.a(torch.from_numpy(x[i : i + 1])))).detach().requires_grad_()
        out = net.fc(torch.relu(net.b(hidden)).mean((2, 3)))
        (slope,) = torch.autograd.grad(F.cross_entropy(out, torch.tensor([y[i]])), hidden)
        wanted += (hidden * slope).sum((0, 2, 3)).abs().detach().numpy() / 12
    np.testing.assert_allclose(of_weight(found, couplings, "b.weight").taylor, wanted, rtol=1e-4, atol=1e-7)


def test_fisher_weights_estimate_the_expected_squared_slope():
    """fisher lies within sampling error of the exact expectation over the model's own labels."""
    net, traced, couplings, data, x, _ = prepared(samples=600)
    found = captured(traced, couplings, data, np.arange(600))
    hidden = torch.relu(net.bn(net.a(torch.from_numpy(x))))
    middle = net.b(hidden).detach().requires_grad_()
    out = net.fc(torch.relu(middle).mean((2, 3)))
    p = out.softmax(1).detach()
    exact = torch.zeros(5)
    for k in range(4):
        loss = F.cross_entropy(out, torch.full((600,), k), reduction="none")
        (slope,) = torch.autograd.grad(loss.sum(), middle, retain_graph=True)
        exact += ((slope**2).sum((2, 3)) * p[:, k : k + 1]).mean(0)
    np.testing.assert_allclose(of_weight(found, couplings, "b.weight").fisher, exact.numpy(), rtol=0.15)
    logits = of_weight(found, couplings, "fc.weight").fisher
    np.testing.assert_allclose(logits, (p * (1 - p)).mean(0).numpy(), rtol=0.15)


def test_without_labels_the_models_own_decisions_are_taken():
    """labels are the argmax of the first output, and the source says so."""
    net, traced, couplings, data, x, _ = prepared(labelled=False)
    found = captured(traced, couplings, data, np.arange(48))
    with torch.no_grad():
        assert np.array_equal(found.labels, net(torch.from_numpy(x)).argmax(1).numpy())
    assert found.label_source == "the dense model's own decisions"


def test_wide_layers_keep_variances_only(monkeypatch):
    """Above FULL_COVARIANCE inputs `second` is the diagonal, and covariance is diagonal."""
    monkeypatch.setattr(capturing, "FULL_COVARIANCE", 4)
    net, traced, couplings, data, x, _ = prepared()
    layer = of_weight(captured(traced, couplings, data, np.arange(48)), couplings, "b.weight")
    read, _ = read_by(net, net.b, x)
    assert layer.second.shape == (6,)
    np.testing.assert_allclose(layer.second, (read**2).mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(layer.covariance, np.diag(read.var((0, 2, 3))), atol=1e-6)


def test_nothing_of_the_trace_changes():
    """Parameters keep their values, their gradients and whether they take one."""
    _, traced, couplings, data, _, _ = prepared()
    before = {n: (p.detach().clone(), p.requires_grad) for n, p in traced.graph.named_parameters()}
    captured(traced, couplings, data, np.arange(16))
    for n, p in traced.graph.named_parameters():
        assert torch.equal(p, before[n][0])
        assert p.requires_grad == before[n][1]
        assert p.grad is None


@pytest.mark.parametrize(
    "name", ["residual", "concat", "depthwise", "flatten", "reused", "tied", "transposed"]
)
def test_every_layer_that_reads_channels_one_by_one_is_captured(name):
    """Each mixing layer of the pattern has finite statistics of its own sizes."""
    net, inputs = nets.build(name, dtype=torch.float32)
    traced = trace(net, inputs)
    couplings = analyse(traced)
    x = np.random.default_rng(0).normal(size=(9, *inputs[0].shape[1:])).astype(np.float32)
    found = captured(traced, couplings, open_data((x, None)), np.arange(9))
    assert mixing_layers(couplings)
    for layer in mixing_layers(couplings):
        statistics = found.layers[layer.node]
        assert len(statistics.mean) == len(couplings.channel_maps[layer.inputs])
        assert len(statistics.fisher) == len(couplings.channel_maps[layer.outputs])
        for name_ in ("mean", "second", "taylor", "fisher", "output_std"):
            assert np.isfinite(getattr(statistics, name_)).all()


def test_patches_hold_the_moments_of_whole_windows():
    """Where every position is looked at, patch moments equal NumPy over F.unfold's columns."""
    net, traced, couplings, data, x, _ = prepared(samples=24)
    layer = of_weight(captured(traced, couplings, data, np.arange(24), batch_size=5), couplings, "b.weight")
    read, _ = read_by(net, net.b, x)
    rows = F.unfold(torch.from_numpy(read), 3, padding=1).movedim(1, -1).reshape(-1, 54).numpy()
    assert layer.patches.rows == len(rows)
    np.testing.assert_allclose(layer.patches.mean, rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(layer.patches.second, rows.T @ rows / len(rows), atol=1e-5)
    np.testing.assert_allclose(layer.patches.covariance, np.cov(rows.T, bias=True), atol=1e-5)


def test_slope_moments_are_those_of_the_models_own_labels():
    """At the logits the slope is p − one-hot(y): its moments are E[diag(p) − ppᵀ] within sampling error."""
    net, traced, couplings, data, x, _ = prepared(samples=800)
    found = of_weight(captured(traced, couplings, data, np.arange(800)), couplings, "fc.weight")
    with torch.no_grad():
        p = net(torch.from_numpy(x)).softmax(1).double().numpy()
    exact = np.diag(p.mean(0)) - p.T @ p / len(p)
    np.testing.assert_allclose(found.slopes, exact, atol=0.03)
    np.testing.assert_allclose(found.fisher, np.diag(found.slopes))


class Recurrent(torch.nn.Module):
    """One LSTM layer: hidden units are read by the head and fed back."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = torch.nn.LSTM(4, 5, batch_first=True), torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0].mean(1))


def test_further_readings_estimate_what_silencing_the_feedback_costs():
    """other_readings is ½·E[(Σ w·g)²] over the recurrent columns, within sampling error of autograd."""
    torch.manual_seed(0)
    net = Recurrent().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6, 4)).astype(np.float32)
    traced = trace(net, (torch.from_numpy(x[:2]),))
    couplings = analyse(traced)
    found = captured(traced, couplings, open_data((x, rng.integers(0, 3, 300))), np.arange(300))
    exact = np.zeros(5)
    weight = net.rnn.weight_hh_l0
    for i in range(300):
        out = net(torch.from_numpy(x[i : i + 1]))
        p = out.softmax(1)[0].detach()
        for k in range(3):
            (slope,) = torch.autograd.grad(F.cross_entropy(out, torch.tensor([k])), weight, retain_graph=True)
            exact += 0.5 * float(p[k]) * (slope * weight).sum(0).detach().numpy() ** 2 / 300
    units = couplings.channel_maps[couplings.tensors[couplings.aliases["rnn.weight_hh_l0"]][1]]
    np.testing.assert_allclose(found.other_readings[units], exact, rtol=0.7)
    assert np.corrcoef(found.other_readings[units], exact)[0, 1] > 0.9


def test_layers_that_the_first_output_does_not_depend_on_have_no_slopes():
    """A head that the task does not judge is captured with slopes of 0 instead of failing the pass."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = torch.nn.Linear(5, 6), torch.nn.Linear(6, 3), torch.nn.Linear(6, 2)

        def forward(self, x):
            x = torch.relu(self.a(x))
            return self.b(x), self.c(x)

    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    traced = trace(Two().eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced)
    task = MultiTask((TaskPart("first", resolve_task("classification"), (0,)),))
    found = capture(traced, couplings, open_data((x, None)), np.arange(20), task=task)
    assert (of_weight(found, couplings, "c.weight").fisher == 0).all()
    assert (of_weight(found, couplings, "b.weight").fisher > 0).all()
