"""Information about the label in thousands of channels, fast, exact where it counts, and mergeable.

    from edgeprune import information
    codes = information.quantize(x, bins=32)                     # x (samples, channels)
    counts = information.joint_counts(codes, labels, classes=10)
    nats = information.mutual_information(counts)                # (channels,)

The validated NumPy face of the C++ core; usable alone, without torch. All
information is in nats. Errors are `edgeprune.errors.DataError`.
"""

from __future__ import annotations

from edgeprune.information.codes import Codes, Edges, encode, find_edges, fixed_edges, quantize, sketch_rows
from edgeprune.information.counts import joint_counts
from edgeprune.information.edge import edge_information
from edgeprune.information.estimators import (
    TableStatistics,
    conditional_entropy,
    entropy,
    mutual_information,
    table_statistics,
)
from edgeprune.information.gauss import Consumer, Elimination, backward_elimination
from edgeprune.information.significance import false_discovery, p_values

__all__ = [
    "Codes",
    "Consumer",
    "Edges",
    "Elimination",
    "TableStatistics",
    "backward_elimination",
    "conditional_entropy",
    "edge_information",
    "encode",
    "entropy",
    "false_discovery",
    "find_edges",
    "fixed_edges",
    "joint_counts",
    "mutual_information",
    "p_values",
    "quantize",
    "sketch_rows",
    "table_statistics",
]
