"""Lossless rounds: what must go, what must stay, and that nothing changes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgeprune.coupling.analysis import analyse
from edgeprune.errors import MaskError, TraceError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import run, trace
from edgeprune.masks import Mask, fuse_pruned
from edgeprune.simplify.labels import bits
from edgeprune.simplify.lossless import apply_mask, certify, lossless
from edgeprune.surgery.cut import cut

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


def prepared(net, *shape):
    """A trace in float64 with its couplings and three batches of inputs."""
    torch.manual_seed(1)
    net = net.double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    inputs = [(torch.randn(2, *shape).double(),) for _ in range(3)]
    traced = trace(net, inputs[0])
    return traced, analyse(traced), inputs


@lru_cache
def _prepared_class(cls, args, shape):
    torch.manual_seed(0)
    return prepared(cls(*args), *shape)


def fresh(cls, *shape, args=()):
    """`prepared` once per class (an export takes a second); every test gets its own copy."""
    traced, couplings, inputs = _prepared_class(cls, args, shape)
    return replace(traced, graph=traced.copy()), couplings, inputs


def unit(couplings, weight, index, dim=0):
    return int(couplings.channel_maps[couplings.tensors[weight][dim]][index])


def zero(traced, name, index, dim=0, value=0.0):
    """Set slices of a state tensor of the trace."""
    with torch.no_grad():
        state_tensors(traced.graph)[name].index_fill_(dim, torch.as_tensor(index), value)


def set_rows(traced, name, index, value):
    with torch.no_grad():
        state_tensors(traced.graph)[name][index] = value


def same(before, after, inputs, atol=1e-9):
    return all(
        torch.allclose(a, b, rtol=0, atol=atol)
        for x in inputs
        for a, b in zip(run(before.graph, x), run(after.graph, x), strict=True)
    )


class Valid(nn.Module):
    """Convolutions without padding, batch norm and ReLU between: constants fold exactly."""

    def __init__(self, bias=False):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 4, 3, bias=bias)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.a(x)))
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


class Padded(Valid):
    def __init__(self):
        super().__init__()
        self.b = nn.Conv2d(6, 4, 3, padding=1)


class Gelu(Padded):
    def forward(self, x):
        x = nn.functional.gelu(self.bn(self.a(x)))
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(5, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.head(self.rnn(x)[0])))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.a = nn.Conv2d(6, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.a(x))
        x = torch.relu(x + self.b(x))
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize("bias", [False, True])
def test_the_constant_of_a_batch_norm_beta_is_folded_exactly(bias):
    """A filter masked whole leaves relu(beta') behind it, not zero (nni#2130): it moves into b's bias."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7, args=(bias,))
    dead = unit(couplings, "a.weight", 2)
    keep = np.ones((6, 3, 3, 3), bool)
    keep[2] = False
    set_rows(traced, "bn.bias", 2, 5.0)  # surely positive behind the ReLU
    before = apply_mask(traced, couplings, Mask({"a.weight": keep}))
    found = lossless(traced, couplings, Mask({"a.weight": keep}), inputs)
    assert found.folded.tolist() == [dead] == found.removed.tolist()
    assert found.biases == 1
    assert same(before, found.small, inputs)
    # Dropping the channel without folding would be wrong: the test could see it.
    gone = np.zeros(couplings.count, bool)
    gone[dead] = True
    assert certify(before, cut(before, couplings, gone), inputs) > 1e-3


def test_a_consumer_without_a_bias_gets_one():
    """The new parameter is a trainable one of the layer, and the exported graph holds it."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    zero(traced, "a.weight", [2])
    set_rows(traced, "bn.bias", 2, 5.0)
    found = lossless(traced, couplings, None, inputs)
    assert "b.bias" not in state_tensors(traced.graph)
    small = dict(found.small.graph.named_parameters())
    assert small["b.bias"].requires_grad
    assert small["b.bias"].shape == (4,)
    assert found.couplings.tensors["b.bias"] == (found.couplings.tensors["b.weight"][0],)


def test_a_constant_before_zero_padding_stays():
    """The border sees zeros where the inside sees the constant, so one channel carries it."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    zero(traced, "a.weight", [2])
    set_rows(traced, "bn.bias", 2, 5.0)
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0
    assert "border" in found.kept_reasons[unit(couplings, "a.weight", 2)]


def test_a_zero_constant_before_zero_padding_goes():
    """relu of a negative constant is zero, which padding cannot be told from."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    zero(traced, "a.weight", [2])
    set_rows(traced, "bn.bias", 2, -5.0)
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.tolist() == [unit(couplings, "a.weight", 2)]
    assert same(traced, found.small, inputs)


def test_a_constant_read_only_by_centre_taps_folds_through_padding():
    """What the border would show is multiplied by zero weights there."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    zero(traced, "a.weight", [2])
    set_rows(traced, "bn.bias", 2, 5.0)
    centre = torch.zeros(4, 3, 3).double()
    centre[:, 1, 1] = 1.0
    set_rows(traced, "b.weight", (slice(None), 2), centre)
    found = lossless(traced, couplings, None, inputs)
    assert found.folded.tolist() == [unit(couplings, "a.weight", 2)]
    assert same(traced, found.small, inputs)


def test_one_constant_carries_all_others_through_padding():
    """Constants before padding are multiples of one another: three of four go, exactly."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    zero(traced, "a.weight", [0, 1, 2, 3])
    for i, beta in enumerate((5.0, 9.0, 7.0, 6.0)):
        set_rows(traced, "bn.bias", i, beta)
    found = lossless(traced, couplings, None, inputs)
    assert found.merged.size == 3
    assert same(traced, found.small, inputs)


def test_border_constants_fold_on_request_and_are_counted_lossy():
    """borders="fold" removes the channel and says by how much the output moved."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    zero(traced, "a.weight", [2])
    set_rows(traced, "bn.bias", 2, 5.0)
    found = lossless(traced, couplings, None, inputs, borders="fold")
    assert found.lossy.tolist() == [unit(couplings, "a.weight", 2)] == found.removed.tolist()
    gap = certify(traced, found.small, inputs)
    assert gap > 1e-6
    assert found.lossy_max_abs == pytest.approx(gap, rel=1e-6)
    # Folding as if there were no border beats dropping the channel.
    gone = found.removed_mask
    assert gap < certify(traced, cut(traced, couplings, gone), inputs)


def test_a_channel_that_nothing_reads_goes_with_what_only_it_read():
    """Masking the outgoing weights of c frees it; then b's channel, read by c alone, and so on up."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))

    traced, couplings, inputs = prepared(Chain(), 5)
    keep_c, keep_b = np.ones((3, 6), bool), np.ones((6, 6), bool)
    keep_c[:, 1] = False
    keep_b[:, 4] = False
    keep_b[1, 4] = True  # a's channel 4 feeds b's channel 1 only
    mask = Mask({"c.weight": keep_c, "b.weight": keep_b})
    found = lossless(traced, couplings, mask, inputs)
    expected = {unit(couplings, "b.weight", 1), unit(couplings, "a.weight", 4)}
    assert set(found.removed.tolist()) == set(found.unused.tolist()) == expected
    assert same(apply_mask(traced, couplings, mask), found.small, inputs)
    assert found.small.graph.a.weight.shape == (5, 5)


def test_a_residual_channel_goes_only_when_every_member_is_dead():
    """One live producer in the sum keeps the channel; when all are masked it is a constant."""
    traced, couplings, inputs = fresh(Residual, 3, 5, 5)
    for name in ("stem", "a", "b"):
        set_rows(traced, f"{name}.bias", 1, -1.0)
        set_rows(traced, f"{name}.bias", 4, -1.0)
    for name in ("a.weight", "b.weight"):
        zero(traced, name, [1, 4])
    zero(traced, "stem.weight", [4])
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.tolist() == [unit(couplings, "stem.weight", 4)]
    assert same(traced, found.small, inputs)


def test_a_residual_channel_with_a_positive_constant_meets_the_border():
    """All members dead but the constant is positive and read through padding: it stays, with the reason."""
    traced, couplings, inputs = fresh(Residual, 3, 5, 5)
    for name in ("stem", "a", "b"):
        set_rows(traced, f"{name}.bias", 4, 2.0)
        zero(traced, f"{name}.weight", [4])
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0
    assert "border" in found.kept_reasons[unit(couplings, "stem.weight", 4)]


def test_a_channel_that_is_constant_only_on_these_inputs_stays():
    """A ReLU that never fires on the calibration data is no proof."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    set_rows(traced, "bn.bias", 2, -1e4)
    values = run(traced.graph, inputs[0])
    assert all(torch.isfinite(v).all() for v in values)
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0


def test_a_batch_norm_scale_of_zero_makes_a_constant():
    """Network slimming's zeros: the filter is alive, the norm shuts it off."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    set_rows(traced, "bn.weight", 3, 0.0)
    set_rows(traced, "bn.bias", 3, 2.0)
    found = lossless(traced, couplings, None, inputs)
    assert found.folded.tolist() == [unit(couplings, "a.weight", 3)]
    assert same(traced, found.small, inputs)


def test_equal_channels_merge_into_one():
    """Two equal filters with equal norms: one goes, its outgoing weights are added to the other's."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    state = state_tensors(traced.graph)
    for name in ("a.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        set_rows(traced, name, 5, state[name][1].detach().clone())
    found = lossless(traced, couplings, None, inputs)
    assert found.merged.size == found.removed.size == 1
    assert found.merged[0] in {unit(couplings, "a.weight", i) for i in (1, 5)}
    assert same(traced, found.small, inputs)


@pytest.mark.parametrize("name", ["a.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
def test_channels_that_differ_in_one_tensor_do_not_merge(name):
    """A twin must agree in its row and in every statistic; GELU would not forgive a factor."""
    traced, couplings, inputs = fresh(Gelu, 3, 7, 7)
    state = state_tensors(traced.graph)
    for other in ("a.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        if other != name:
            set_rows(traced, other, 5, state[other][1].detach().clone())
    assert lossless(traced, couplings, None, inputs).removed.size == 0


def test_twins_of_two_branches_merge_across_a_concat():
    """Branches with equal rows on the same input are one channel twice, whatever tensor holds them."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(9, 2, 1)

        def forward(self, x):
            return self.head(torch.tanh(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3))

    traced, couplings, inputs = prepared(Branches(), 3, 4, 4)
    state = state_tensors(traced.graph)
    set_rows(traced, "right.weight", 2, state["left.weight"][3].detach().clone())
    set_rows(traced, "right.bias", 2, state["left.bias"][3].detach().clone())
    found = lossless(traced, couplings, None, inputs)
    assert found.merged.size == 1
    assert same(traced, found.small, inputs)


def test_a_channel_scaled_after_its_twin_does_not_merge():
    """Equal rows, but half of the channels are doubled on the way: not equal at the reader."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            y = torch.tanh(self.a(x))
            return self.b(torch.cat([y[:, :3] * 2, y[:, 3:]], 1))

    traced, couplings, inputs = prepared(Halves(), 3)
    state = state_tensors(traced.graph)
    for name in ("a.weight", "a.bias"):
        set_rows(traced, name, 4, state[name][1].detach().clone())
        set_rows(traced, name, 5, state[name][3].detach().clone())
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.tolist() in ([unit(couplings, "a.weight", 5)], [unit(couplings, "a.weight", 3)])
    assert same(traced, found.small, inputs)


def test_a_positive_multiple_merges_through_relu_and_a_negative_one_does_not():
    """relu(s·z) = s·relu(z) for s > 0 only; the norm's shift and scale count as part of the row."""
    traced, couplings, inputs = fresh(Padded, 3, 7, 7)
    state = state_tensors(traced.graph)
    for source, target, factor in ((0, 3, 2.5), (1, 4, -2.5)):
        for name in ("a.weight", "bn.running_var", "bn.running_mean"):
            set_rows(traced, name, target, state[name][source].detach().clone())
        for name in ("bn.weight", "bn.bias"):
            set_rows(traced, name, target, factor * state[name][source].detach().clone())
    found = lossless(traced, couplings, None, inputs)
    assert found.merged.size == 1
    assert found.merged[0] in {unit(couplings, "a.weight", i) for i in (0, 3)}
    assert same(traced, found.small, inputs)


def test_linearly_dependent_channels_merge_where_nothing_bends_them():
    """Conv, batch norm, flatten, linear: a third row that combines two others goes."""

    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6 * 9, 4)

        def forward(self, x):
            return self.fc(self.bn(self.a(x)).flatten(1))

    traced, couplings, inputs = prepared(Straight(), 3, 5, 5)
    state = state_tensors(traced.graph)
    for name in ("bn.weight", "bn.running_var"):
        zero(traced, name, range(6), value=1.0)
    for name in ("bn.bias", "bn.running_mean"):
        zero(traced, name, range(6))
    for name in ("a.weight", "a.bias"):
        row = 0.7 * state[name][0] - 1.3 * state[name][1]
        set_rows(traced, name, 4, row.detach())
    found = lossless(traced, couplings, None, inputs)
    assert found.merged.size == 1
    assert same(traced, found.small, inputs)
    assert certify(traced, found.small, inputs) <= 1e-9


def test_a_linear_bottleneck_loses_the_channels_above_its_rank():
    """Twenty outputs of a rank-five product keep six rows at most (five and the bias)."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 20), nn.Linear(20, 4)

        def forward(self, x):
            return self.b(self.a(x))

    traced, couplings, inputs = prepared(Wide(), 5)
    found = lossless(traced, couplings, None, inputs)
    assert found.small.graph.a.weight.shape[0] == 6
    assert same(traced, found.small, inputs)


def test_a_dependent_row_behind_a_bend_stays():
    """tanh of a sum is not the sum of tanh."""

    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 20), nn.Linear(20, 4)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    traced, couplings, inputs = prepared(Bent(), 5)
    assert lossless(traced, couplings, None, inputs).removed.size == 0


def test_an_inexact_component_is_left_alone():
    """A layer norm averages over the channel: even a dead one counts, so it stays and says so."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            y = torch.relu(self.a(x))
            return self.b(y / (1 + y.mean(1, keepdim=True)))

    traced, couplings, inputs = prepared(Normed(), 5)
    assert not couplings.exact.all()
    zero(traced, "a.weight", [1])
    set_rows(traced, "a.bias", 1, -1.0)
    zero(traced, "b.weight", [1, 2], dim=1)
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0
    assert "mean" in found.kept_reasons[unit(couplings, "a.weight", 2)]


def test_a_constant_read_through_a_computed_weight_stays():
    """A weight that the graph computes cannot be edited: only the dead channel is reported, and why."""

    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
            self.gain = nn.Parameter(torch.rand(3, 6))

        def forward(self, x):
            return nn.functional.linear(torch.relu(self.a(x)), self.b.weight * self.gain, self.b.bias)

    traced, couplings, inputs = prepared(Gained(), 5)
    zero(traced, "a.weight", [1])
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0
    assert list(found.kept_reasons) == [unit(couplings, "a.weight", 1)]
    assert "computed weight" in found.kept_reasons[unit(couplings, "a.weight", 1)]


def test_a_hidden_unit_that_only_feeds_itself_stays():
    """Nothing outside reads the unit, but the next step of its own layer does: proof stops it, not luck."""

    traced, couplings, inputs = fresh(Recurrent, 3, 4)
    zero(traced, "head.weight", [2], dim=1)
    found = lossless(traced, couplings, None, inputs)
    assert found.removed.size == 0
    unit_2 = unit(couplings, "head.weight", 2, dim=1)
    assert unit_2 >= 0
    assert "feeds it back" in found.kept_reasons[unit_2]


def test_a_step_that_moves_an_output_is_undone_and_the_others_are_kept(monkeypatch):
    """With the proof switched off the certificate still finds the one culprit among innocent steps."""
    monkeypatch.setattr("edgeprune.simplify.lossless.escaping", lambda *_: {})
    traced, couplings, inputs = fresh(Recurrent, 3, 4)
    zero(traced, "head.weight", [2], dim=1)
    zero(traced, "out.weight", [0, 3, 4], dim=1)
    found = lossless(traced, couplings, None, inputs)
    innocent = {unit(couplings, "out.weight", i, dim=1) for i in (0, 3, 4)}
    assert set(found.removed.tolist()) == innocent
    assert "undone" in found.kept_reasons[unit(couplings, "head.weight", 2, dim=1)]
    assert same(traced, found.small, inputs)


def test_the_last_channel_of_a_layer_stays():
    """A layer masked whole keeps one channel, so that the graph keeps its shape."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    mask = Mask({"a.weight": np.zeros((6, 3, 3, 3), bool)})
    found = lossless(traced, couplings, mask, inputs)
    assert found.small.graph.a.weight.shape[0] == 1
    assert "the last channel of its layer" in found.kept_reasons.values()
    assert same(apply_mask(traced, couplings, mask), found.small, inputs)


def test_masks_of_prune_hooks_enter_and_lose_nothing():
    """torch.nn.utils.prune, structured and unstructured, to a smaller graph with equal outputs."""
    net = Valid(bias=True)
    torch.manual_seed(3)
    prune.ln_structured(net.a, "weight", amount=2, n=2, dim=0)
    prune.l1_unstructured(net.b, "weight", 0.5)
    plain, mask = fuse_pruned(net)
    traced, couplings, inputs = prepared(plain, 3, 7, 7)
    found = lossless(traced, couplings, mask, inputs)
    assert found.removed.size >= 2
    assert same(traced, found.small, inputs)


def test_the_full_size_result_takes_further_cuts():
    """cut(full, couplings, removed | more) equals cutting the small one by hand."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    zero(traced, "a.weight", [2])
    found = lossless(traced, couplings, None, inputs)
    assert same(traced, found.full, inputs)
    assert same(traced, found.trace, inputs)
    assert analyse(found.trace).count == couplings.count - 1
    more = found.removed_mask
    more[unit(couplings, "b.weight", 0)] = True
    both = cut(found.full, found.couplings, more)
    assert state_tensors(both.graph)["b.weight"].shape == (3, 5, 3, 3)
    assert state_tensors(both.graph)["b.bias"].shape == (3,)


def test_float32_is_certified_within_its_tolerance():
    """The same rounds in float32 stay within 1e-5 of the largest output."""
    torch.manual_seed(0)
    net = Valid().eval()
    net.bn.bias.data[2] = 3.0
    net.a.weight.data[2] = 0.0
    net.a.weight.data[4] = net.a.weight.data[1] * 2
    net.bn.bias.data[4] = net.bn.bias.data[1] * 2
    inputs = [(torch.randn(2, 3, 7, 7),)]
    traced = trace(net, inputs[0])
    found = lossless(traced, analyse(traced), None, inputs)
    assert found.removed.size == 2
    largest = run(traced.graph, inputs[0])[0].abs().max()
    assert certify(traced, found.small, inputs) <= 1e-5 * largest


def test_a_shared_layer_folds_each_call_into_its_own_bias():
    """One convolution called on two inputs: the constants differ, so do the new biases."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.shared, self.head = nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x):
            left = torch.tanh(self.shared(torch.tanh(self.a(x))))
            right = torch.tanh(self.shared(torch.tanh(self.b(x))))
            return self.head(left * right).mean((2, 3))

    traced, couplings, inputs = prepared(Shared(), 3, 4, 4)
    for name, value in (("a", 1.0), ("b", -0.5)):
        zero(traced, f"{name}.weight", [2])
        set_rows(traced, f"{name}.bias", 2, value)
    found = lossless(traced, couplings, None, inputs)
    assert found.folded.tolist() == [unit(couplings, "a.weight", 2)]
    assert found.biases == 2
    assert same(traced, found.small, inputs)


def test_nothing_that_was_given_changes():
    """The trace, its weights and the couplings are as they were."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    before = {k: v.detach().clone() for k, v in state_tensors(traced.graph).items()}
    tensors = dict(couplings.tensors)
    code = traced.graph.code
    lossless(traced, couplings, Mask({"a.weight": np.arange(162).reshape(6, 3, 3, 3) > 40}), inputs)
    assert traced.graph.code == code
    assert couplings.tensors == tensors
    assert all(torch.equal(before[k], v) for k, v in state_tensors(traced.graph).items())


def test_a_network_with_nothing_to_remove_passes_through():
    """One layer, all of it output: no component, no error, the same function."""
    traced, couplings, inputs = prepared(nn.Linear(3, 2), 3)
    assert couplings.count == 0
    found = lossless(traced, couplings, Mask({}), inputs)
    assert found.removed.size == 0
    assert found.max_abs == 0.0


def test_without_inputs_there_is_no_certificate():
    """No real inputs, no removal."""
    traced, couplings, _ = fresh(Valid, 3, 7, 7)
    with pytest.raises(TraceError, match="certificate needs inputs"):
        lossless(traced, couplings, None, [])


def test_a_mask_of_another_model_is_refused():
    """The name that does not exist is in the message."""
    traced, couplings, inputs = fresh(Valid, 3, 7, 7)
    with pytest.raises(MaskError, match="'nope'"):
        lossless(traced, couplings, Mask({"nope": np.ones(2, bool)}), inputs)


def test_complex_constants_that_differ_in_one_part_have_labels_of_their_own():
    """A label without the imaginary part would call i and 0 the same constant."""
    found = bits(torch.tensor([0j, 1j, 1 + 0j, 1j]))
    assert len(set(found.tolist())) == 3
    assert found[1] == found[3]
