"""Lossless rounds on random networks with random masks: nothing changes, nothing dead is left."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.coupling.components import Couplings
from edgeprune.masks import Mask, honoured
from edgeprune.masks.mask import coupled_shape
from edgeprune.model.graph import state_tensors
from edgeprune.model.trace import run, trace
from edgeprune.surgery import analyse
from edgeprune.surgery.lossless import certify, lossless, masked

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Hardswish, nn.ReLU6, nn.Identity)


class Block(nn.Module):
    """One of: plain, residual, concat, depthwise, grouped, squeeze-excite, transposed."""

    def __init__(self, kind, width, out, rng):
        super().__init__()
        self.kind = kind
        pad, bias = int(rng.integers(0, 2)), bool(rng.integers(0, 2))
        self.act = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()
        self.norm = nn.BatchNorm2d(out) if rng.integers(2) else nn.Identity()
        if kind == "residual":
            self.up, self.conv = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1, bias=bias)
        elif kind == "concat":
            self.left = nn.Conv2d(width, out // 2, 1, bias=bias)
            self.right = nn.Conv2d(width, out - out // 2, 1, bias=bias)
        elif kind == "depthwise":
            self.up = nn.Conv2d(width, out, 1, bias=bias)
            self.conv = nn.Conv2d(out, out, 3, padding=pad, groups=out, bias=bias)
        elif kind == "grouped":
            self.up = nn.Conv2d(width, out, 1, bias=bias)
            self.conv = nn.Conv2d(out, out, 3, padding=pad, groups=2, bias=bias)
        elif kind == "gated":
            self.up = nn.Conv2d(width, out, 1, bias=bias)
            self.down, self.gate = nn.Linear(out, 4), nn.Linear(4, out)
        elif kind == "transposed":
            self.conv = nn.ConvTranspose2d(width, out, 2, stride=1 + pad, bias=bias)
        else:
            self.conv = nn.Conv2d(width, out, 3, padding=pad, bias=bias)

    def forward(self, x):
        if self.kind == "residual":
            x = self.up(x)
            return self.act(x + self.norm(self.conv(self.act(x))))
        if self.kind == "concat":
            return self.act(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        if self.kind == "gated":
            x = self.act(self.norm(self.up(x)))
            return x * torch.sigmoid(self.gate(torch.relu(self.down(x.mean((2, 3))))))[:, :, None, None]
        if self.kind in ("depthwise", "grouped"):
            return self.act(self.norm(self.conv(self.act(self.up(x)))))
        return self.act(self.norm(self.conv(x)))


KINDS = ("plain", "residual", "concat", "depthwise", "grouped", "gated", "transposed")


class Random(nn.Module):
    def __init__(self, rng, kinds):
        super().__init__()
        widths = [3, *(2 * int(rng.integers(2, 5)) for _ in range(rng.integers(2, 4)))]
        self.blocks = nn.Sequential(
            *(Block(kinds[rng.integers(len(kinds))], a, b, rng) for a, b in itertools.pairwise(widths))
        )
        self.pool = nn.AdaptiveAvgPool2d(2) if rng.integers(2) else nn.AdaptiveMaxPool2d(2)
        self.head = nn.Linear(4 * widths[-1], 3)

    def forward(self, x):
        return self.head(self.pool(self.blocks(x)).flatten(1))


def random_network(seed, kinds=KINDS):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Random(rng, kinds).double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            nn.init.normal_(m.bias)
    inputs = [(torch.randn(2, 3, 8, 8).double(),) for _ in range(2)]
    traced = trace(net, inputs[0])
    return rng, traced, analyse(traced), inputs


def random_mask(rng, couplings):
    """Single weights, whole rows and whole columns, in every layer."""
    keep = {}
    for layer in couplings.layers:
        name = couplings.aliases[layer.weight]
        chosen = rng.random(coupled_shape(couplings, name)) < 0.8
        for dim, share in ((layer.out_dim, 0.25), (layer.in_dim, 0.15)):
            rows = np.moveaxis(chosen, dim, 0)
            rows[rng.random(len(rows)) < share] = False
        keep[name] = chosen
    return Mask(keep)


def plant_twins(rng, traced, couplings):
    """Copy the producing slices of one component onto another of its group, sometimes scaled."""
    state = state_tensors(traced.graph)
    reads = {(couplings.aliases[x.weight], x.in_dim) for x in couplings.layers if x.groups == 1}
    for group in np.unique(couplings.group):
        members = np.flatnonzero(couplings.group == group)
        if len(members) < 2:
            continue
        a, b = rng.choice(members, 2, replace=False)
        for name, dims in couplings.tensors.items():
            for dim, extent in enumerate(dims):
                if extent is None or (name, dim) in reads:
                    continue
                mine, theirs = (np.flatnonzero(couplings.extents[extent] == u) for u in (a, b))
                if len(mine) and len(mine) == len(theirs):
                    with torch.no_grad():
                        rows = state[name].movedim(dim, 0)
                        rows[torch.from_numpy(theirs)] = rows[torch.from_numpy(mine)].clone()


def unread_by_hand(traced, couplings: Couplings):
    """Components whose outgoing weights are all zero, found one index at a time."""
    silent = np.ones(couplings.count, bool)
    read = np.zeros(couplings.count, bool)
    state = state_tensors(traced.graph)
    for layer in couplings.layers:
        if layer.groups > 1:
            continue
        units = couplings.extents[layer.inputs]
        weight = state[layer.weight].movedim(layer.in_dim, 0)
        for i, unit in enumerate(units):
            if unit >= 0:
                read[unit] = True
                silent[unit] &= not bool(weight[i].any())
    return silent & read & couplings.exact


@pytest.mark.parametrize("seed", range(12))
def test_masked_equals_lossless(seed):
    """float64, 1e-9: the small graph computes what the masked graph computes, exported again or not."""
    rng, traced, couplings, inputs = random_network(seed)
    if seed % 2:
        plant_twins(rng, traced, couplings)
    mask = random_mask(rng, couplings)
    before = masked(traced, couplings, mask)
    found = lossless(traced, couplings, mask, inputs)
    fresh = [(torch.randn(3, 3, 8, 8).double() * 3,) for _ in range(2)] if all(traced.dynamic) else inputs
    scale = max(1.0, *(float(run(before.graph, x)[0].detach().abs().max()) for x in fresh))
    assert certify(before, found.small, fresh) <= 1e-9 * scale
    assert certify(before, found.full, fresh) <= 1e-9 * scale
    assert found.max_abs <= 1e-9 * scale
    assert set(found.unused) | set(found.folded) | set(found.merged) == set(found.removed)
    # What nothing reads is gone, unless its layer would be empty.
    left = unread_by_hand(found.full, found.couplings) & ~found.removed_mask
    assert {found.kept_reasons.get(int(u)) for u in np.flatnonzero(left)} <= {"the last channel of its layer"}
    # Real removal honours a part of the mask.
    if found.removed.size:
        assert honoured(mask, couplings, found.removed_mask).removed > 0


@pytest.mark.parametrize("seed", range(100, 104))
def test_a_second_run_finds_nothing(seed):
    """The fixed point is one: rounds on the exported result remove no further channel.

    Not so for a grouped convolution that is left with one group: its channels come free singly then.
    """
    rng, traced, couplings, inputs = random_network(seed, [k for k in KINDS if k != "grouped"])
    plant_twins(rng, traced, couplings)
    found = lossless(traced, couplings, random_mask(rng, couplings), inputs)
    again = lossless(found.trace, analyse(found.trace), None, inputs)
    assert again.removed.size == 0


def test_planted_twins_are_found():
    """Without any mask, one planted twin per group is merged wherever its readers can be edited."""
    merged = planted = 0
    for seed in range(200, 206):
        rng, traced, couplings, inputs = random_network(seed)
        plant_twins(rng, traced, couplings)
        merged += lossless(traced, couplings, None, inputs).merged.size
        planted += sum(int((couplings.group == g).sum() > 1) for g in np.unique(couplings.group))
    assert merged >= planted > 6
