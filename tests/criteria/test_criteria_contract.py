"""What every criterion owes: shapes, ranks within groups, connection scores, and a score for everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from captured import captured
from scoring import context_of, hidden, mlp, pattern, unread

from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria import BUILT_IN, score
from edgeprune.criteria.base import broadcast, per_component, rank_in_groups
from edgeprune.errors import CriterionError

PATTERNS = (
    "chain", "residual", "depthwise", "transposed", "flatten", "attention", "attention_grouped",
    "transposed_groups1d",
)  # fmt: skip


@pytest.fixture(scope="module", params=PATTERNS)
def context(request):
    return pattern(request.param)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_scores_have_the_shapes_of_the_contract(context, name):
    """component, rank and details are per component; connections have the weights' shapes; all finite."""
    found = score(name, context)
    count = context.couplings.count
    assert found.component.shape == found.rank.shape == (count,)
    assert np.isfinite(found.component).all()
    assert found.criterion == name
    for values in found.details.values():
        assert values.shape == (count,)
    weights = context.weights()
    for layer in mixing_layers(context.couplings):
        values = found.connections[str(layer.weight)]
        assert values.shape == weights[str(layer.weight)].shape
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_ranks_are_a_permutation_within_each_group(context, name):
    """Each group's ranks are 0..n-1, and a lower rank never has the higher score."""
    found = score(name, context)
    group = context.couplings.group
    for g in np.unique(group):
        rows = np.flatnonzero(group == g)
        order = rows[np.argsort(found.rank[rows])]
        assert np.array_equal(np.sort(found.rank[rows]), np.arange(len(rows)))
        assert (np.diff(found.component[order]) >= -1e-12).all()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_same_context_gives_the_same_scores(name):
    """A criterion is a function: scored twice, equal to the last bit."""
    context = pattern("residual")
    first, second = score(name, context), score(name, context)
    assert np.array_equal(first.component, second.component)
    assert np.array_equal(first.rank, second.rank)
    for weight, values in first.connections.items():
        assert np.array_equal(values, second.connections[weight])


def test_rank_in_groups_orders_by_score_and_breaks_ties_by_number():
    """Groups are ranked apart; equal scores go to the lower component first."""
    couplings = replace(pattern("chain").couplings, count=6, group=np.array([1, 0, 1, 0, 1, 0], np.int32))
    rank = rank_in_groups(couplings, np.array([3.0, 5.0, 1.0, 5.0, 1.0, 4.0]))
    assert rank.tolist() == [2, 1, 0, 2, 1, 0]


def test_rank_in_groups_copes_with_a_group_that_is_empty():
    """Group numbers need not be contiguous in the components that are ranked."""
    couplings = replace(
        pattern("chain").couplings,
        count=3, group=np.array([2, 0, 2], np.int32), group_names=("a", "b", "c"),
    )  # fmt: skip
    assert rank_in_groups(couplings, np.array([2.0, 9.0, 1.0])).tolist() == [1, 0, 0]


@pytest.mark.parametrize("name", ["chain", "concat", "residual", "flatten", "reused"])
def test_a_components_connections_sum_to_its_score(name):
    """broadcast spreads each score over the connections that read it: nothing lost, nothing twice."""
    context = pattern(name)
    couplings = context.couplings
    component = np.random.default_rng(0).random(couplings.count) + 0.1
    found = broadcast(context, component)
    mass, read, seen = np.zeros(couplings.count), np.zeros(couplings.count), set()
    for layer in mixing_layers(couplings):
        if (layer.weight, layer.in_dim) in seen:  # a weight used twice holds its connections once
            continue
        seen.add((layer.weight, layer.in_dim))
        values = found[str(layer.weight)].astype(float)
        axes = tuple(d for d in range(values.ndim) if d != layer.in_dim)
        mass += per_component(couplings, layer.inputs, values.sum(axes))
        read += per_component(couplings, layer.inputs, np.ones(values.shape[layer.in_dim]))
    np.testing.assert_allclose(mass[read > 0], component[read > 0], rtol=1e-5)
    assert (read > 0).any()


def test_connections_of_pinned_inputs_are_kept_by_a_mask():
    """The first layer reads the image, which stays: its connections score at least all others."""
    context = pattern("chain")
    found = broadcast(context, np.random.default_rng(0).random(context.couplings.count))
    assert found["a.weight"].min() >= max(v.max() for v in found.values()) * (1 - 1e-6)


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"l2", "random", "fpgm"}))
def test_a_criterion_that_needs_data_says_so(name):
    """Without statistics: one line that names the criterion, and the way on."""
    context = replace(pattern("chain"), statistics=None)
    with pytest.raises(CriterionError, match=f"{name}: needs data") as caught:
        score(name, context)
    assert "l2" in caught.value.tip


@pytest.mark.parametrize("name", ["l2", "random", "fpgm"])
def test_weights_alone_can_be_scored(name):
    """l2, fpgm and random give the same scores with and without data."""
    context = pattern("chain")
    bare = score(name, replace(context, statistics=None))
    assert np.array_equal(score(name, context).component, bare.component)


def test_an_unknown_criterion_is_refused_with_the_nearest_name():
    """`ib-gaus` is told about `ib-gauss`."""
    with pytest.raises(CriterionError, match="no such criterion") as caught:
        score("ib-gaus", pattern("chain"))
    assert "ib-gauss" in caught.value.tip


def test_a_third_party_adds_a_criterion_by_entry_point(monkeypatch):
    """An installed package's `edgeprune.criteria` entry is found by name and used, data or not."""
    from importlib.metadata import EntryPoint, EntryPoints

    from edgeprune.criteria import find, registry

    entry = EntryPoint("theirs", "edgeprune.criteria.l2:l2", "edgeprune.criteria")

    def installed(*, group):
        return EntryPoints([entry] if group == "edgeprune.criteria" else [])

    monkeypatch.setattr(registry, "entry_points", installed)
    assert find("theirs") is find("l2")
    bare = replace(pattern("chain"), statistics=None)
    assert np.array_equal(score("theirs", bare).component, score("l2", bare).component)
    with pytest.raises(CriterionError) as caught:
        find("their")
    assert "theirs" in caught.value.tip


DATA_CRITERIA = sorted(set(BUILT_IN) - {"random"})


@pytest.mark.parametrize("name", DATA_CRITERIA)
def test_a_silent_channel_goes_first(name):
    """A hidden unit whose weights are zero has the lowest rank under every criterion but chance."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 5)).astype(np.float32)
    weights[3] = 0
    x = rng.normal(size=(400, 5)).astype(np.float32)
    context = context_of(mlp(weights, rng.normal(size=(3, 6))), x, (x @ rng.normal(size=(5, 3))).argmax(1))
    assert score(name, context).rank[hidden(context)[3]] == 0


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"random", "l2", "fpgm"}))
def test_unread_components_are_never_all_zero(name):
    """Query and key widths, which no plain layer reads, are told apart by every criterion with data."""
    context = unread("head_width")
    group = context.couplings.group_names.index("q")
    values = score(name, context).component[context.couplings.group == group]
    assert (values > 0).all()
    assert len(np.unique(values)) == len(values)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_network_with_nothing_left_to_remove_is_scored_all_the_same(name):
    """No components, as in the last round of a search: empty scores, connections of the weights' shapes."""
    context = pattern("chain")
    couplings = context.couplings.keeping(np.ones(context.couplings.count, bool), "by request")
    source = context.statistics.source
    statistics = captured(context.trace, couplings, source.dataset, source.indices)
    found = score(name, replace(context, couplings=couplings, statistics=statistics))
    assert found.component.shape == found.rank.shape == (0,)
    for weight, values in context.weights().items():
        assert weight not in found.connections or found.connections[weight].shape == values.shape
