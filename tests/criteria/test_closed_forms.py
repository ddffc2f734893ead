"""ib-gauss where no matrix is needed: layers of which variances were kept, and costs that never change."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from captured import captured
from scoring import context_of, hidden, mlp, pattern, unread
from torch import nn

from edgeprune.calibration import sums as capturing
from edgeprune.calibration.layers import LayerStatistics
from edgeprune.criteria import score
from edgeprune.criteria.base import own_energy
from edgeprune.criteria.ib_gauss import consumer, eliminate, energy


def of_variances(context):
    """The context with every layer's second moments replaced by the diagonal, patches dropped."""
    layers = {
        node: replace(found, second=np.diag(found.second).copy(), patches=None)
        for node, found in context.statistics.layers.items()
    }
    return replace(context, statistics=replace(context.statistics, layers=layers))


@pytest.mark.parametrize("name", ["mlp", "concat", "residual", "flatten"])
def test_variances_alone_give_what_the_diagonal_matrix_would(name):
    """Order and scores equal the elimination over the dense diagonal covariance, group by group."""
    context = of_variances(pattern(name, samples=128))
    couplings, weights = context.couplings, context.weights()
    found = score("ib-gauss", context)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        local = np.full(couplings.count + 1, -1, np.int32)
        local[members] = np.arange(len(members), dtype=np.int32)
        dense = [
            consumer(weights[str(layer.weight)], layer, statistics, local[vector])
            for layer, statistics, vector in context.readers(group)
        ]
        if not dense:
            continue
        values = [np.linalg.eigh(made.energy) for made in dense]
        roots = [np.sqrt(np.maximum(v, 0))[:, None] * u.T for v, u in values]
        triples = [(d.covariance, r, d.unit) for d, r in zip(dense, roots, strict=True)]
        order, cost, initial = reference.backward_elimination(triples, len(members))
        wanted = np.maximum.accumulate(cost[order])
        np.testing.assert_allclose(found.component[members[order]], wanted, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.details["initial_nats"][members], initial, rtol=1e-6, atol=1e-9)


def test_a_diagonal_of_slopes_is_not_made_a_matrix():
    """energy and own_energy of a diagonal S are those of the matrix with that diagonal."""
    rng = np.random.default_rng(0)
    taps, slopes = rng.normal(size=(3, 5, 4)), rng.random(5)
    np.testing.assert_allclose(energy(taps, slopes), energy(taps, np.diag(slopes)))
    np.testing.assert_allclose(own_energy(taps, slopes), np.diag(energy(taps, slopes)))
    np.testing.assert_allclose(own_energy(taps, np.diag(slopes)), np.diag(energy(taps, slopes)))


def test_a_wide_layer_is_scored_without_a_matrix_of_its_inputs(monkeypatch):
    """6,272 inputs behind a flatten: nobody asks for the dense covariance, of 300 MB and minutes."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.f, self.h = (
                nn.Conv2d(1, 8, 3, padding=1),
                nn.Linear(8 * 28 * 28, 32),
                nn.Linear(32, 10),
            )

        def forward(self, x):
            return self.h(torch.relu(self.f(torch.relu(self.a(x)).flatten(1))))

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(42, 1, 28, 28)).astype(np.float32)
    context = context_of(Wide(), x, np.arange(42) % 10)
    dense = LayerStatistics.covariance.fget

    def small_only(self):
        assert self.second.ndim == 2, "a dense matrix was made of variances"
        return dense(self)

    monkeypatch.setattr(LayerStatistics, "covariance", property(small_only))
    began = time.process_time()
    found = score("ib-gauss", context)
    assert time.process_time() - began < 60  # it took 264 s
    assert sorted(found.rank[hidden(context, "a.weight")]) == list(range(8))


def test_a_wide_layer_keeps_the_order_that_the_diagonal_gives(monkeypatch):
    """Capturing with FULL_COVARIANCE lowered gives variances, and the scores of `of_variances`."""
    context = pattern("flatten")
    source = context.statistics.source
    monkeypatch.setattr(capturing, "FULL_COVARIANCE", 4)
    monkeypatch.setattr(capturing, "PATCH_FEATURES", 0)
    wide = replace(
        context, statistics=captured(context.trace, context.couplings, source.dataset, source.indices)
    )
    assert any(found.second.ndim == 1 and found.slopes.ndim == 1 for found in wide.statistics.layers.values())
    assert np.isfinite(score("ib-gauss", wide).component).all()


def test_costs_that_never_change_are_part_of_every_step():
    """A unit with a fixed cost goes when it is cheapest in all; until then the others lean on it."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T + 0.1 * np.eye(5)
    weight, fixed = rng.normal(size=(4, 5)), np.array([0.0, 2.0, 0.0, 0.5, 0.0])
    unit = np.arange(5, dtype=np.int32)
    made = eliminate([_consumer(covariance, weight, unit)], fixed)
    own = np.sqrt(np.diag(np.expm1(2 * fixed)))
    order, cost, initial = reference.backward_elimination(
        [(covariance, weight, unit), (np.eye(5), own, unit)], 5
    )
    assert made.order.tolist() == list(order)
    np.testing.assert_allclose(made.score_nats, cost, rtol=1e-6)
    np.testing.assert_allclose(made.initial_nats, initial, rtol=1e-6)


def test_units_with_no_other_cost_go_in_the_order_of_it():
    """Without a layer that mixes, the elimination is a sort."""
    made = eliminate([], np.array([3.0, 1.0, 2.0, 1.0]))
    assert made.order.tolist() == [1, 3, 2, 0]
    assert made.score_nats.tolist() == made.initial_nats.tolist() == [3.0, 1.0, 2.0, 1.0]


def _consumer(covariance, weight, unit):
    from edgeprune.information import Consumer

    return Consumer(covariance, weight.T @ weight, unit)


def test_a_unit_that_must_stay_for_its_other_readers_leaves_its_twin_free_to_go():
    """Of two equal channels, one read recurrently as well: the other goes first, and costs next to nothing.

    Charged afterwards, the elimination took the lower number first, found it cheap, and its twin,
    scored as the sole carrier, came out dear: both stayed.
    """
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 8)).astype(np.float32)
    weights[4] = weights[1]
    x = rng.normal(size=(600, 8)).astype(np.float32)
    head = rng.normal(size=(4, 6)).astype(np.float32)
    head[:, [1, 4]] *= 2
    context = context_of(mlp(weights, head), x, rng.integers(0, 4, 600))
    first, second = hidden(context)[[1, 4]]
    vital = np.zeros(context.couplings.count)
    vital[min(first, second)] = 50.0
    asked = replace(context, statistics=replace(context.statistics, other_readings=vital))
    found = score("ib-gauss", asked)
    assert found.rank[max(first, second)] == 0
    assert found.component[max(first, second)] < 1e-2 * np.median(found.component)
    assert found.rank[min(first, second)] == 5


def test_networks_without_other_readers_are_scored_as_they_were():
    """With other_readings of zero nothing is added to the elimination: order and scores to the last bit."""
    context = pattern("residual")
    assert not context.statistics.other_readings.any()
    couplings, weights = context.couplings, context.weights()
    found = score("ib-gauss", context)
    for group in range(len(couplings.group_names)):
        members = np.flatnonzero(couplings.group == group)
        local = np.full(couplings.count + 1, -1, np.int32)
        local[members] = np.arange(len(members), dtype=np.int32)
        consumers = [
            consumer(weights[str(layer.weight)], layer, statistics, local[vector])
            for layer, statistics, vector in context.readers(group)
        ]
        from edgeprune import information

        made = information.backward_elimination(consumers, len(members))
        wanted = np.maximum.accumulate(made.score_nats[made.order]) + 1e-12 * np.arange(len(members))
        assert np.array_equal(found.component[members[made.order]], wanted)


def test_recurrent_readers_shape_the_elimination():
    """Scores of a group that is read recurrently too never fall below what the other readers lose."""
    context = unread("recurrent")
    others = 0.5 * np.log1p(2 * context.statistics.other_readings)
    assert (score("ib-gauss", context).component >= others - 1e-9).all()
