"""ib-gauss against brute force, and what it is for: of redundant channels, one goes and one stays."""

from __future__ import annotations

from dataclasses import replace

import nets
import numpy as np
import pytest
import reference
import torch
from scoring import context_of, hidden, mlp, pattern, unread

from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria import score
from edgeprune.criteria.base import per_component
from edgeprune.criteria.ib_gauss import consumer


def test_of_two_duplicates_one_goes_first_and_the_other_stays():
    """A doubled channel is removed first; its twin then carries both and is not among the next."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 8)).astype(np.float32)
    weights[4] = weights[1]
    head = rng.normal(size=(4, 6)).astype(np.float32)
    head[:, [1, 4]] *= 2  # together they matter most
    x = rng.normal(size=(600, 8)).astype(np.float32)
    context = context_of(mlp(weights, head), x, rng.integers(0, 4, 600))
    found = score("ib-gauss", context)
    ranks = found.rank[hidden(context)]
    assert min(ranks[1], ranks[4]) == 0
    assert max(ranks[1], ranks[4]) >= 3
    gone = hidden(context)[[1, 4][int(np.argmin(ranks[[1, 4]]))]]
    assert found.component[gone] < 1e-3 * np.median(found.component)


def test_taylor_would_keep_both_duplicates():
    """The contrast that makes the test above worth passing: a marginal score ranks both twins high."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 8)).astype(np.float32)
    weights[4] = weights[1]
    head = rng.normal(size=(4, 6)).astype(np.float32)
    head[:, [1, 4]] *= 2
    x = rng.normal(size=(600, 8)).astype(np.float32)
    context = context_of(mlp(weights, head), x, rng.integers(0, 4, 600))
    ranks = score("taylor", context).rank[hidden(context)]
    assert min(ranks[1], ranks[4]) >= 3


@pytest.mark.parametrize(
    "name", ["mlp", "concat", "residual", "transposed", "attention", "attention_grouped"]
)
def test_the_order_equals_refitting_from_scratch(name):
    """Per group, order and scores equal a NumPy elimination that refits at every step, taps jointly."""
    context = pattern(name, samples=200)
    couplings, weights = context.couplings, context.weights()
    found = score("ib-gauss", context)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        consumers = []
        for layer, statistics, vector in context.readers(group):
            unit = np.array([np.flatnonzero(members == v)[0] if v >= 0 else -1 for v in vector], np.int32)
            made = consumer(weights[str(layer.weight)], layer, statistics, unit)
            values, vectors = np.linalg.eigh(made.energy)
            root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
            consumers.append((made.covariance, root, made.unit))
        if not consumers:
            continue
        order, cost, initial = reference.backward_elimination(consumers, len(members))
        assert found.rank[members[order]].tolist() == list(range(len(members)))
        np.testing.assert_allclose(
            found.component[members[order]], np.maximum.accumulate(cost[order]), rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose(found.details["initial_nats"][members], initial, rtol=1e-5, atol=1e-9)


def test_a_kernel_is_read_as_whole_patches():
    """The consumer of a 3×3 convolution has one input per channel and tap, in the weight's order."""
    context = pattern("chain", samples=40)
    layer = next(x for x in mixing_layers(context.couplings) if x.weight == "b.weight")
    statistics, weight = context.statistics.layers[layer.node], context.weights()["b.weight"]
    made = consumer(weight, layer, statistics, np.arange(6, dtype=np.int32))
    flat = weight.reshape(5, 54).astype(float)
    np.testing.assert_allclose(made.energy, flat.T @ statistics.slopes @ flat, rtol=1e-6, atol=1e-12)
    assert made.unit.tolist() == np.repeat(np.arange(6), 9).tolist()
    assert made.covariance.shape == (54, 54)
    centre = statistics.patches.covariance[4::9, 4::9]  # the middle taps see each position once
    np.testing.assert_allclose(centre, statistics.covariance, rtol=0.2, atol=0.05)


def test_a_rescaled_channel_keeps_its_score():
    """Doubling a channel and halving what reads it changes nothing: magnitude alone is no evidence."""
    rng = np.random.default_rng(3)
    weights, head = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    y = rng.integers(0, 3, 400)
    plain = context_of(mlp(weights, head), x, y)
    weights[2] *= 4
    head[:, 2] /= 4
    scaled = context_of(mlp(weights, head), x, y)
    a = score("ib-gauss", plain).component[hidden(plain)]
    b = score("ib-gauss", scaled).component[hidden(scaled)]
    np.testing.assert_allclose(a, b, rtol=0.02)


def test_connections_of_a_component_sum_to_its_score():
    """The mass of a component over its connections is its score, divided by their unique information."""
    context = pattern("chain", samples=128)
    couplings, found = context.couplings, score("ib-gauss", context)
    mass, read = np.zeros(couplings.count), np.zeros(couplings.count)
    for layer in mixing_layers(couplings):
        values = found.connections[str(layer.weight)].astype(float)
        axes = tuple(d for d in range(values.ndim) if d != layer.in_dim)
        mass += per_component(couplings, layer.inputs, values.sum(axes))
        read += per_component(couplings, layer.inputs, np.ones(values.shape[layer.in_dim]))
    np.testing.assert_allclose(mass[read > 0], found.component[read > 0], rtol=1e-3)


def test_widths_of_queries_and_keys_get_a_score():
    """No plain layer reads them: they are scored by what silencing them costs, above 0 and not all alike."""
    context = unread("head_width")
    found = score("ib-gauss", context)
    missed = found.details["measured"] == 0
    assert missed.sum() == 6
    assert (found.component[missed] > 0).all()
    assert len(np.unique(found.component[missed])) == 6


def test_recurrent_readers_add_to_what_the_head_reads():
    """What a hidden unit feeds back counts, and the lower layer's units have scores at all."""
    context = unread("recurrent")
    nothing = np.zeros(context.couplings.count)
    alone = replace(context, statistics=replace(context.statistics, other_readings=nothing))
    assert (score("ib-gauss", context).component > score("ib-gauss", alone).component).all()


def test_an_attention_head_is_one_unit_of_all_its_widths():
    """All widths of a head count together; a head that the projection ignores is worth 0 and goes first."""
    context = pattern("attention", samples=200)
    net, _ = nets.build("attention", dtype=torch.float32)
    couplings = context.couplings
    group = next(g for g, name in enumerate(couplings.group_names) if name.endswith("q"))
    (layer, _, vector), *rest = context.readers(group)
    assert not rest and sorted(np.bincount(vector[vector >= 0])[np.unique(vector)]) == [len(vector) // 4] * 4
    found = score("ib-gauss", context)
    assert (found.details["initial_nats"][couplings.group == group] > 0).all()
    weight = dict(net.named_parameters())[str(layer.weight)]
    dead = int(np.unique(vector)[2])
    with torch.no_grad():
        weight[:, np.flatnonzero(vector == dead)] = 0.0
    x = np.random.default_rng(0).normal(size=(200, *context.trace.inputs[0].shape[1:])).astype(np.float32)
    silent = score("ib-gauss", context_of(net, x, np.arange(200) % 3, example=context.trace.inputs))
    assert silent.rank[dead] == 0 and silent.details["initial_nats"][dead] == 0
