"""How long a network takes on a machine at other widths: measured once, predicted anywhere.

profile_model(traced, couplings, target=…)   measure, on this machine or a board (measuring)
read_profile(path), write_profile(path, p)   the file (profiles)
check_compatibility(profile, …)              refuse or warn when it is of another machine
require_network(profile, traced, couplings)  refuse one of another network
latency_cost(profile, traced, couplings)     predicted p50 ms of a removal (costs)
layer_times(profile)                         a row per layer shape: its time and its steps
whole_errors(profile)                        predicted against measured, of networks left out (holdout)
roofline(target, traced, couplings)          an estimate from the descriptor, marked as one
instruction_prices(…).cost_of(…)             emulated instructions, a ranking signal, marked as one

A cost is called with a removal, as planning wants it, and says what it is: `unit`, `source`,
`estimate`, `dense` (its value for the network as it is), `warnings`.
"""

from __future__ import annotations

from edgeprune.latency.costs import LatencyCost, latency_cost, layer_times
from edgeprune.latency.holdout import whole_errors
from edgeprune.latency.instructions import InstructionPrices, instruction_prices
from edgeprune.latency.measuring import profile_model
from edgeprune.latency.profile_compatibility import check_compatibility, require_network
from edgeprune.latency.profiles import Profile, read_profile, write_profile
from edgeprune.latency.roofline import roofline

__all__ = [
    "InstructionPrices",
    "LatencyCost",
    "Profile",
    "check_compatibility",
    "instruction_prices",
    "latency_cost",
    "layer_times",
    "profile_model",
    "read_profile",
    "require_network",
    "roofline",
    "whole_errors",
    "write_profile",
]
