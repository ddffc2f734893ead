"""A recipe applied to the user's own class: sliced, updated, proven, or refused with the line."""

from __future__ import annotations

import inspect

import nets
import numpy as np
import pytest
import torch
from generate import draw_removal
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.errors import ModelError, TraceError
from edgeprune.graph.trace import run, trace
from edgeprune.surgery.apply import apply_recipe
from edgeprune.surgery.cut import cut
from edgeprune.surgery.recipe import recipe


def made(net, inputs, seed=3):
    traced = trace(net, inputs)
    couplings = analyse(traced)
    removed = draw_removal(couplings, seed)
    assert removed.any()
    return recipe(traced, couplings, removed), run(cut(traced, couplings, removed).graph, inputs)


# What the class itself cannot carry: sizes written into a forward, layers of one module that differ.
REFUSED = {
    "shuffle": r"nets_images.py:\d+: Given groups",
    "view": r"nets_images.py:\d+: shape .* read at or below nets_images.py:\d+",
    "split": r"nets_rare.py:\d+: split_with_sizes",
    "detector": r"nets_detect.py:\d+: Given groups",
    "padding": r"nets_rare.py:\d+: Given groups",
    "attention_fused": r"nets_sequences.py:\d+: shape",
    "attention_packed": r"'packed' at nets_sequences.py:\d+: 3 of 4 heads stay, 6 channels inside",
    "lstm": r"nn.LSTM 'rnn' at nets_sequences.py:\d+: its layers keep 1, 3 units",
    "gru_bidirectional": r"nn.GRU 'rnn' at nets_sequences.py:\d+: its layers keep 2, 3 units",
}


@pytest.mark.parametrize("name", nets.NETS)
def test_sliced_class_computes_what_the_cut_graph_computes_or_is_refused_with_a_line(name):
    """On every pattern, in double precision to 1e-9; the module that was given stays as it was."""
    net, inputs = nets.build(name)
    traced = nets.traced(name)
    couplings = analyse(traced)
    removed = draw_removal(couplings, 3)
    plan = recipe(traced, couplings, removed)
    before = [x.clone() for x in leaves(net(*inputs))]
    if name in REFUSED:
        with pytest.raises(TraceError, match=REFUSED[name]):
            apply_recipe(net, plan, inputs, traced)
    else:
        applied = apply_recipe(net, plan, inputs, traced)
        expected = run(cut(traced, couplings, removed).graph, inputs)
        for a, b in zip(leaves(applied.module(*inputs)), expected, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-9)
        count = [sum(p.numel() for p in m.parameters()) for m in (applied.module, net)]
        assert count[0] < count[1] or not plan["tensors"]
    for a, b in zip(leaves(net(*inputs)), before, strict=True):
        assert torch.equal(a, b)


def leaves(out):
    return torch.utils._pytree.tree_leaves(out)


def removal(couplings, **wanted):
    """Remove the components at these indices of dimensions: `weight__0=[1]` for w.shape[0]."""
    removed = np.zeros(couplings.count, bool)
    for spot, indices in wanted.items():
        name, dim = spot.replace("_dot_", ".").rsplit("__", 1)
        units = couplings.channel_maps[couplings.tensors[couplings.aliases[name]][int(dim)]]
        removed[units[indices]] = True
    return removed


class Stacked(nn.Module):
    """Two layers, both directions, in one module."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def test_recurrent_layers_that_keep_equally_many_units_stay_one_module():
    """Which units go differs by layer; hidden_size and the flat weights follow."""
    torch.manual_seed(0)
    net, inputs = Stacked().double().eval(), (torch.randn(2, 6, 4, dtype=torch.float64),)
    traced = trace(net, inputs)
    couplings = analyse(traced)
    removed = removal(couplings, rnn_dot_weight_hh_l0__1=[0, 3], rnn_dot_weight_hh_l1__1=[1, 2])
    applied = apply_recipe(net, recipe(traced, couplings, removed), inputs, traced)
    assert applied.attributes["rnn.hidden_size"] == (5, 3)
    expected = run(cut(traced, couplings, removed).graph, inputs)[0]
    assert torch.allclose(applied.module(*inputs), expected, rtol=0, atol=1e-9)


class Attending(nn.Module):
    """torch's attention between two layers that give its outer width."""

    def __init__(self):
        super().__init__()
        self.stem, self.attend, self.head = nn.Linear(5, 8), nn.MultiheadAttention(8, 4), nn.Linear(8, 3)

    def forward(self, x):
        y = torch.relu(self.stem(x))
        return self.head(self.attend(y, y, y, need_weights=False)[0])


def test_torch_attention_loses_a_head_where_the_outer_width_falls_by_a_head():
    """Its one embed_dim holds both widths; a head alone is refused, as the zoo shows."""
    torch.manual_seed(0)
    net, inputs = Attending().double().eval(), (torch.randn(6, 2, 5, dtype=torch.float64),)
    traced = nets.quick_trace(net, inputs)
    couplings = analyse(traced)
    removed = removal(couplings, attend_dot_out_proj_dot_weight__1=[2, 3], stem_dot_weight__0=[1, 6])
    removed |= removal(couplings, attend_dot_out_proj_dot_weight__0=[0, 5])
    applied = apply_recipe(net, recipe(traced, couplings, removed), inputs, traced)
    assert applied.attributes["attend.num_heads"] == (4, 3)
    expected = run(cut(traced, couplings, removed).graph, inputs)[0]
    assert torch.allclose(applied.module(*inputs), expected, rtol=0, atol=1e-9)


class Encoded(nn.Module):
    """torch's own encoder: layers share the outer width, each one's attention has an inner width."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True)
        self.stem, self.encoder = nn.Linear(5, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x)))


def test_all_attention_that_cannot_be_expressed_is_named_at_once_and_the_tip_works():
    """A tip for the first layer alone led to the same refusal of the second."""
    torch.manual_seed(0)
    net, inputs = Encoded().double().eval(), (torch.randn(2, 6, 5, dtype=torch.float64),)
    traced = nets.quick_trace(net, inputs)
    couplings = analyse(traced)
    removed = removal(couplings, stem_dot_weight__0=[1])
    paths = [f"encoder.layers.{i}.self_attn" for i in range(2)]
    with pytest.raises(TraceError) as error:
        apply_recipe(net, recipe(traced, couplings, removed), inputs, traced)
    assert all(f"'{path}' at test_apply.py:" in error.value.message for path in paths)
    assert f"--keep {paths[0]} --keep {paths[1]}, which" in error.value.tip
    removed = removal(couplings, **{"encoder_dot_layers_dot_1_dot_linear1_dot_weight__0": [2, 7]})
    apply_recipe(net, recipe(traced, couplings, removed), inputs, traced)


class Reshaped(nn.Module):
    """Two widths that are attributes, with the same value; then the number itself, three lines below."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 4, 4
        self.qkv, self.out = nn.Linear(8, 48), nn.Linear(16, 4)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(
            y.reshape(n, t, 16),
        )


def test_the_guess_that_got_furthest_gives_the_line():
    """The first guess takes heads and width for the same number and fails where the forward is right."""
    torch.manual_seed(0)
    net, inputs = Reshaped().double().eval(), (torch.randn(2, 6, 8, dtype=torch.float64),)
    plan, _ = made(net, inputs)
    source, start = inspect.getsourcelines(Reshaped.forward)
    line = start + next(i for i, text in enumerate(source) if "y.reshape" in text)
    with pytest.raises(TraceError, match=rf"does not reach: test_apply.py:{line}: shape"):
        apply_recipe(net, plan, inputs)


def test_computed_weights_become_parameters_and_the_class_that_was_given_keeps_them():
    """Both kinds of weight norm are gone where a weight was sliced, and stay in the user's module."""
    net, inputs = nets.build("weight_norm")
    plan, expected = made(net, inputs)
    applied = apply_recipe(net, plan, inputs)
    assert torch.allclose(applied.module(*inputs), expected[0], rtol=0, atol=1e-9)
    for name in "a.weight", "b.weight":
        assert applied.attributes[name] == ("computed", "a parameter")
        assert isinstance(applied.module.get_parameter(name), nn.Parameter)
    held = dict(net.named_parameters())
    assert {"a.parametrizations.weight.original0", "b.weight_g"} <= set(held)
    assert net.a.weight.shape[0] > applied.module.a.weight.shape[0]


class Sized(nn.Module):
    """Keeps its sizes in a list, on the class, and as a product; two of the numbers are the same."""

    groups = 4

    def __init__(self):
        super().__init__()
        self.sizes, self.time, self.flat = [4, 3], 4, 28
        self.a, self.b = nn.Conv1d(3, 7, 1), nn.Conv1d(4, 4, 1, groups=4)
        self.head = nn.Linear(28, 3)

    def forward(self, x):
        x = self.a(x)
        p, q = x.split(self.sizes, 1)
        p = self.b(p).view(x.shape[0], self.groups, -1, self.time).flatten(1, 2)
        return self.head(torch.cat([torch.relu(p), q], 1).reshape(-1, self.flat))


def test_lists_class_attributes_and_equal_numbers_are_told_apart():
    """Four channels and four steps are the same number; running the module says which one shrank."""
    torch.manual_seed(0)
    net, inputs = Sized().double().eval(), (torch.randn(2, 3, 4, dtype=torch.float64),)
    traced = nets.quick_trace(net, inputs)
    couplings = analyse(traced)
    removed = removal(couplings, a_dot_weight__0=[1, 5])
    applied = apply_recipe(net, recipe(traced, couplings, removed), inputs, traced)
    changed = applied.attributes
    assert changed["sizes"] == ((4, 3), (3, 2))
    assert changed["flat"] == (28, 20)
    assert changed["groups"] == (4, 3)
    assert applied.module.sizes == [3, 2]
    assert "time" not in changed
    assert Sized.groups == 4


class Headed(nn.Module):
    """Reads its number of heads from an attribute, or has it written into its forward."""

    def __init__(self, *, literal=False):
        super().__init__()
        self.qkv, self.out, self.heads, self.literal = nn.Linear(8, 45), nn.Linear(15, 4), 5, literal

    def forward(self, x):
        n, t, _ = x.shape
        heads = 5 if self.literal else self.heads
        q, k, v = self.qkv(x).view(n, t, 3, heads, 3).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, t, 3 * heads))


def test_attributes_that_the_forward_reads_are_updated():
    """The number of heads is found as the only size of that value that shrank inside the module."""
    torch.manual_seed(0)
    net, inputs = Headed().double().eval(), (torch.randn(2, 6, 8, dtype=torch.float64),)
    plan, expected = made(net, inputs)
    applied = apply_recipe(net, plan, inputs)
    assert torch.allclose(applied.module(*inputs), expected[0], rtol=0, atol=1e-9)
    assert applied.attributes["heads"] == (5, applied.module.heads)


def test_a_size_written_into_the_forward_is_refused_with_its_line():
    """There is nothing to update, so the message names the line that fails."""
    torch.manual_seed(0)
    net, inputs = Headed(literal=True).double().eval(), (torch.randn(2, 6, 8, dtype=torch.float64),)
    plan, _ = made(net, inputs)
    with pytest.raises(TraceError, match=r"reads a size that slicing does not reach: test_apply.py:\d+"):
        apply_recipe(net, plan, inputs)


def test_a_recipe_of_another_model_is_refused():
    """Unknown names, other shapes, and indices that cut a component in two."""
    net, inputs = nets.build("chain")
    plan, _ = made(net, inputs)
    other, images = nets.build("residual")
    with pytest.raises(ModelError, match=r"has no such tensor|does not fit|the model differs"):
        apply_recipe(other, plan, images)
    kept = plan["tensors"]["a.weight"]["keep"]["0"]
    broken = {"tensors": {**plan["tensors"]}}
    broken["tensors"]["a.weight"] = {
        **plan["tensors"]["a.weight"],
        "keep": {"0": np.setdiff1d(np.arange(6), kept)[:1].tolist()},
    }
    with pytest.raises(ModelError, match="does not fit this model"):
        apply_recipe(net, broken, inputs)
