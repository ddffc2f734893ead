"""Rewrite the shape constants that exported graphs bake into arguments.

Each operator's entry in the table says how (`OpSpec.rewrite`). Symbolic sizes (the free batch, and
products with it) are shared between nodes, so where such a size shrinks the *argument* becomes -1;
the size node itself is never touched.
"""

from __future__ import annotations

from torch import fx

from edgeprune.coupling.operators import spec_of
from edgeprune.coupling.opspec import NewCall, naming
from edgeprune.coupling.sizes import Sizes


def rewrite(node: fx.Node, sizes: Sizes) -> NewCall:
    """Target and arguments of a node under a removal; unchanged where nothing is baked in.

    Raises:
        TraceError: a size that cannot be written, or an operator used in a way that is not known.
    """
    spec = spec_of(node.target)
    if spec is None or spec.rewrite is None:
        return node.target, node.args, node.kwargs
    with naming(node, "rewrite of its arguments"):
        return spec.rewrite(node, sizes)
