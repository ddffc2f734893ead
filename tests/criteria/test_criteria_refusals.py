"""What a criterion cannot use is refused in a sentence, not ranked by number."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest
import torch
from scoring import context_of, mlp, pattern
from torch import nn

from edgeprune.criteria import BUILT_IN, find, registry, score
from edgeprune.criteria.base import Scores, declares
from edgeprune.criteria.l2 import l2
from edgeprune.criteria.label import channel_label_information
from edgeprune.errors import CriterionError

LABELLED = ("ib-edge", "ib-jmi", "mrmr", "hsic-lasso")


@pytest.fixture(scope="module")
def unlabelled():
    """A segmentation network and images without labels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    return context_of(net, np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("name", LABELLED)
def test_criteria_of_the_class_refuse_data_without_classes(unlabelled, name):
    """No labels and no class scores: said so, with the criteria that need none."""
    assert unlabelled.statistics.label_source == "none" and unlabelled.statistics.labels is None
    with pytest.raises(CriterionError, match=f"{name}: .*no labels and .* not one of class scores") as caught:
        score(name, unlabelled)
    for other in set(BUILT_IN) - set(LABELLED):
        assert other in caught.value.tip


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - set(LABELLED)))
def test_the_others_rank_without_classes(unlabelled, name):
    """Each group's scores differ: the tip names criteria that work."""
    found, couplings = score(name, unlabelled), unlabelled.couplings
    for group in range(len(couplings.group_names)):
        assert np.ptp(found.component[couplings.group == group]) > 0
    assert channel_label_information(unlabelled) is None


@pytest.mark.parametrize("name", LABELLED)
def test_a_single_class_is_none(name):
    """Labels of one class, or one output that leaves no choice of class, tell channels apart no better."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    net = mlp(rng.normal(size=(6, 5)), rng.normal(size=(3, 6)))
    with pytest.raises(CriterionError, match="all 40 samples are of class 2"):
        score(name, context_of(net, x, np.full(40, 2)))
    regression = context_of(mlp(rng.normal(size=(6, 5)), rng.normal(size=(1, 6))), x)
    assert regression.statistics.label_source == "none"
    with pytest.raises(CriterionError, match="no labels"):
        score(name, regression)


def test_vib_without_classes_keeps_what_the_output_depends_on():
    """Gates are trained to leave the output as it is: channels rank by the weight that it has for them."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 5))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    head = np.array([[0.1, 1.6, 0.4, 0.0, 3.2, 0.8]])
    context = context_of(mlp(weights, head), rng.normal(size=(256, 5)).astype(np.float32))
    units = context.couplings.channel_maps[context.couplings.tensors["0.weight"][0]]
    assert score("vib", context).rank[units].tolist() == [1, 4, 2, 0, 5, 3]


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"ib-edge", "ib-jmi"}))
def test_a_theta_that_would_be_ignored_is_refused(name):
    """Ten criteria, two with a θ: the others say so and name those two."""
    with pytest.raises(CriterionError, match=f"--theta -0.3: --criterion {name} has no θ") as caught:
        score(name, replace(pattern("mlp", samples=8), theta=-0.3))
    assert "ib-edge" in caught.value.tip and "ib-jmi" in caught.value.tip


def install(monkeypatch, **criteria):
    """Entry points of a third party; each name points to a function of this module."""
    for name, function in criteria.items():
        monkeypatch.setitem(globals(), name, function)
    entries = EntryPoints([EntryPoint(n, f"{__name__}:{n}", "edgeprune.criteria") for n in criteria])
    monkeypatch.setattr(registry, "entry_points", lambda *, group: entries)


def test_a_third_party_declares_what_it_needs(monkeypatch):
    """needs_data on the function decides, else data are asked for; θ goes through unless it is declined."""

    def plain(context):
        return l2(context)

    @declares(needs_data=False)
    def light(context):
        return l2(context)

    def bare(context):
        return l2(context)

    bare.needs_data, bare.takes_theta = False, False
    install(monkeypatch, plain=plain, light=light, bare=bare)
    assert (
        registry.needs_data("plain") and not registry.needs_data("light") and not registry.needs_data("bare")
    )
    context = replace(pattern("mlp", samples=8), statistics=None)
    with pytest.raises(CriterionError, match="plain: needs data"):
        score("plain", context)
    assert isinstance(score("light", context), Scores) and isinstance(score("bare", context), Scores)
    with pytest.raises(CriterionError, match="bare has no θ"):
        score("bare", replace(context, theta=1.0))
    assert isinstance(score("plain", replace(pattern("mlp", samples=8), theta=1.0)), Scores)


def test_readers_without_data_are_an_error_that_a_person_can_read(monkeypatch):
    """A criterion that said it needs none and asks for readers: a CriterionError with the next step."""

    @declares(needs_data=False)
    def wrong(context):
        return context.readers(0)

    install(monkeypatch, wrong=wrong)
    with pytest.raises(CriterionError, match="no data") as caught:
        score("wrong", replace(pattern("mlp", samples=8), statistics=None))
    assert "--data" in caught.value.tip


def test_the_built_in_criteria_that_need_no_data_say_so():
    """l2, fpgm and random, and no other."""
    assert {n for n in BUILT_IN if not registry.needs_data(n)} == {"l2", "fpgm", "random"}
    assert {n for n in BUILT_IN if getattr(find(n), "takes_theta", False)} == {"ib-edge", "ib-jmi"}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(name, value):
    """NaN compares false with everything: no order of removal would hold."""
    context = pattern("chain")
    with torch.no_grad():
        context.trace.graph.get_parameter("b.weight")[2, 1] = value
    with pytest.raises(
        CriterionError, match=rf"{name}: cannot rank: the tensor 'b.weight' .*9 of 270 values"
    ):
        score(name, context)


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"l2", "fpgm", "random"}))
def test_statistics_that_are_not_finite_are_named(name):
    """The layer that read them is said, and the kind of statistic."""
    context = pattern("chain")
    node, layer = next(iter(context.statistics.layers.items()))
    broken = replace(layer, mean=np.full_like(layer.mean, np.nan))
    statistics = replace(context.statistics, layers={**context.statistics.layers, node: broken})
    with pytest.raises(CriterionError, match=r"cannot rank: the means of what 'a.weight' reads are NaN"):
        score(name, replace(context, statistics=statistics))


def test_scores_of_a_third_party_that_are_not_finite_are_refused(monkeypatch):
    """The group of the first such component is named."""
    context = pattern("chain")

    def careless(context):
        scores = l2(context)
        scores.component[-1] = np.inf
        return scores

    monkeypatch.setattr(registry, "find", lambda name: careless)
    with pytest.raises(CriterionError, match=r"scores of the components of '\w+' are NaN or infinite \(1 of"):
        score("careless", context)
