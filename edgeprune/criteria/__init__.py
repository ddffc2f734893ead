"""Which component matters: one file per criterion, one contract.

    scores = score("ib-gauss", Context(trace, couplings, statistics))

Scores rank within a group only; how much each group gives up is planning's business.
A third party adds a criterion with the entry point group `edgeprune.criteria`.
"""

from __future__ import annotations

from edgeprune.criteria.base import Context, Scores
from edgeprune.criteria.registry import BUILT_IN, find, score

__all__ = ["BUILT_IN", "Context", "Scores", "find", "score"]
