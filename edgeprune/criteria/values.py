"""Values of a group's components per sample, for criteria that look at activations.

A component's value at a source is the mean of its channels there, reduced over positions;
a residual stream has several sources, one for each place where layers read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune import information
from edgeprune.criteria.base import Context, FloatArray

Values = npt.NDArray[np.float32]


def group_values(context: Context, group: int) -> list[Values]:
    """One array (samples, members) per distinct source that is read, members in component order."""
    members = np.flatnonzero(context.couplings.group == group)
    values_of: dict[tuple[str, int], Any] = {}
    for layer, statistics, vector in context.readers(group):
        at = (layer.source, layer.channel_dim)
        if at in values_of or statistics.reduced is None:
            continue
        mine = vector >= 0
        local = np.searchsorted(members, vector[mine])
        share = np.bincount(local, minlength=len(members)).astype(np.float32)
        mixing = np.zeros((int(mine.sum()), len(members)), np.float32)
        mixing[np.arange(len(local)), local] = 1.0
        values_of[at] = (statistics.reduced[:, mine] @ mixing) / np.maximum(share, np.float32(1.0))
    return list(values_of.values())


def silent(values: Sequence[Values]) -> npt.NDArray[np.bool_]:
    """Members that take one value only, at every source, shape (members,)."""
    flat = [x.max(0) - x.min(0) <= 1e-7 * np.abs(x).max(0, initial=0.0) for x in values]
    return np.asarray(np.logical_and.reduce(flat))


def label_nats(values: Values, labels: npt.NDArray[np.int64], bins: int) -> FloatArray:
    """I(T;Y) of each member, Miller-Madow corrected, shape (members,)."""
    codes = information.quantize(values, bins=bins)
    return information.mutual_information(information.joint_counts(codes, labels, int(labels.max()) + 1))


def by_pick(picked: Sequence[int], worth: Sequence[float], rest: npt.NDArray[np.bool_]) -> FloatArray:
    """Keep scores from a forward selection, shape (members,).

    A member is worth what it added when it was picked, and no more than the one before it, so
    that the scores order as the picks; `rest` (silent members) comes below all.
    """
    scores = np.zeros(len(rest))
    if len(picked):
        scores[list(picked)] = np.minimum.accumulate(worth) - 1e-12 * np.arange(len(picked))
    scores[rest] = (scores[~rest].min() if (~rest).any() else 0.0) - 1.0
    return scores
