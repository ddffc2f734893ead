"""The controls: chance, magnitude, first-order Taylor."""

from __future__ import annotations

import numpy as np
import torch
from scoring import context_of, hidden, mlp, pattern, unread

from edgeprune.calibration.capture import mixing_layers
from edgeprune.coupling.analysis import analyse
from edgeprune.criteria import Context, score
from edgeprune.graph.features import open_features
from edgeprune.graph.trace import trace


def test_random_follows_its_seed():
    """The same seed gives the same order, another seed another."""
    first, same, other = (score("random", pattern("chain", seed=s)) for s in (0, 0, 1))
    assert np.array_equal(first.component, same.component)
    assert not np.array_equal(first.component, other.component)


def test_l2_is_the_norm_of_the_filters_that_write_a_component():
    """A component that several layers write takes the norm over all of them; connections are |w|."""
    context = pattern("residual")
    found, weights = score("l2", context), context.weights()
    units = hidden(context, "stem.weight")
    stem, branch = weights["stem.weight"], weights["b.weight"]
    wanted = np.sqrt((stem**2).sum((1, 2, 3)) + (branch**2).sum((1, 2, 3)))
    np.testing.assert_allclose(found.component[units], wanted, rtol=1e-5)
    assert np.array_equal(found.connections["a.weight"], np.abs(weights["a.weight"]))


def test_l2_counts_a_depthwise_filter_with_its_channel():
    """The depthwise weights belong to the component that the 1×1 convolution writes."""
    context = pattern("depthwise")
    weights = context.weights()
    units = hidden(context, "up.weight")
    wanted = (weights["up.weight"] ** 2).sum((1, 2, 3)) + (weights["dw.weight"] ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(score("l2", context).component[units], np.sqrt(wanted), rtol=1e-5)


def test_taylor_counts_a_source_once_however_many_layers_read_it():
    """The residual stream's score is the sum over its distinct values, as captured."""
    context = pattern("residual")
    found = score("taylor", context)
    wanted, seen = np.zeros(context.couplings.count), set()
    for layer in mixing_layers(context.couplings):
        if layer.source in seen:
            continue
        seen.add(layer.source)
        units = context.couplings.channel_maps[layer.inputs]
        for channel, unit in enumerate(units):
            if unit >= 0:
                wanted[unit] += context.statistics.layers[layer.node].taylor[channel]
    np.testing.assert_allclose(found.component, wanted)


def test_taylor_prefers_the_channel_that_the_loss_feels():
    """Of two equal channels the one that the head reads with the larger weight stays."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 5)).astype(np.float32)
    head = rng.normal(size=(3, 4)).astype(np.float32)
    weights[1], head[:, 1] = weights[0], 0.05 * head[:, 0]
    x = rng.normal(size=(300, 5)).astype(np.float32)
    context = context_of(mlp(weights, head), x, rng.integers(0, 3, 300))
    rank = score("taylor", context).rank[hidden(context)]
    assert rank[1] < rank[0]


def test_a_feature_of_an_input_is_judged_by_the_weights_that_read_it():
    """Nothing writes it: l2 is the norm of its column, fpgm its column's distance to the others."""
    rng = np.random.default_rng(0)
    net = mlp(rng.normal(size=(5, 4)), rng.normal(size=(3, 5)))
    traced, _ = open_features(trace(net.eval(), (torch.zeros(2, 4),)))
    context = Context(traced, analyse(traced))
    units = context.couplings.channel_maps[context.couplings.tensors["_features_of_input_1"][0]]
    weight = context.weights()["0.weight"].astype(np.float64)
    np.testing.assert_allclose(
        score("l2", context).component[units], np.linalg.norm(weight, axis=0), rtol=1e-6
    )
    gaps = ((weight[:, :, None] - weight[:, None]) ** 2).sum(0)
    np.testing.assert_allclose(score("fpgm", context).component[units], np.sqrt(gaps).sum(1), rtol=1e-6)


def test_a_unit_of_a_lower_recurrent_layer_is_judged_by_every_matrix_that_knows_it():
    """No layer writes or reads it: l2 is the norm over its gates' rows, its feedback and the next layer's."""
    context = unread("recurrent")
    couplings = context.couplings
    units = couplings.channel_maps[couplings.tensors[couplings.aliases["rnn.weight_hh_l0"]][1]]
    state = {n: p.detach().double().numpy() for n, p in context.trace.graph.named_parameters()}
    total = np.zeros(5)
    for name, dims in (("rnn.weight_ih_l0", (0,)), ("rnn.weight_hh_l0", (0, 1)), ("rnn.weight_ih_l1", (1,))):
        for dim in dims:
            rows = np.moveaxis(state[name], dim, 0)
            total += (rows.reshape(-1, 5, rows.shape[1]) ** 2).sum((0, 2))
    assert (units >= 0).all() and len(units) == 5
    np.testing.assert_allclose(score("l2", context).component[units], np.sqrt(total), rtol=1e-5)
    assert np.ptp(score("fpgm", context).component[units]) > 0
