"""Which tensor indices can only be removed together.

Importing the package registers every operator rule; `couple` walks a Trace with them.
"""

from __future__ import annotations

from edgeprune.coupling import (
    rules_attention,
    rules_index,
    rules_norm,
    rules_products,
    rules_recurrent,
    rules_shape,
)

__all__ = [
    "rules_attention",
    "rules_index",
    "rules_norm",
    "rules_products",
    "rules_recurrent",
    "rules_shape",
]
