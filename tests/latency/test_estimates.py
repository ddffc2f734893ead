"""Estimates for boards that are not at hand: what they count, and that they are called estimates."""

import numpy as np
import pytest
import torch
from profile_samples import small_network

from edgeprune.coupling.analysis import analyse
from edgeprune.deploy.emulation import find_sandbox
from edgeprune.errors import BenchError, DeviceError
from edgeprune.graph.trace import trace
from edgeprune.latency import instruction_prices, roofline
from edgeprune.latency.instructions import fit_prices
from edgeprune.latency.measuring import draw_widths
from edgeprune.latency.resizing import keep_shares
from edgeprune.latency.work import Work
from edgeprune.targets import load_target


@pytest.fixture(scope="module")
def network():
    return small_network()


def test_work_is_the_arithmetic_that_couplings_count(network):
    """Multiply-adds add up to Couplings.macs at any removal; weights are the stored elements."""
    traced, couplings = network
    work = Work(traced, couplings)
    for removed in draw_widths(couplings, 5, 0):
        assert work.at(removed).macs.sum() == pytest.approx(couplings.macs(removed))
    dense = work.at(np.zeros(couplings.count, bool))
    assert dense.weights.sum() == 16 * 3 * 9 + 32 * 16 * 9 + 10 * 32
    assert dense.written.max() == 32 * 8 * 8


def test_every_matrix_of_a_recurrent_operator_counts():
    """One operator with two layers in two directions does all the arithmetic that couplings count."""
    net = torch.nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True).eval()
    traced = trace(net, (torch.randn(2, 7, 6),))
    couplings = analyse(traced)
    removed = np.zeros(couplings.count, bool)
    assert couplings.macs(removed) > 0
    assert Work(traced, couplings).at(removed).macs.sum() == pytest.approx(couplings.macs(removed))


def test_a_roofline_is_called_an_estimate_and_falls_with_removal(network):
    """Its unit is not plain ms, its source names the descriptor, and less to compute is never slower."""
    traced, couplings = network
    found = roofline(load_target("rpi4"), traced, couplings)
    assert found.estimate
    assert found.unit == "estimated ms (roofline)"
    assert "rpi4" in found.source
    prices = [found(keep_shares(couplings, np.full(2, share))) for share in (1.0, 0.75, 0.5, 0.25)]
    assert prices == sorted(prices, reverse=True)
    assert found.dense == prices[0]
    assert roofline(load_target("rpi5"), traced, couplings).dense < found.dense


def test_instruction_prices_are_found_in_counts(network):
    """Counts that follow a price per multiply-add and per inference are predicted at other widths."""
    traced, couplings = network

    def law(removed):
        return 0.5 * couplings.macs(removed) + 20_000

    removals = draw_widths(couplings, 8, 0)
    counts = fit_prices(traced, couplings, removals, [law(r) for r in removals], "cortex-a72")
    found = counts.cost_of(traced, couplings)
    assert (found.estimate, found.unit) == (True, "emulated instructions")
    for removed in draw_widths(couplings, 5, 1):
        assert found(removed) == pytest.approx(law(removed), rel=0.01)


def test_too_few_networks_or_an_unknown_core_are_refused(network):
    """Before anything is exported; without a sandbox the message says how to make one."""
    with pytest.raises(BenchError, match="at least 3"):
        instruction_prices(*network, "cortex-a72", networks=2)
    with pytest.raises(
        DeviceError, match="sandbox is not there" if find_sandbox() is None else "known cores"
    ):
        instruction_prices(*network, "cortex-x9")
