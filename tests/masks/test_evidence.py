"""Evidence, order and coverage, against counts made by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.errors import MaskError
from edgeprune.graph.trace import trace
from edgeprune.masks import Mask, evidence, mask_coverage, mask_from_scores, order


class Residual(nn.Module):
    """A residual pair, a depthwise layer and a flattened head: the readers that differ."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.dw = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.c = nn.Conv2d(4, 5, 1)
        self.fc = nn.Linear(5 * 4, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(x + self.b(x))
        return self.fc(torch.relu(self.c(self.dw(x))).flatten(1))


@pytest.fixture(scope="module")
def coupled():
    torch.manual_seed(0)
    traced = trace(Residual().eval(), (torch.randn(2, 2, 2, 2),))
    couplings = analyse(traced)
    rng = np.random.default_rng(0)
    weights = ["a.weight", "b.weight", "dw.weight", "c.weight", "fc.weight"]
    shapes = [(4, 2, 3, 3), (4, 4, 3, 3), (4, 1, 3, 3), (5, 4, 1, 1), (3, 20)]
    scores = {n: rng.random(s) for n, s in zip(weights, shapes, strict=True)}
    return couplings, scores


def unit(couplings, weight, dim, index):
    return int(couplings.channel_maps[couplings.tensors[weight][dim]][index])


def test_connections_are_what_reads_the_channel(coupled):
    """A residual channel is read by b, the depthwise layer and c; a flattened one by its columns of fc."""
    couplings, scores = coupled
    found = evidence(Mask({}), scores, couplings)
    for i in range(4):
        c = unit(couplings, "a.weight", 0, i)
        assert found.connections[c] == 4 * 9 + 9 + 5
        expected = (
            scores["b.weight"][:, i].sum() + scores["dw.weight"][i].sum() + scores["c.weight"][:, i].sum()
        )
        assert found.mass[c] == pytest.approx(expected, rel=1e-12)
    for i in range(5):
        c = unit(couplings, "c.weight", 0, i)
        assert found.connections[c] == 3 * 4
        assert found.mass[c] == pytest.approx(scores["fc.weight"][:, 4 * i : 4 * i + 4].sum(), rel=1e-12)


def test_kept_share_and_lost_mass_follow_the_mask(coupled):
    """Only connections that the mask keeps are lost; a tensor without a mask counts as kept."""
    couplings, scores = coupled
    keep = np.random.default_rng(3).random((3, 20)) < 0.4
    found = evidence(Mask({"fc.weight": keep}), scores, couplings)
    c = unit(couplings, "c.weight", 0, 2)
    part = keep[:, 8:12]
    assert found.kept[c] == part.sum()
    assert found.kept_share[c] == part.mean()
    assert found.lost[c] == pytest.approx(scores["fc.weight"][:, 8:12][part].sum(), rel=1e-12)
    other = unit(couplings, "a.weight", 0, 0)
    assert found.kept_share[other] == 1.0
    assert found.lost[other] == found.mass[other]


def test_a_component_without_readers_counts_its_producers():
    """Two layers summed into an output by a reduction: nothing holds a weight that reads them."""

    class Tail(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 6)

        def forward(self, x):
            return torch.relu(self.fc(x)).sum(1)

    couplings = analyse(trace(Tail().eval(), (torch.randn(2, 3),)))
    assert couplings.count == 6
    found = evidence(Mask({}), {"fc.weight": np.ones((6, 3))}, couplings)
    assert found.connections.tolist() == [3] * 6
    assert found.mass.tolist() == [3.0] * 6


def test_a_model_with_nothing_to_remove_has_no_evidence():
    """No component: empty arrays, an empty order, a mask that is given up whole."""
    couplings = analyse(trace(nn.Linear(3, 2).eval(), (torch.randn(2, 3),)))
    mask = Mask({"weight": np.zeros((2, 3), bool)})
    found = evidence(mask, {"weight": np.ones((2, 3))}, couplings)
    assert found.lost.shape == order(found, np.zeros(0)).shape == (0,)
    result = mask_coverage(mask, couplings, np.zeros(0, bool))
    assert (result.masked, result.given_up, result.share) == (6, 6, 0.0)


def test_rank_scaling_makes_layers_comparable(coupled):
    """Scores of one layer times a million leave rank-scaled evidence as it is."""
    couplings, scores = coupled
    loud = {**scores, "c.weight": scores["c.weight"] * 1e6}
    one, two = (evidence(Mask({}), s, couplings, scale="rank") for s in (scores, loud))
    assert np.allclose(one.lost, two.lost, rtol=1e-12)
    assert not np.allclose(
        evidence(Mask({}), scores, couplings).lost, evidence(Mask({}), loud, couplings).lost
    )


def test_equal_scores_share_the_mean_rank(coupled):
    """A layer of equal scores gives every connection rank one half."""
    couplings, _ = coupled
    found = evidence(Mask({}), {"fc.weight": np.ones((3, 20))}, couplings, scale="rank")
    c = unit(couplings, "c.weight", 0, 0)
    assert found.mass[c] == pytest.approx(12 / 2)


def test_order_is_by_mass_lost_per_cost_saved(coupled):
    """Doubling what a component saves moves it as far ahead as halving what it loses."""
    couplings, scores = coupled
    found = evidence(Mask({}), scores, couplings)
    saving = np.random.default_rng(5).uniform(1, 9, couplings.count)
    ranked = order(found, saving)
    rate = (found.lost / saving)[ranked]
    assert (np.diff(rate) >= 0).all()
    assert sorted(ranked.tolist()) == list(range(couplings.count))


def test_order_puts_what_saves_nothing_and_what_is_unscored_last(coupled):
    """No evidence and no gain are never a reason to go first."""
    couplings, scores = coupled
    found = evidence(Mask({}), {"fc.weight": scores["fc.weight"]}, couplings)
    saving = np.ones(couplings.count)
    free = unit(couplings, "c.weight", 0, 3)
    saving[free] = 0.0
    ranked = order(found, saving).tolist()
    scored = {unit(couplings, "c.weight", 0, i) for i in range(5)} - {free}
    assert set(ranked[:4]) == scored
    assert set(found.unscored) == {"b.weight", "c.weight", "dw.weight"}


def test_order_refuses_savings_of_another_model(coupled):
    """One saving per component, finite."""
    couplings, scores = coupled
    found = evidence(Mask({}), scores, couplings)
    with pytest.raises(MaskError, match="savings"):
        order(found, np.ones(couplings.count + 1))
    with pytest.raises(MaskError, match="savings"):
        order(found, np.full(couplings.count, np.nan))


def test_scores_that_do_not_fit_are_refused(coupled):
    """Unknown names, other shapes and NaN each name the tensor."""
    couplings, _ = coupled
    for scores in (
        {"nope": np.ones(3)},
        {"fc.weight": np.ones((20, 3))},
        {"fc.weight": np.full((3, 20), np.nan)},
    ):
        with pytest.raises(MaskError, match=repr(next(iter(scores)))):
            evidence(Mask({}), scores, couplings)


def test_coverage_counts_every_masked_weight_once(coupled):
    """masked = removed + given up, and the live weights that went are the rest of the slices."""
    couplings, scores = coupled
    mask = mask_from_scores(scores, 0.5)
    removed = np.zeros(couplings.count, bool)
    gone = [unit(couplings, "a.weight", 0, 1), unit(couplings, "c.weight", 0, 2)]
    removed[gone] = True
    found = mask_coverage(mask, couplings, removed)
    expected = {}
    for name, keep in mask.keep.items():
        out = np.zeros(keep.shape, bool)
        if name in ("a.weight", "b.weight", "dw.weight"):
            out[1] = True
        if name in ("b.weight", "c.weight"):
            out[:, 1] = True
        if name == "c.weight":
            out[2] = True
        if name == "fc.weight":
            out[:, 8:12] = True
        expected[name] = (int((~keep).sum()), int((out & ~keep).sum()), int((out & keep).sum()))
    assert {t.name: (t.masked, t.removed, t.live_removed) for t in found.tensors} == expected
    assert found.masked == found.removed + found.given_up == sum(e[0] for e in expected.values())
    assert found.share == found.removed / found.masked
    assert found.live_components.tolist() == sorted(gone)


def test_a_channel_with_one_side_masked_whole_held_nothing_live(coupled):
    """Removing a channel that nothing feeds gives nothing away, whatever reads it."""
    couplings, _ = coupled
    keep = np.ones((5, 4, 1, 1), bool)
    keep[2] = False
    removed = np.zeros(couplings.count, bool)
    removed[unit(couplings, "c.weight", 0, 2)] = True
    found = mask_coverage(Mask({"c.weight": keep}), couplings, removed)
    assert found.live_components.size == 0
    assert (found.removed, found.given_up, found.live_removed) == (4, 0, 0)


def test_a_tied_tensor_takes_one_mask():
    """Two names of one tensor: equal masks are one, different ones are refused."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(torch.relu(self.b(torch.relu(self.a(x)))))

    couplings = analyse(trace(Tied().eval(), (torch.randn(2, 4),)))
    (name,) = [n for n in couplings.aliases if n in ("a.weight", "b.weight")]  # export keeps one name
    couplings = replace(couplings, aliases={**couplings.aliases, "second": name})
    keep = np.eye(4, dtype=bool)
    none = np.zeros(couplings.count, bool)
    assert mask_coverage(Mask({name: keep, "second": keep}), couplings, none).masked == 12
    with pytest.raises(MaskError, match="tied"):
        mask_coverage(Mask({name: keep, "second": ~keep}), couplings, none)
