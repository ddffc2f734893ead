"""Sensitivity: curves that rise, a graph that stays as it was, a loss for every group."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from captured import captured, task_for

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.criteria import Context, score
from edgeprune.data import open_data
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import run, trace
from edgeprune.search import sensitivity as sensitivity_module
from edgeprune.search.ablation import ablated, losses, work_behind
from edgeprune.search.second_order import predicted_losses, shrink
from edgeprune.search.sensitivity import least_joint_loss, sensitivity, split_images


class Attention(torch.nn.Module):
    """One head with free widths: queries and keys are read by no weight."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(6, 6) for _ in range(4))
        self.head = torch.nn.Linear(6, 3)

    def forward(self, x):
        q, k, v = (3 * f(x).unsqueeze(1) for f in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.o(mixed.squeeze(1)).mean(1))


def curves_of(net, x, *, choice=None):
    """Trace, couplings and curves of a network under ib-gauss's order."""
    traced = trace(net.eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced, choice=choice)
    statistics = captured(traced, couplings, open_data((x, None)), np.arange(len(x)))
    rank = score("ib-gauss", Context(traced, couplings, statistics)).rank
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    curves = sensitivity(traced, couplings, statistics, rank, [(torch.from_numpy(x),)], task_for(traced))
    assert all(torch.equal(t.detach(), before[n]) for n, t in state_tensors(traced.graph).items())
    return traced, couplings, curves


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "mlp", "depthwise"])
def test_curves_start_at_nothing_and_rise(name):
    """Shares and losses begin at 0; losing nearly a whole group costs more than losing a quarter."""
    net, inputs = nets.build(name, dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(48, *inputs[0].shape[1:])).astype(np.float32)
    _, couplings, curves = curves_of(net, x)
    assert set(curves) == set(range(len(couplings.group_names)))
    for curve in curves.values():
        assert curve.shares[0] == curve.losses[0] == 0
        assert (np.diff(curve.shares) > 0).all()
        assert curve.shares[-1] == 1
        assert curve.losses[-2] > curve.losses[1] * 0.999
        assert curve.losses[-1] > curve.losses[-2] > 0


def test_a_group_that_no_plain_layer_reads_is_not_free():
    """Losing query and key widths changes the outputs: the curve says so, or planning would take them all."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 5, 6)).astype(np.float32)
    _, couplings, curves = curves_of(Attention(), x, choice=FactorChoice(heads="width"))
    curve = curves[couplings.group_names.index("q")]
    assert curve.losses[-2] > 1e-6


def test_a_group_of_one_has_no_curve():
    """Nothing can go from it, and nothing is offered."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 2), torch.nn.ReLU(), torch.nn.Linear(2, 3))
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    _, _, curves = curves_of(net, x)
    assert [c.shares for c in curves.values()] == [(0.0, 0.5, 1.0)]


def test_readers_that_take_over_lose_less_than_those_that_do_not():
    """Absorbing makes a removal cheaper on average, and either way the graph stays as it was."""
    net, inputs = nets.build("chain", dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(64, *inputs[0].shape[1:])).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    lost = []
    for component in range(couplings.count):
        removed = np.arange(couplings.count) == component
        variants = [
            ablated(traced.graph, couplings, statistics, removed, absorb=absorb) for absorb in (False, True)
        ]
        lost.append(losses(traced, variants, [(torch.from_numpy(x),)], task_for(traced)))
    plain, absorbed = np.mean(lost, axis=0)
    assert 0 < absorbed < 0.9 * plain
    assert all(torch.equal(t.detach(), before[n]) for n, t in state_tensors(traced.graph).items())


def measured_on(net, x, *, choice=None):
    """Trace, couplings and statistics of a network on some inputs."""
    traced = trace(net.eval(), (torch.from_numpy(x[:2]),))
    couplings = analyse(traced, choice=choice)
    return traced, couplings, captured(traced, couplings, open_data((x, None)), np.arange(len(x)))


@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise", "reused", "tied"])
def test_running_only_what_lies_behind_gives_what_a_full_run_gives(name):
    """Losses of removals, several in one pass, are those of the whole network with the changed tensors."""
    net, inputs = nets.build(name, dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(24, *inputs[0].shape[1:])).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    rng = np.random.default_rng(1)
    variants = [
        ablated(traced.graph, couplings, statistics, rng.random(couplings.count) < 0.3) for _ in range(4)
    ]
    task, batches = task_for(traced), [(torch.from_numpy(x[:16]),), (torch.from_numpy(x[16:]),)]
    found = losses(traced, [*variants, {}], batches, task)
    assert found[-1] == pytest.approx(0, abs=1e-6)
    for variant, loss in zip(variants, found, strict=False):
        graph = traced.copy()
        with torch.no_grad():
            for tensor, value in variant.items():
                state_tensors(graph)[tensor].copy_(value)
            parts = [(run(graph, b), run(traced.graph, b), len(b[0])) for b in batches]
        wanted = sum(task.divergence(out, dense) * n for out, dense, n in parts) / len(x)
        assert loss == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_predicted_losses_are_those_of_the_inverse_of_every_block():
    """½·tr(G_RR·[P_RR]⁻¹) for each number of removed inputs, not from nested factors."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 4))
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    rank = np.random.default_rng(2).permutation(couplings.count)
    (found,) = predicted_losses(traced, couplings, statistics, rank)
    layer = next(v for n, v in statistics.layers.items() if len(v.mean) == 7)
    w = net[2].weight.detach().numpy().astype(np.float64)
    order = np.argsort(rank)
    precision = np.linalg.inv(shrink(layer.covariance, 200))
    energy = w.T @ layer.slopes @ w
    for k in range(1, 8):
        block = np.ix_(order[:k], order[:k])
        wanted = 0.5 * np.trace(energy[block] @ np.linalg.inv(precision[block]))
        assert found[k] == pytest.approx(wanted, rel=1e-6)
    assert found[0] == 0


def test_measuring_costs_no_more_than_capturing(monkeypatch):
    """Multiply-accumulates of all re-runs stay within the three passes of capture, and some are measured."""
    net, inputs = nets.build("residual", dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(64, *inputs[0].shape[1:])).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    rank = score("ib-gauss", Context(traced, couplings, statistics)).rank
    spent = []
    plain = sensitivity_module.losses

    def counted(trace, variants, batches, task, **settings):
        images = sum(len(b[0]) for b in batches)
        spent.append(images * sum(work_behind(trace, couplings, list(v)) for v in variants))
        spent.append(images * couplings.macs())
        return plain(trace, variants, batches, task, **settings)

    monkeypatch.setattr(sensitivity_module, "losses", counted)
    sensitivity(traced, couplings, statistics, rank, [(torch.from_numpy(x),)], task_for(traced))
    assert 0 < sum(spent) <= 3 * 64 * couplings.macs()


def test_corrections_of_an_earlier_round_are_not_measured_again(monkeypatch):
    """With every group known nothing runs, and the curves are the predictions times the corrections."""
    net, inputs = nets.build("chain", dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(48, *inputs[0].shape[1:])).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    rank = score("ib-gauss", Context(traced, couplings, statistics)).rank
    arguments = (traced, couplings, statistics, rank, [(torch.from_numpy(x),)], task_for(traced))
    first = sensitivity(*arguments)
    known = {couplings.group_names[g]: curve.correction for g, curve in first.items()}
    monkeypatch.setattr(sensitivity_module, "losses", None)
    assert sensitivity(*arguments, known=known) == first


def test_the_joint_loss_tells_plans_apart():
    """Removing dead channels everywhere beats removing live ones; the index and every loss come back."""
    net, inputs = nets.build("chain", dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(32, *inputs[0].shape[1:])).astype(np.float32)
    traced, couplings, statistics = measured_on(net, x)
    nothing = np.zeros(couplings.count, bool)
    some = nothing.copy()
    some[::2] = True
    best, found = least_joint_loss(
        traced, couplings, statistics, [some, nothing], [(torch.from_numpy(x),)], task_for(traced)
    )
    assert best == 1
    assert found[1] == pytest.approx(0, abs=1e-6) and found[0] > 1e-6


def test_a_layer_with_more_inputs_than_samples_is_not_free():
    """In-sample its inputs predict each other without error; the shrunk prediction is near the true loss."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(60, 60), torch.nn.Linear(60, 4))
    x = np.random.default_rng(0).normal(size=(2000, 60)).astype(np.float32)
    many = measured_on(net, x)
    rank = np.arange(many[1].count)
    (truth,) = predicted_losses(*many, rank)
    (few,) = predicted_losses(*measured_on(net, x[:40]), rank)
    count = many[1].count // 3
    assert 0.3 * truth[count] < few[count] < 3 * truth[count]


def test_images_that_measure_are_not_those_of_the_statistics():
    """The two parts share no image and cover all; each has at least one."""
    for size in (2, 7, 64, 366):
        captured_part, measured_part = split_images(np.arange(100, 100 + size))
        assert not set(captured_part) & set(measured_part)
        assert set(captured_part) | set(measured_part) == set(range(100, 100 + size))
        assert len(captured_part) and len(measured_part)
