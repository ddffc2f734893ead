"""Allocation: budgets are met, cheap groups give first, alignment and the last channel hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeprune.coupling.components import Couplings, Layer, MacTerm
from edgeprune.search.allocate import allocate, cheapest
from edgeprune.search.groups import Curve, largest, uniform


def chain(*widths: int) -> Couplings:
    """Linear layers 4 -> widths... -> 4; every hidden channel is a component of its own."""
    starts = np.cumsum([0, *widths])
    hidden = [np.arange(a, b, dtype=np.int32) for a, b in itertools.pairwise(starts)]
    ends = np.full(4, -1, dtype=np.int32)
    channel_maps = (ends, *hidden)
    order = [0, *range(1, len(widths) + 1), 0]
    layers = tuple(
        Layer(f"n{i}", "linear", f"s{i}", f"l{i}.weight", None, 1, 0, 1, 1, a, b, 1)
        for i, (a, b) in enumerate(itertools.pairwise(order))
    )
    costs = tuple(MacTerm(layer.node, 1.0, (layer.inputs, layer.outputs)) for layer in layers)
    tensors = {str(layer.weight): (layer.outputs, layer.inputs) for layer in layers}
    group = np.concatenate([np.full(w, i, np.int32) for i, w in enumerate(widths)])
    return Couplings(
        int(starts[-1]), channel_maps, tensors, {n: n for n in tensors}, {}, layers, costs,
        np.ones(int(starts[-1]), bool), (), (), group, tuple(f"l{i}" for i in range(len(widths))),
    )  # fmt: skip


def ranks(couplings: Couplings) -> np.ndarray:
    """The order of the components within their groups."""
    first = np.searchsorted(couplings.group, couplings.group)
    return np.arange(couplings.count) - first


def line(slope: float) -> Curve:
    return Curve((0.0, 0.5, 1.0), (0.0, slope / 2, slope))


def test_macs_are_the_products_of_kept_widths():
    """A chain 4-8-6-4 costs 32 + 48 + 24; removing two of eight takes a quarter of two terms."""
    couplings = chain(8, 6)
    removed = np.zeros(14, bool)
    removed[:2] = True
    assert couplings.macs() == 104
    assert couplings.macs(removed) == 4 * 6 + 6 * 6 + 6 * 4


@pytest.mark.parametrize("target", [0.9, 0.6, 0.3])
def test_the_target_is_met_and_barely_overshot(target):
    """The cost lands at or below the target, and one step before it was above."""
    couplings = chain(64, 64, 64)
    goal = target * couplings.macs()
    curves = {g: line(1.0) for g in range(3)}
    removed = allocate(couplings, ranks(couplings), curves, couplings.macs, goal)
    assert couplings.macs(removed) <= goal
    assert couplings.macs(removed) > goal * 0.93


@pytest.mark.parametrize("target", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("align", [1, 8])
def test_flat_curves_are_no_reason_to_remove_more_than_asked(target, align):
    """Nothing was lost while curves were measured: still only as much goes, an even share of each group."""
    couplings = chain(64, 64, 64)
    goal = target * couplings.macs()
    curves = {g: line(0.0) for g in range(3)}
    removed = allocate(couplings, ranks(couplings), curves, couplings.macs, goal, align=align)
    assert couplings.macs(removed) <= goal
    assert couplings.macs(removed) > goal * (0.95 if align == 1 else 0.75)
    counts = removed.reshape(3, 64).sum(1)
    assert counts.max() - counts.min() <= 16
    assert not (64 - counts).astype(int) @ np.ones(3, int) % align


def test_the_insensitive_group_gives_more():
    """Of two equal groups the one whose curve is ten times flatter loses more channels."""
    couplings = chain(32, 32)
    curves = {0: line(10.0), 1: line(1.0)}
    removed = allocate(couplings, ranks(couplings), curves, couplings.macs, 0.5 * couplings.macs())
    assert removed[32:].sum() > 2 * removed[:32].sum()


def test_removal_follows_the_rank():
    """Within a group nothing of higher rank goes before something of lower rank."""
    couplings = chain(16, 16)
    rank = np.concatenate([np.arange(16)[::-1], np.arange(16)])
    curves = {g: Curve((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.1, 0.4, 0.9, 1.6)) for g in range(2)}
    removed = allocate(couplings, rank, curves, couplings.macs, 0.4 * couplings.macs())
    for rows in (slice(0, 16), slice(16, 32)):
        assert rank[rows][removed[rows]].max() < rank[rows][~removed[rows]].min()


@pytest.mark.parametrize("align", [2, 4, 8])
def test_kept_widths_are_multiples_of_the_measured_block(align):
    """Every group keeps all of its channels or a multiple of the block."""
    couplings = chain(40, 24, 56)
    curves = {g: line(g + 1.0) for g in range(3)}
    for removed in (
        allocate(couplings, ranks(couplings), curves, couplings.macs, 0.4 * couplings.macs(), align=align),
        uniform(couplings, ranks(couplings), couplings.macs, 0.4 * couplings.macs(), align=align),
    ):
        for g, width in enumerate((40, 24, 56)):
            kept = int((~removed[couplings.group == g]).sum())
            assert kept == width or kept % align == 0
            assert kept > 0


def test_a_group_without_a_curve_stays_whole():
    """What was not measured is not guessed."""
    couplings = chain(16, 16)
    removed = allocate(couplings, ranks(couplings), {1: line(1.0)}, couplings.macs, 0.6 * couplings.macs())
    assert not removed[:16].any()
    assert removed[16:].any()


def test_the_cheapest_network_need_not_be_the_narrowest():
    """Where one channel takes longer than eight the least cost lies at eight; else all that can goes."""
    couplings = chain(32, 32)

    def steps(removed):
        kept = (~removed).reshape(2, 32).sum(1)
        return float((kept + 20 * (kept % 8 != 0)).sum())

    found = cheapest(couplings, ranks(couplings), steps)
    assert (~found).reshape(2, 32).sum(1).tolist() == [8, 8]
    plain = cheapest(couplings, ranks(couplings), couplings.macs)
    assert np.array_equal(plain, largest(couplings, ranks(couplings)))


def test_held_components_go_and_the_others_get_what_that_saves():
    """Of three equal groups one is held below what it would keep: the others keep more."""
    couplings = chain(64, 64, 64)
    goal, curves = 0.3 * couplings.macs(), {g: line(1.0) for g in range(3)}
    held = np.zeros(couplings.count, bool)
    held[:40] = True
    removed = allocate(couplings, ranks(couplings), curves, couplings.macs, goal, held=held)
    free = allocate(couplings, ranks(couplings), curves, couplings.macs, goal)
    assert removed[held].all() and couplings.macs(removed) <= goal
    assert free[:64].sum() < 40 and removed[~held].sum() < free[~held].sum()


def test_largest_removal_keeps_one_channel_everywhere():
    """The floor of a budget leaves one component per group."""
    couplings = chain(9, 7)
    removed = largest(couplings, ranks(couplings))
    assert removed.sum() == 14
    assert not couplings.emptied(removed)


def test_uniform_takes_the_same_share_of_every_group():
    """Shares differ by at most one channel."""
    couplings = chain(40, 80)
    removed = uniform(couplings, ranks(couplings), couplings.macs, 0.5 * couplings.macs())
    assert abs(removed[:40].mean() - removed[40:].mean()) <= 1 / 40
    assert couplings.macs(removed) <= 0.5 * couplings.macs()


def test_a_dip_in_a_curve_does_not_reward_removing_more():
    """Measured curves are noisy: what lies behind a dip costs at least what lay before it."""
    couplings = chain(32, 32)
    dip = Curve((0.0, 0.25, 0.5, 1.0), (0.0, 0.4, 0.0, 2.0))
    flat = Curve((0.0, 0.25, 0.5, 1.0), (0.0, 0.1, 0.2, 2.0))
    goal = 0.6 * couplings.macs()
    removed = allocate(couplings, ranks(couplings), {0: dip, 1: flat}, couplings.macs, goal)
    assert removed[32:].sum() >= removed[:32].sum()


def staircase(couplings: Couplings, block: int):
    """MACs as a machine runs them that rounds every width up to its block."""

    def cost(removed):
        kept = couplings.kept(removed)
        return sum(c.coefficient * np.prod([-(-kept[f] // block) * block for f in c.factors])
                   for c in couplings.costs)  # fmt: skip

    return cost


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3, 0.1])
def test_on_a_staircase_no_width_lies_just_over_a_step(share):
    """Where only multiples of 8 save time, every group ends on one, and the budget is kept."""
    couplings = chain(64, 48, 40)
    cost = staircase(couplings, 8)
    goal = share * cost(np.zeros(couplings.count, bool))
    curves = {g: Curve((0.0, 0.5, 1.0), (0.0, 0.2, 1.0 + g)) for g in range(3)}
    removed = allocate(couplings, ranks(couplings), curves, cost, goal)
    assert cost(removed) <= goal
    for g in range(3):
        assert (~removed[couplings.group == g]).sum() % 8 == 0


def test_close_to_the_best_of_all_plans():
    """Against every plan of a small chain: within a twentieth of the least loss."""
    couplings = chain(12, 10, 8)
    cost = staircase(couplings, 4)
    curves = {g: Curve((0.0, 0.4, 0.8, 1.0), (0.0, 0.1 * (g + 1), 0.5, 2.0)) for g in range(3)}
    whole = cost(np.zeros(couplings.count, bool))
    rank, sizes = ranks(couplings), (12, 10, 8)

    def removal(counts):
        return rank < np.repeat(counts, sizes)

    def loss(removed):
        gone = [removed[couplings.group == g].mean() for g in range(3)]
        return sum(np.interp(x, curves[g].shares, curves[g].losses) for g, x in enumerate(gone))

    for share in (0.75, 0.5, 0.25):
        plans = (removal(counts) for counts in itertools.product(*map(range, sizes)))
        best = min(loss(p) for p in plans if cost(p) <= share * whole)
        found = allocate(couplings, rank, curves, cost, share * whole)
        assert cost(found) <= share * whole
        assert loss(found) <= 1.05 * best


def test_out_of_reach_gives_the_cheapest():
    """A goal below the floor ends at the floor, which the caller compares."""
    couplings = chain(9, 7)
    removed = allocate(couplings, ranks(couplings), {0: line(1.0), 1: line(1.0)}, couplings.macs, 1.0)
    assert couplings.macs(removed) == couplings.macs(largest(couplings, ranks(couplings)))
