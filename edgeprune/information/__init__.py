"""Information about the label in thousands of channels: fast, exact where it counts, mergeable.

    from edgeprune import information
    codes = information.quantize(x, bins=32)                     # x (samples, channels)
    counts = information.joint_counts(codes, labels, classes=10)
    nats = information.mutual_information(counts)                # (channels,)

The validated NumPy face of the C++ core; usable alone, without torch. All
information is in nats. Errors are `edgeprune.errors.DataError`.
"""

from __future__ import annotations

from edgeprune.information.accumulators import EdgeCounts, JointCounts
from edgeprune.information.bootstrap import Intervals, bootstrap_intervals
from edgeprune.information.codes import Codes, Edges, encode, find_edges, fixed_edges, quantize, sketch_rows
from edgeprune.information.copula import copula_information, copula_label_information, normal_scores
from edgeprune.information.counts import joint_counts
from edgeprune.information.covariance import Covariance, Moments, covariance
from edgeprune.information.edge import edge_information
from edgeprune.information.estimators import (
    TableStatistics,
    conditional_entropy,
    entropy,
    label_information,
    mutual_information,
    table_statistics,
)
from edgeprune.information.gauss import Consumer, Elimination, backward_elimination
from edgeprune.information.integer_covariance import IntegerCovariance
from edgeprune.information.labels import bin_targets, multilabel_information
from edgeprune.information.neighbours import mixed_information, ross_information
from edgeprune.information.selection import Selection, jmi_selection, joint_information
from edgeprune.information.significance import false_discovery, p_values
from edgeprune.information.soft import SoftCounts, soft_joint_counts

__all__ = [
    "Codes",
    "Consumer",
    "Covariance",
    "EdgeCounts",
    "Edges",
    "Elimination",
    "IntegerCovariance",
    "Intervals",
    "JointCounts",
    "Moments",
    "Selection",
    "SoftCounts",
    "TableStatistics",
    "backward_elimination",
    "bin_targets",
    "bootstrap_intervals",
    "conditional_entropy",
    "copula_information",
    "copula_label_information",
    "covariance",
    "edge_information",
    "encode",
    "entropy",
    "false_discovery",
    "find_edges",
    "fixed_edges",
    "jmi_selection",
    "joint_counts",
    "joint_information",
    "label_information",
    "mixed_information",
    "multilabel_information",
    "mutual_information",
    "normal_scores",
    "p_values",
    "quantize",
    "ross_information",
    "sketch_rows",
    "soft_joint_counts",
    "table_statistics",
]
