"""Couple a trace and prove every movement operator by trial removals.

Guarantee: an operator that moves elements is left free only where its rewritten form commuted with
two trial removals; each one that did not is pinned with its reason.
Elsewhere: the operator rules (couple, rules_*), how arguments follow (rewrite), cutting (surgery).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings, FactorChoice
from edgeprune.coupling.couple import couple
from edgeprune.coupling.replay import commutes, is_replayed, removes_whole_periods
from edgeprune.coupling.rewrite import rewrite
from edgeprune.coupling.sizes import Sizes
from edgeprune.errors import TraceError
from edgeprune.graph.module import source_line
from edgeprune.graph.trace import Trace


def analyse(
    traced: Trace, *, keep: Sequence[str] = (), seed: int = 0, choice: FactorChoice | None = None
) -> Couplings:
    """Couple a trace; movement that does not commute with removal is pinned.

    Two trial removals of a random half test every movement operator; each one that
    fails is pinned with its reason and the coupling is repeated.
    """
    frozen: dict[str, str] = {}
    while True:
        couplings = couple(traced, keep=keep, frozen=frozen, choice=choice)
        failed: dict[str, str] = {}
        for trial in range(2):
            sizes = Sizes(couplings, random_half(couplings, seed + trial))
            for node in traced.graph.graph.nodes:
                moved = is_replayed(node) and sizes.changes(node)
                if not removes_whole_periods(node, couplings) or (
                    moved and not _replays(node, sizes, traced)
                ):
                    failed[node.name] = f"{node.target} at {source_line(node)} does not commute with removal"
        if not failed:
            return couplings
        frozen.update(failed)


def _replays(node: fx.Node, sizes: Sizes, traced: Trace) -> bool:
    try:
        return commutes(node, rewrite(node, sizes), sizes, traced.graph)
    except TraceError:  # a size that cannot be written
        return False


def random_half(couplings: Couplings, seed: int) -> BoolArray:
    """About half of every group, never all of a channel_map."""
    rng = np.random.default_rng(seed)
    removed = rng.random(couplings.count) < 0.5
    for _ in range(len(couplings.channel_maps)):
        empty = couplings.emptied(removed)
        if not empty:
            break
        for channel_map in empty:
            removed[couplings.channel_maps[channel_map][0]] = False
    return removed
