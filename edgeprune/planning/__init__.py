"""How much each group gives up: budgets, measured sensitivity in, a Plan out. No torch."""

from __future__ import annotations

from edgeprune.planning.allocate import allocate, cheapest
from edgeprune.planning.bounds import paired_drop, share_interval
from edgeprune.planning.budget import Budget, parse_share
from edgeprune.planning.groups import Curve, uniform

__all__ = [
    "Budget", "Curve", "allocate", "cheapest", "paired_drop", "parse_share", "share_interval", "uniform",
]  # fmt: skip
