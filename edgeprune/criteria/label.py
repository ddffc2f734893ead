"""What each channel says of the label by itself: I(T;Y) with its p-value.

Not a criterion (alone it picks redundant channels and loses to random once the rest is
compensated), but what `explain` shows beside every score.
"""

from __future__ import annotations

import numpy as np

from edgeprune import information
from edgeprune.calibration.capture import mixing_layers
from edgeprune.criteria.base import Context, FloatArray

BINS = 32


def channel_label_information(context: Context) -> tuple[FloatArray, FloatArray] | None:
    """I(T;Y) in nats and the p-value of independence per component, (count,) each; None without classes.

    T is a channel's value reduced over positions; a component takes its most informative
    channel. Independence is tested on the uncorrected counts, see `information.p_values`.
    """
    if context.statistics is None or context.statistics.labels is None:
        return None
    couplings, labels = context.couplings, context.statistics.labels
    nats, p_value = np.zeros(couplings.count), np.ones(couplings.count)
    seen: set[tuple[str, int]] = set()
    for layer in mixing_layers(couplings):
        vector = couplings.channel_maps[layer.inputs]
        free = vector >= 0
        values = context.statistics.layers[layer.node].reduced
        if (layer.source, layer.channel_dim) in seen or values is None or not free.any():
            continue
        seen.add((layer.source, layer.channel_dim))
        codes = information.quantize(values, bins=BINS)
        counts = information.joint_counts(codes, labels, int(labels.max()) + 1)
        np.maximum.at(nats, vector[free], information.mutual_information(counts)[free])
        np.minimum.at(p_value, vector[free], information.p_values(counts)[free])
    return nats, p_value
