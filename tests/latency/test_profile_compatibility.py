"""A profile prices its own network and no other, whatever the names have in common."""

from dataclasses import replace

import pytest
import torch
from profile_samples import made_up, small_network
from torch import nn

import edgeprune
from edgeprune.coupling.analysis import analyse
from edgeprune.errors import BenchError
from edgeprune.graph.trace import trace
from edgeprune.latency import profile_model, read_profile, require_network, write_profile
from edgeprune.latency.profile_compatibility import fingerprint
from edgeprune.surgery.cut import cut, retrace
from edgeprune.targets import load_target


def network(*widths, kernel=3):
    """Convolutions named c0, c1, ... of these widths, and a classifier named head."""
    net = nn.Sequential()
    for n, (i, o) in enumerate(zip((1, *widths), widths, strict=False)):
        net.add_module(f"c{n}", nn.Conv2d(i, o, kernel, padding=kernel // 2))
        net.add_module(f"r{n}", nn.ReLU())
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(widths[-1], 10))
    return net.eval()


def chain(*widths, kernel=3, size=8):
    """Its trace and couplings."""
    traced = trace(network(*widths, kernel=kernel), (torch.randn(2, 1, size, size),))
    return traced, analyse(traced)


@pytest.fixture(scope="module")
def measured():
    """A profile of three convolutions, measured for a moment."""
    return profile_model(*chain(8, 16, 24), target=load_target("host"), networks=1, seconds=0.05)


@pytest.mark.parametrize(
    "other",
    [
        chain(8, 16, 24, 24),  # a layer more, and every name of the profile is there
        chain(8, 16),  # a layer fewer
        chain(8, 12, 24),  # narrower somewhere: what latency_cost takes for a pruned one
        chain(8, 16, 24, kernel=5),
        chain(8, 16, 24, size=12),
    ],
)
def test_a_profile_of_another_network_is_refused(measured, other):
    """More or fewer layers, other widths, kernels and input sizes; in one line, with what to do."""
    with pytest.raises(BenchError, match="the profile is of another network") as caught:
        require_network(measured, *other)
    assert "\n" not in str(caught.value)
    assert "edgeprune profile" in caught.value.tip


def test_other_weights_of_the_same_network_are_the_same_network(measured, tmp_path):
    """Training does not make a profile void, and the file keeps what it was measured of."""
    require_network(measured, *chain(8, 16, 24))
    write_profile(tmp_path / "p.json", measured)
    assert read_profile(tmp_path / "p.json").network == measured.network == fingerprint(*chain(8, 16, 24))


def test_a_file_without_a_fingerprint_is_held_to_its_names(measured):
    """What was written before fingerprints still serves its own network, and no other."""
    old = replace(measured, network=None)
    require_network(old, *chain(8, 16, 24))
    require_network(made_up(), *small_network())
    for widths, says in (
        ((8, 16, 24, 24), "it has no layer c3"),
        ((8, 16), "is not here"),
        ((8, 12, 24), "has 16 there and 12 here"),
    ):
        with pytest.raises(BenchError, match=says):
            require_network(old, *chain(*widths))


def test_what_is_left_of_the_network_after_a_round_is_still_priced(measured):
    """Later rounds ask for prices of a smaller network; only the dense one has to be the profile's own."""
    from edgeprune.latency import latency_cost
    from edgeprune.latency.resizing import keep_shares

    traced, couplings = chain(8, 16, 24)
    removed = keep_shares(couplings, torch.full((len(couplings.group_names),), 0.5).numpy())
    again = retrace(cut(traced, couplings, removed))
    assert (
        0
        < latency_cost(measured, again, analyse(again)).dense
        < latency_cost(measured, traced, couplings).dense * 2
    )


def test_compress_refuses_the_profile_of_another_network(measured, tmp_path):
    """Layers that the profile does not know would be planned as if they cost nothing."""
    write_profile(tmp_path / "p.json", measured)
    settings = {"speedup": 1.5, "criterion": "l2", "example_inputs": torch.randn(2, 1, 8, 8)}
    with pytest.raises(BenchError, match="another network"):
        edgeprune.compress(
            network(8, 16, 24, 24), profile=str(tmp_path / "p.json"), output=tmp_path / "run", **settings
        )
    assert not (tmp_path / "run").exists()
