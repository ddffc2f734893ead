"""The table of operators with every entry in it: importing this module imports all rules."""

from __future__ import annotations

from edgeprune.coupling import (  # noqa: F401  # importing them registers their entries
    rules_attention,
    rules_elementwise,
    rules_index,
    rules_layers,
    rules_movement,
    rules_norm,
    rules_order,
    rules_products,
    rules_recurrent,
    rules_reduce,
    rules_shape,
)
from edgeprune.coupling.opspec import TABLE, OpSpec, spec_of

__all__ = ["TABLE", "OpSpec", "spec_of"]
