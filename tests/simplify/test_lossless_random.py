"""Lossless rounds on random networks of every covered operator, with random masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import torch
from generate import Bundle
from patterns import build

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import Couplings
from edgeprune.graph.module import state_tensors
from edgeprune.graph.normalise import functional, normalise
from edgeprune.graph.trace import Trace, quiet, run, trace
from edgeprune.masks import Mask
from edgeprune.masks.mask import coupled_shape
from edgeprune.simplify.flow import observe
from edgeprune.simplify.labels import label_values
from edgeprune.simplify.lossless import apply_mask, certify, lossless

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other
TOLERANCE = 1e-9
SEEDS = range(0, 20, 5)


@dataclass(frozen=True)
class Five:
    """Five random networks in one trace, with the example inputs and others, three times as loud."""

    traced: Trace
    couplings: Couplings
    inputs: tuple[torch.Tensor, ...]
    others: tuple[torch.Tensor, ...]


@lru_cache
def five(seed):
    bundle = Bundle(range(seed, seed + 5)).double().eval()
    torch.manual_seed(seed)
    given = [network.input() for network in bundle.networks]
    inputs = tuple(x for one in given for x in (one if isinstance(one, tuple) else (one,)))
    others = tuple(
        torch.randn_like(x) * 3 if x.is_floating_point() else torch.randint(0, 7, x.shape) for x in inputs
    )
    with quiet():  # a fixed batch: symbolic sizes cost five times the rest of the test
        graph = functional(torch.export.export(bundle, (given,)), inputs)
        normalise(graph)
    traced = Trace(graph, inputs, (False,) * len(inputs))
    return Five(traced, analyse(traced), inputs, others)


def random_mask(couplings, seed):
    """Single weights, whole rows and whole columns, in every layer with a plain weight."""
    rng = np.random.default_rng(seed)
    keep = {}
    for layer in couplings.layers:
        if layer.weight is None:
            continue
        name = couplings.aliases[layer.weight]
        chosen = keep.setdefault(name, rng.random(coupled_shape(couplings, name)) < 0.9)
        for dim, share in ((layer.out_dim, 0.25), (layer.in_dim, 0.15)):
            if dim < chosen.ndim:
                rows = np.moveaxis(chosen, dim, 0)
                rows[rng.random(len(rows)) < share] = False
    return Mask(keep)


def reading_dims(couplings):
    return {(couplings.aliases[x.weight], x.in_dim) for x in couplings.layers if x.weight and x.groups == 1}


def plant_twins(traced, couplings, seed):
    """In every group of plain components, copy the producing slices of one onto another."""
    rng = np.random.default_rng(seed)
    state = state_tensors(traced.graph)
    planted = []
    for group in np.unique(couplings.group):
        members = np.flatnonzero(couplings.group == group)
        if len(members) < 2:
            continue
        a, b = rng.choice(members, 2, replace=False)
        planted.append((int(a), int(b)))
        for name, dims in couplings.tensors.items():
            for dim, channel_map in enumerate(dims):
                if channel_map is None or (name, dim) in reading_dims(couplings):
                    continue
                mine, theirs = (np.flatnonzero(couplings.channel_maps[channel_map] == u) for u in (a, b))
                if len(mine) and len(mine) == len(theirs):
                    with torch.no_grad():
                        rows = state[name].movedim(dim, 0)
                        rows[torch.from_numpy(theirs)] = rows[torch.from_numpy(mine)].clone()
    return planted


def unread_by_hand(traced, couplings):
    """Components whose outgoing weights are all zero, found one index at a time."""
    silent = np.ones(couplings.count, bool)
    read = np.zeros(couplings.count, bool)
    state = state_tensors(traced.graph)
    for layer in couplings.layers:
        if layer.groups > 1:
            continue
        units = couplings.channel_maps[layer.inputs]
        for i, unit in enumerate(units):
            if unit >= 0:
                read[unit] = True
                silent[unit] &= layer.weight is not None and not bool(
                    state[layer.weight].movedim(layer.in_dim, 0)[i].any()
                )
    return silent & read & couplings.exact


def agree(before, after, inputs):
    """Every output of two graphs within 1e-9 of its size."""
    with torch.no_grad():
        pairs = zip(run(before.graph, inputs), run(after.graph, inputs), strict=True)
        return all(bool((a - b).abs().max() <= TOLERANCE * (1 + a.abs().max())) for a, b in pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_equals_lossless(seed):
    """float64, 1e-9, also on inputs that no certificate saw; what nothing reads is gone."""
    net = five(seed)
    mask = random_mask(net.couplings, seed)
    before = apply_mask(net.traced, net.couplings, mask)
    found = lossless(net.traced, net.couplings, mask, [net.inputs])
    for inputs in (net.inputs, net.others):
        assert agree(before, found.small, inputs)
        assert agree(before, found.full, inputs)
    assert found.removed.size > 10  # agreement is not for want of work
    assert sorted([*found.unused, *found.folded, *found.merged]) == found.removed.tolist()
    assert found.couplings.exact[found.removed].all()
    left = unread_by_hand(found.full, found.couplings) & ~found.removed_mask
    assert all(found.kept_reasons[int(unit)] for unit in np.flatnonzero(left))


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_twins_lose_nothing(seed):
    """Twins planted in every group: merged where provable, and the outputs stay."""
    net = five(seed)
    traced = Trace(net.traced.copy(), net.traced.inputs, net.traced.dynamic)
    planted = plant_twins(traced, net.couplings, seed)
    found = lossless(traced, net.couplings, None, [net.inputs])
    assert agree(traced, found.small, net.others)
    assert found.merged.size > 0
    pairs = sum(1 for a, b in planted if {a, b} & set(found.merged.tolist()))
    plain = [p for p in planted if net.couplings.exact[list(p)].all()]
    assert pairs >= 0.5 * len(plain)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_called_constant_never_moves(seed):
    """On other inputs, every element of every value that `observe` calls constant is the same."""
    net = five(seed)
    before = apply_mask(net.traced, net.couplings, random_mask(net.couplings, seed))
    one, two = (observe(before.graph, x) for x in (net.inputs, net.others))
    seen = 0
    for x, y, depends in _values(one.values, two.values, one.depends):
        constant = ~depends
        seen += int(constant.sum())
        assert torch.equal(x[constant].nan_to_num(), y[constant].nan_to_num())
    assert seen


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_labels_mean_equal_values(seed):
    """Within every value, elements that carry one label carry one number, on inputs of any kind."""
    net = five(seed)
    traced = Trace(net.traced.copy(), net.traced.inputs, net.traced.dynamic)
    plant_twins(traced, net.couplings, seed)
    facts = observe(traced.graph, net.inputs)
    others = observe(traced.graph, net.others)
    labels = label_values(traced.graph, facts)
    doubles = 0
    for value, tags, depends in _values(others.values, labels, facts.depends):
        order = tags.reshape(-1).argsort()
        same = tags.reshape(-1)[order].diff() == 0
        gap = value.detach().double().reshape(-1)[order].diff().abs()[same]
        doubles += int((same & depends.reshape(-1)[order][1:]).sum())
        assert not gap.numel() or gap.max() <= TOLERANCE * (1 + value.double().abs().max())
    assert doubles  # some equal elements do depend on the input: the twins were seen


def _values(*tables):
    """Rows of tensors at the same place of several tables by node name; lists are opened."""
    for name in tables[0]:
        cells = [table[name] for table in tables]
        rows = zip(*cells, strict=True) if isinstance(cells[0], list | tuple) else [cells]
        yield from (row for row in rows if isinstance(row[0], torch.Tensor) and row[0].numel())


@pytest.mark.parametrize("name", ["residual", "concat", "depthwise", "squeeze"])
def test_a_second_run_finds_nothing(name):
    """The fixed point is one: rounds on the exported result remove no further channel.

    Not so where a grouped convolution is left with one group: its channels come free singly then.
    """
    module, inputs = build(name)
    traced = trace(module, inputs)
    couplings = analyse(traced)
    found = lossless(traced, couplings, random_mask(couplings, 1), [inputs])
    assert found.removed.size
    again = lossless(found.trace, analyse(found.trace), None, [inputs])
    assert again.removed.size == 0
    assert certify(found.small, again.small, [inputs]) == 0.0
