"""From points to the milliseconds of a removal, without timing anything."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from profile_samples import conv_ms, gemm_ms, interval, made_up, small_network

from edgeprune.errors import BenchError
from edgeprune.latency import latency_cost, layer_times, whole_errors
from edgeprune.latency.fitting import choose_scheme, fit_overhead, fit_table
from edgeprune.latency.holdout import points_by_network
from edgeprune.latency.resizing import keep_shares


@pytest.fixture(scope="module")
def network():
    return small_network()


def table_of(law, count=80, top=64, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(1, top, (count, 2)).astype(float)
    return np.array([(i, o, law(i, o)) for i, o in pairs])


def test_cliffs_and_blocks_are_found_in_the_points():
    """A law with a cliff at multiples of 4 and blocks of 8 is predicted to 3% at every pair of widths."""
    table = table_of(conv_ms)
    model = fit_table(table, choose_scheme([table]))
    assert model.scheme.inputs == (4,)
    assert 8 in model.scheme.out_blocks
    grid = [(i, o) for i in range(3, 60, 5) for o in range(2, 60, 3)]
    errors = [abs(model(i, o) / conv_ms(i, o) - 1) for i, o in grid]
    assert max(errors) < 0.03


def test_no_multiple_is_assumed_where_cost_is_smooth():
    """On a processor without cliffs there is one class and no block."""
    table = table_of(lambda i, o: 0.02 + 0.0003 * i * o + 0.0002 * i)
    scheme = choose_scheme([table])
    assert (scheme.inputs, scheme.outputs, scheme.in_block, scheme.out_blocks) == ((), (), 1, (1,))


def test_a_pass_of_four_blocks_is_found():
    """Where 40 outputs cost as much as 64, prediction knows it."""

    def law(i, o):
        return 0.01 + 0.0002 * i * np.ceil(o / 32) * 32 + 0.0001 * i * np.ceil(o / 8) * 8

    table = table_of(law, top=96)
    model = fit_table(table, choose_scheme([table]))
    assert model(32, 40) / model(32, 32) == pytest.approx(law(32, 40) / law(32, 32), rel=0.03)


def test_one_point_still_gives_a_function():
    """A shape that was seen at its dense widths only is predicted to shrink and never below zero."""
    model = fit_table(np.array([[16.0, 32.0, 0.5]]), choose_scheme([]))
    assert model(16, 32) == pytest.approx(0.5)
    assert 0 <= model(8, 16) < 0.5


def test_what_the_profiler_takes_is_taken_out():
    """Whole runs without the profiler tell its time per operator from the session's constant."""
    profile = made_up(watching=0.001)
    overhead = fit_overhead(profile)
    for whole in profile.wholes:
        net = whole.operators_ms - overhead.watching_ms * whole.operators
        assert overhead.whole_ms(net) == pytest.approx(whole.p50_ms.value, rel=0.01)


def test_the_cost_of_a_removal_is_the_law_at_its_widths(network):
    """Extents are found by tensor name: what is removed narrows both layers that share the channels."""
    traced, couplings = network
    cost = latency_cost(made_up(80), traced, couplings)
    assert (cost.unit, cost.estimate) == ("ms", False)
    for shares in ((1.0, 1.0), (0.5, 0.75), (0.25, 0.5)):
        removed = keep_shares(couplings, np.array(shares))
        kept = couplings.kept(removed)
        i, o = (int(kept[e]) for e in couplings.tensors["second.weight"][1::-1])
        assert cost(removed) == pytest.approx(conv_ms(i, o) + gemm_ms(o) + 0.003, rel=0.08)
    assert cost(np.zeros(couplings.count, bool)) == cost.dense


def test_pricing_starts_no_process_and_asks_no_clock(network, monkeypatch):
    """A profile plans with no board present: nothing is run."""

    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    traced, couplings = network
    assert latency_cost(made_up(), traced, couplings).dense > 0


def test_a_profile_of_another_network_is_refused(network):
    """Tensors that are not there, or are wider here than there, are not priced by chance."""
    traced, couplings = network
    profile = made_up()
    first = profile.layers[0]
    for outputs in (replace(first.outputs, tensor="other.weight"), replace(first.outputs, dense=4)):
        wrong = replace(profile, layers=(replace(first, outputs=outputs), *profile.layers[1:]))
        with pytest.raises(BenchError, match="another network"):
            latency_cost(wrong, traced, couplings)


def test_every_layer_shape_is_explained():
    """The summary has each shape's time and the steps that were found."""
    rows, error = layer_times(made_up(80))
    assert [row["shape"] for row in rows] == list(made_up().shapes)
    assert rows[0]["dense_ms"] == pytest.approx(conv_ms(16, 32), rel=0.05)
    assert error is not None
    assert error < 0.05


def test_whole_networks_are_predicted_without_having_been_seen():
    """Four fits, each without the networks that it predicts; with known laws errors are small, not nil."""
    found = whole_errors(made_up(80))
    assert found.networks == 80
    assert 0 < found.median <= found.p90 <= found.worst
    assert found.median < 0.03
    assert whole_errors(made_up(8)) is None


def test_a_network_that_follows_no_law_shows_in_the_error_of_whole_networks():
    """One of the networks took twice as long as its layers say: it is not explained by its own points."""
    profile = made_up(80)
    odd = profile.wholes[40]
    slow = replace(odd, p50_ms=interval(2 * odd.p50_ms.value))
    found = whole_errors(replace(profile, wholes=(*profile.wholes[:40], slow, *profile.wholes[41:])))
    assert found.worst == pytest.approx(0.5, abs=0.1) and found.median < 0.03


def test_points_are_led_back_to_the_networks_that_gave_them():
    """Also where a layer gave none in one network, fused away as it was."""
    profile = made_up(10)
    thinned = tuple(p for n, p in enumerate(profile.points) if n != 5)
    parts = points_by_network(replace(profile, points=thinned))
    assert [len(p) for p in parts] == [2, 2, 1] + [2] * 8
    assert tuple(p for part in parts for p in part) == thinned
