"""Which channels go together, on one tiny network per pattern."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from patterns import quick_trace
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice


def coupled(name, **options):
    return analyse(nets.traced(name), **options)


def of(couplings, tensor, dim=0):
    """Component of every index of a state tensor's dimension; -1 for those that stay."""
    channel_map = couplings.tensors[couplings.aliases[tensor]][dim]
    return couplings.channel_maps[channel_map]


def free(vector):
    return int((vector >= 0).sum())


def test_residual_add_ties_both_branches_channel_by_channel():
    """What the stem writes at i is what the branch writes at i; the inner layer is on its own."""
    c = coupled("residual")
    assert np.array_equal(of(c, "stem.weight"), of(c, "b.weight"))
    assert np.array_equal(of(c, "stem.weight"), of(c, "bn.weight"))
    assert not set(of(c, "a.weight")) & set(of(c, "b.weight"))
    assert free(of(c, "a.weight")) == 7


def test_concat_keeps_each_branch_channel_separate():
    """Channel i of the right branch is input 8 + i of the reader and no other; the image's stay."""
    c = coupled("concat")
    reads = of(c, "next.weight", 1)
    assert np.array_equal(reads[:5], of(c, "left.weight"))
    assert np.array_equal(reads[8:], of(c, "right.weight"))
    assert (reads[5:8] == -1).all()


def test_depthwise_ties_input_to_output():
    """One channel through a depthwise convolution is one component, its norm included."""
    c = coupled("depthwise")
    assert np.array_equal(of(c, "up.weight"), of(c, "dw.weight"))
    assert np.array_equal(of(c, "dw.weight"), of(c, "down.weight", 1))


def test_grouped_convolution_goes_by_whole_groups():
    """Three inputs and two outputs of each of four groups form one component."""
    c = coupled("grouped")
    assert np.array_equal(of(c, "a.weight"), np.repeat(of(c, "g.weight")[::2], 3))
    assert len(set(of(c, "g.weight"))) == 4


def test_grouped_convolution_by_position_on_request():
    """The same position of every group instead: three input and two output components."""
    c = coupled("grouped", choice=FactorChoice(groups="position"))
    assert len(set(of(c, "a.weight"))) == 3
    assert len(set(of(c, "g.weight"))) == 2
    assert not set(of(c, "a.weight")) & set(of(c, "g.weight"))


def test_shuffle_keeps_channels_free():
    """Interleaving two halves leaves every channel of the stem a component of its own."""
    c = coupled("shuffle")
    assert len(set(of(c, "stem.weight"))) == 8


def test_flatten_spreads_a_channel_over_its_positions():
    """Sixteen inputs of the linear layer per channel."""
    c = coupled("flatten")
    assert np.array_equal(of(c, "fc1.weight", 1), np.repeat(of(c, "a.weight"), 16))


def test_pixel_shuffle_ties_the_four_channels_of_a_finer_one():
    """Four channels before, one after."""
    c = coupled("pixel_shuffle")
    assert np.array_equal(of(c, "up.weight"), np.repeat(of(c, "b.weight", 1), 4))


def test_tied_weight_is_one_tensor():
    """All three readers share one set of components, inputs tied to outputs by the chain."""
    c = coupled("tied")
    (name,) = {c.aliases[n] for n in ("b.weight", "c.weight") if n in c.aliases}
    assert np.array_equal(of(c, name, 0), of(c, name, 1))
    assert np.array_equal(of(c, name, 0), of(c, "a.weight"))
    assert free(of(c, name)) == 8


def test_unknown_operator_pins_with_its_name_and_line():
    """The channels that reach it stay, the reason says where, and the others are free."""
    c = coupled("unknown")
    assert (of(c, "a.weight") == -1).all()
    assert free(of(c, "b.weight")) == 5
    reasons = [p for p in c.pins if "has no rule" in p.reason]
    assert len(reasons) == 1
    assert reasons[0].reason.startswith("aten.cummax at nets_rare.py:")
    assert reasons[0].channels == 6


def test_roll_along_channels_is_pinned():
    """It maps labels well and still moves the wrong ones once some are gone."""
    c = coupled("roll")
    assert (of(c, "a.weight") == -1).all()
    assert free(of(c, "b.weight")) == 5


def test_outputs_stay_whole():
    """Every output is pinned, in whatever structure it is returned."""
    c = coupled("outputs")
    assert (of(c, "b.weight") == -1).all()
    assert (of(c, "c.weight") == -1).all()
    assert {p.reason for p in c.pins if p.reason.startswith("output")} == {
        "output 'conv2d_2'",
        "output 'relu_1'",
    }


def test_named_layers_stay():
    """`keep` pins a layer by its module path."""
    c = coupled("chain", keep=["b"])
    assert (of(c, "b.weight") == -1).all()
    assert free(of(c, "a.weight")) == 6
    assert any(p.reason == "kept by request" for p in c.pins)


@pytest.mark.parametrize(
    "name",
    [
        "attention",
        "attention_masked",
        "attention_by_hand",
        "attention_einsum",
        "attention_rotary",
        "attention_expanded",
    ],
)
def test_attention_frees_whole_heads(name):
    """Queries, keys, values and the output's inputs of one head are one exact component."""
    c = coupled(name)
    q, k, v, out = of(c, "q.weight"), of(c, "k.weight"), of(c, "v.weight"), of(c, "out.weight", 1)
    heads, groups = nets.NETS[name].heads, nets.NETS[name].groups
    dim = len(q) // heads
    assert np.array_equal(q, out)
    assert np.array_equal(k, v)
    assert np.array_equal(q[:: dim * heads // groups], k[::dim])
    assert len(set(q)) == groups
    assert c.exact[q].all()


def test_grouped_queries_go_with_their_key_value_head():
    """Two of four query heads per key-value head."""
    c = coupled("attention_grouped")
    assert np.array_equal(of(c, "q.weight"), np.repeat(of(c, "k.weight")[::3], 6))


def test_fused_projections_lose_the_same_head_three_times():
    """One weight holds queries, keys and values; a head is three stretches of it."""
    c = coupled("attention_fused")
    rows = of(c, "qkv.weight").reshape(3, 4, 3)
    assert (rows == rows[:1, :, :1]).all()


def test_head_width_on_request():
    """The same positions of every head; queries and keys apart from values; products are not exact."""
    c = coupled("attention", choice=FactorChoice(heads="width"))
    q, v = of(c, "q.weight").reshape(4, 3), of(c, "v.weight").reshape(4, 3)
    assert (q == q[:1]).all()
    assert (v == v[:1]).all()
    assert len(set(q[0])) == 3
    assert not set(q[0]) & set(v[0])
    assert not c.exact[q[0]].any()
    assert c.contracted[q[0]].all()
    assert c.exact[v[0]].all()


def test_layers_of_an_lstm_have_their_own_width():
    """Two stacked layers are split apart on load, so five and five units are free."""
    c = coupled("lstm")
    gates = of(c, "rnn.weight_ih_l0").reshape(4, 5)
    assert (gates == gates[:1]).all()
    assert np.array_equal(gates[0], of(c, "rnn.weight_hh_l0", 1))
    assert np.array_equal(gates[0], of(c, "rnn.weight_ih_l1", 1))
    assert not set(gates[0]) & set(of(c, "rnn.weight_ih_l1"))
    assert np.array_equal(of(c, "rnn.weight_ih_l0", 1), of(c, "stem.weight"))


def test_vocabulary_stays_and_width_is_free_but_not_exact():
    """The table is also the output layer: its rows are outputs, its width meets a layer norm."""
    c = coupled("words")
    assert c.tensors["embed.weight"][0] is not None
    assert (of(c, "embed.weight", 0) == -1).all()
    assert free(of(c, "embed.weight", 1)) == 8
    assert not c.exact[of(c, "embed.weight", 1)].any()
    assert any("layer_norm" in reason for reason in c.inexact_reasons)


def test_small_groups_of_a_norm_go_whole_and_large_ones_by_position():
    """Whole groups stay exact; the same positions of two large groups change their averages."""
    c = coupled("group_norm")
    many, few = of(c, "many.weight"), of(c, "few.weight")
    assert np.array_equal(many, np.repeat(many[::2], 2))
    assert c.exact[many].all()
    assert np.array_equal(few[:4], few[4:])
    assert not c.exact[few].any()


def test_costs_are_macs_of_one_sample():
    """Convolution: positions × taps × in × out; linear: in × out."""
    c = coupled("chain")
    assert c.macs() == 64 * 9 * 3 * 6 + 64 * 9 * 6 * 5 + 5 * 4
    removed = np.zeros(c.count, bool)
    removed[of(c, "a.weight")[:2]] = True
    assert c.macs(removed) == 64 * 9 * 3 * 4 + 64 * 9 * 4 * 5 + 5 * 4


def test_costs_of_attention_and_recurrence_shrink_with_their_units():
    """Scores and mixing of a head; gates of a hidden unit, squared in the recurrent weight."""
    c = coupled("attention")
    removed = np.zeros(c.count, bool)
    before = c.macs()
    removed[of(c, "q.weight")[0]] = True
    projections, products = 6 * 8 * 3 * 4, 2 * 6 * 6 * 3
    assert before - c.macs(removed) == projections + products
    c = coupled("lstm")
    steps = [6 * 4 * (7 * 5 + 5 * 5), 6 * 4 * (5 * 5 + 5 * 5)]
    assert c.macs() == 6 * 8 * 7 + sum(steps) + 5 * 3


def test_same_graph_gives_the_same_couplings():
    """Nothing depends on object identity or on the order of a set."""
    a, b = coupled("dense"), coupled("dense")
    assert a.tensors == b.tensors
    assert all(np.array_equal(x, y) for x, y in zip(a.channel_maps, b.channel_maps, strict=True))
    assert np.array_equal(a.group, b.group)


def test_batch_is_never_tracked():
    """With a free batch as with a fixed one, the same channels are free."""
    assert analyse(nets.traced("lstm", full=True)).count == coupled("lstm").count


@pytest.mark.parametrize("name", ["attention_buckets", "attention_hidden", "attention_cosine"])
def test_tables_of_positions_and_scales_per_head_leave_heads_free(name):
    """Four heads of queries, keys and values; the column of the table and the scale go with their head."""
    c = coupled(name)
    width = 3 if name == "attention_cosine" else 1
    weight = "qkv.weight" if name == "attention_cosine" else "q.weight"
    rows = of(c, weight).reshape(width, 4, 3)
    assert (rows == rows[:1, :, :1]).all()
    assert len(set(rows[0, :, 0])) == 4
    assert c.exact[rows[0, :, 0]].all()
    table = {"attention_buckets": ("table.weight", 1), "attention_cosine": ("scale", 0)}.get(name)
    assert table is None or np.array_equal(of(c, *table), rows[0, :, 0])


def test_elementwise_operators_are_known_under_every_name():
    """Those without torch's tag as well: nothing between the first and the last layer is pinned."""
    c = coupled("other_names")
    assert free(of(c, "a.weight")) == 6
    assert free(of(c, "b.weight")) == 5


def test_layers_with_weight_or_spectral_norm_are_free_and_exact():
    """What their weights are computed from is folded: inputs and outputs are those of plain layers."""
    c = coupled("weight_norm")
    assert [free(of(c, f"{n}.weight")) for n in "abcde"] == [6, 5, 7, 6, 4]
    assert np.array_equal(of(c, "a.weight"), of(c, "b.weight", 1))
    assert c.exact.all()


def test_a_projected_lstm_has_cells_and_outputs_of_their_own():
    """Cells go with gates and columns of the projection, outputs with its rows and with what is fed back."""
    c = coupled("lstm_projected_once")
    gates = of(c, "rnn.weight_ih_l0").reshape(4, 8)
    assert (gates == gates[:1]).all()
    assert np.array_equal(gates[0], of(c, "rnn.weight_hr_l0", 1))
    assert np.array_equal(of(c, "rnn.weight_hr_l0"), of(c, "rnn.weight_hh_l0", 1))
    assert np.array_equal(of(c, "rnn.weight_hr_l0"), of(c, "head.weight", 1))
    assert free(of(c, "rnn.weight_hr_l0")) == 4
    assert free(gates[0]) == 8 - 4 - 1  # with as many cells as outputs the operator would see no projection
    assert c.macs() == 6 * (32 * 7 + 32 * 4 + 8 * 4) + 4 * 3


def test_operators_without_a_rule_are_counted_in_the_cost():
    """A convolution of one image without a batch is pinned, and its products are still there."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.conv(x))

    c = analyse(quick_trace(Net().eval(), (torch.randn(3, 8, 8),)))
    assert any("conv2d" in p.reason and "no rule" in p.reason for p in c.pins)
    assert c.macs() * 3 == 64 * 9 * 3 * 6 + 6 * 8 * 8 * 4  # dimension 0, of size 3, is taken for the samples


def test_what_is_compared_along_positions_leaves_channels_free():
    """topk, sort, median and their like pin only what they run along."""
    for name in ("topk", "compared"):
        c = coupled(name)
        assert [free(of(c, f"{n}.weight")) for n in "ab"] == [6, 5]
        assert c.exact.all()
    c = coupled("topk_channels")
    assert [free(of(c, f"{n}.weight")) for n in "ab"] == [6, 0]
    assert any("aten.topk at nets_compared.py" in p.reason for p in c.pins)


def test_a_token_that_passes_no_convolution_loses_the_widths_that_the_others_lose():
    """The convolution works on the width of every head, so widths stay free."""
    c = coupled("attention_pooled")
    q, k, v = (of(c, f"{n}.weight").reshape(4, 3) for n in "qkv")
    assert np.array_equal(q, k)
    for rows in (k, v):
        assert (rows == rows[:1]).all()
        assert len(set(rows[0]) - {-1}) == 3
    assert c.exact[v].all()
