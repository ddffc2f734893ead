"""Samples are found wherever a layer's input has them, and every statistic is taken per sample."""

from __future__ import annotations

import nets_ordered
import numpy as np
import pytest
import torch
from captured import captured, task_for
from torch import nn

from edgeprune.calibration.capture import mixing_layers
from edgeprune.calibration.samples import SampleAxis, sample_axes
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.criteria import BUILT_IN, Context, score
from edgeprune.criteria.base import measured_components
from edgeprune.criteria.label import channel_label_information
from edgeprune.data import open_data
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import trace
from edgeprune.recovery.finetune import FineTune, finetune, penultimate

N = 22  # the last batch of 7 has one sample


class Read(nn.Module):
    """One linear layer that reads what `arrange` makes of (samples, 5, 6)."""

    def __init__(self, arrange):
        super().__init__()
        self.arrange, self.layer = arrange, nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(self.arrange(x) * 1.0)


ARRANGED = {
    "samples first": (lambda x: x, SampleAxis(0, 1, 1)),
    "positions first": (lambda x: x.transpose(0, 1), SampleAxis(1, 1, 1)),
    "samples · positions": (lambda x: x.reshape(-1, 6), SampleAxis(0, 1, 5)),
    "positions · samples": (lambda x: x.transpose(0, 1).reshape(-1, 6), SampleAxis(0, 5, 1)),
    "between": (lambda x: x.reshape(-1, 5, 2, 3).permute(1, 0, 3, 2).reshape(-1, 6), SampleAxis(0, 5, 1)),
    "doubled": (lambda x: torch.cat([x, 2 * x]), SampleAxis(0, 2, 1)),
}


@pytest.mark.parametrize("name", ARRANGED)
@pytest.mark.parametrize("free", [True, False], ids=["free batch", "fixed batch"])
def test_the_samples_are_found_in_every_arrangement(name, free):
    """dimension, before and after are those of the reshape; a sample's rows hold its values, no other's."""
    arrange, wanted = ARRANGED[name]
    x = torch.randn(7 if free else 3, 5, 6)
    traced = trace(Read(arrange).eval(), (x[:3],))
    if not free:
        program = torch.export.export(Read(arrange).eval(), (x,))
        traced = trace(program)
    (source,) = [
        n.args[0].name for n in traced.graph.graph.nodes if n.target is torch.ops.aten.linear.default
    ]
    axis = sample_axes(traced.graph, [(source, -1)], (x,))[source, -1]
    assert axis == wanted
    rows = axis.split(arrange(x), -1)
    assert len(rows) == len(x)
    for i in range(len(x)):
        mine = axis.split(arrange(x[i : i + 1]), -1)
        assert torch.equal(rows[i], mine[0])


@pytest.mark.parametrize(
    "axis", [SampleAxis(), SampleAxis(1), SampleAxis(2), SampleAxis(0, 2, 1), SampleAxis(2, 1, 2)]
)
@pytest.mark.parametrize("channels", [1, -1])
def test_split_join_and_spread_agree(axis, channels):
    """join undoes split; spread multiplies a sample's rows with its own numbers, wherever they are."""
    if axis.dim == channels % 4:
        return
    shape = [2, 3, 5, 3]
    shape[axis.dim] = 4 * axis.before * axis.after
    x = torch.randn(shape)
    rows = axis.split(x, channels)
    assert rows.shape == (4, x.numel() // 4 // shape[channels], shape[channels])
    assert torch.equal(axis.join(rows, x, channels), x)
    gates = torch.randn(4, shape[channels])
    assert torch.equal(axis.split(x * axis.spread(gates, x, channels), channels), rows * gates[:, None])


@pytest.fixture(scope="module", params=sorted(nets_ordered.NETS))
def case(request):
    """Network, context and data of one net of `nets_ordered`."""
    return prepared(request.param)


def prepared(name):
    net, shape = nets_ordered.build(name)
    x = np.random.default_rng(0).normal(size=(N, *shape)).astype(np.float32)
    y = np.arange(N) % 3
    traced = trace(net, (torch.from_numpy(x[:2]),))
    couplings = analyse(traced, choice=FactorChoice())
    data = open_data((x, y))
    statistics = captured(traced, couplings, data, np.arange(N), batch_size=7)
    return name, data, Context(traced, couplings, statistics)


def test_values_per_sample_are_those_of_the_sample_alone(case):
    """Row i of `reduced` and its share of `taylor` are what a pass over sample i alone gives."""
    name, data, context = case
    alone = [captured(context.trace, context.couplings, data, np.array([i])) for i in range(N)]
    for layer in mixing_layers(context.couplings):
        found = context.statistics.layers[layer.node]
        if name == "table" and layer.weight in ("wide.weight", "narrow.weight"):
            assert found.samples is None and found.reduced is None and found.taylor is None
            continue
        mine = [a.layers[layer.node] for a in alone]
        assert found.reduced.shape == (N, len(found.mean))
        np.testing.assert_allclose(found.reduced, np.concatenate([m.reduced for m in mine]), atol=1e-5)
        np.testing.assert_allclose(found.taylor, np.mean([m.taylor for m in mine], 0), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found.mean, np.mean([m.mean for m in mine], 0), atol=1e-5)


@pytest.mark.parametrize("net", [nets_ordered.Steps, nets_ordered.Encoder])
def test_the_order_of_dimensions_does_not_change_the_statistics(net):
    """Sequence first and batch first, with the same weights, give the same numbers in every layer.

    But for an encoder's taylor: attention that swaps dimensions reads a copy of the residual stream,
    and the slope by a copy holds that reader alone.
    """
    torch.manual_seed(0)
    first, second = net(True).eval(), net(False).eval()
    second.load_state_dict(first.state_dict())
    x = np.random.default_rng(0).normal(size=(40, 5, 6)).astype(np.float32)
    found = []
    for module in (first, second):
        traced = trace(module, (torch.from_numpy(x[:2]),))
        couplings = analyse(traced)
        statistics = captured(traced, couplings, open_data((x, np.arange(40) % 3)), np.arange(40))
        found.append({layer.weight: statistics.layers[layer.node] for layer in mixing_layers(couplings)})
    assert set(found[0]) == set(found[1])
    for weight, a in found[0].items():
        b = found[1][weight]
        names = ["mean", "second", "reduced", "slopes", "output_std"]
        for name in names + ["taylor"] * (net is nets_ordered.Steps):
            np.testing.assert_allclose(
                getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-5, err_msg=f"{weight} {name}"
            )


@pytest.mark.parametrize("criterion", sorted(BUILT_IN))
def test_every_criterion_ranks_every_group(case, criterion):
    """Finite scores, not all alike in a group (two filters are equally far apart), ranks a permutation."""
    _, _, context = case
    found, couplings = score(criterion, context), context.couplings
    assert np.isfinite(found.component).all()
    for group, name in enumerate(couplings.group_names):
        mine = couplings.group == group
        assert sorted(found.rank[mine]) == list(range(mine.sum()))
        assert np.ptp(found.component[mine]) > 0 or (criterion == "fpgm" and mine.sum() == 2), name


def test_gates_of_vib_reach_every_component_that_is_read(case):
    """Training moves every measured group's gates away from where they began."""
    _, _, context = case
    scores = score("vib", context).component
    begun = 0.5 * np.log1p(np.exp(4.0))
    at = measured_components(context)
    assert (np.abs(scores[at] - begun) > 1e-3).all()


def test_what_no_sample_enters_is_scored_by_what_silencing_it_costs():
    """½·E[x²]·wᵀSw of the reading weights, for every criterion that asks for values per sample."""
    _, _, context = prepared("table")
    layer = next(x for x in mixing_layers(context.couplings) if x.weight == "narrow.weight")
    found = context.statistics.layers[layer.node]
    weight = context.weights()["narrow.weight"].astype(float)
    wanted = 0.5 * np.diag(found.second) * np.diag(weight.T @ found.slopes @ weight)
    units = context.couplings.channel_maps[layer.inputs]
    assert (units >= 0).all() and (wanted > 0).any()
    for criterion in ("ib-edge", "ib-jmi", "mrmr", "hsic-lasso", "vib", "taylor"):
        np.testing.assert_allclose(score(criterion, context).component[units], wanted, rtol=1e-9)


def test_label_information_feature_distillation_and_the_penalty_run(case):
    """One row of features per sample, one nats per component, and an epoch of ib_beta that is finite."""
    _, data, context = case
    nats, p_value = channel_label_information(context)
    assert nats.shape == p_value.shape == (context.couplings.count,)
    features = penultimate(context.trace.graph, data, np.arange(N), batch_size=7)
    assert len(features) == N
    _, history = finetune(
        context.trace, data, np.arange(N), outputs(context.trace.graph, data, np.arange(N), 7),
        task_for(context.trace), lambda graph: 0.0,
        FineTune(epochs=1, ib_beta=0.1, features=0.1, batch_size=8),
        teacher_features=features,
    )  # fmt: skip
    assert np.isfinite(history[-1].loss)
