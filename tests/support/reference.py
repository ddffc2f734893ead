"""Brute-force NumPy twins of the C++ core: slow, short, and written from the definitions alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def codes(x: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Number of thresholds that are not above each value."""
    out = np.empty(x.shape, np.uint8)
    for channel in range(x.shape[1]):
        out[:, channel] = np.searchsorted(thresholds[channel], x[:, channel], side="right")
    return out


def joint_counts(
    code: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], bins: int, classes: int
) -> npt.NDArray[np.uint32]:
    """Count pairs one by one: (channels, bins, classes)."""
    out = np.zeros((code.shape[1], bins, classes), np.uint32)
    for channel in range(code.shape[1]):
        np.add.at(out[channel], (code[:, channel], labels), 1)
    return out


def information(table: npt.NDArray[np.uint32]) -> float:
    """Plug-in I of one (bins, classes) table: sum p log(p / (p_b p_k))."""
    p = table / table.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / independent[seen])))


def entropy(table: npt.NDArray[np.uint32]) -> float:
    """Plug-in H of the rows of one (bins, classes) table."""
    p = table.sum(1) / table.sum()
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def miller_madow(table: npt.NDArray[np.uint32]) -> float:
    """Plug-in information less the bias of H(T) + H(Y) - H(T,Y) by occupied cells."""
    cells = np.count_nonzero(table)
    rows = np.count_nonzero(table.sum(1))
    columns = np.count_nonzero(table.sum(0))
    return information(table) - (cells - rows - columns + 1) / (2 * int(table.sum()))


def edge_score(
    x: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    classes: int,
    weight: float,
    step: float,
    theta: float,
) -> float:
    """(1 - theta) I + theta H of one connection, quantised directly, both Miller-Madow corrected."""
    reach = float(np.abs(x).max())
    if weight == 0 or reach == 0:
        return 0.0
    delta = max(step / abs(weight), reach / 127)
    if delta >= 2 * reach:
        return 0.0
    q = np.floor(x.astype(np.float64) / delta + 0.5).astype(int)
    table = np.zeros((q.max() - q.min() + 1, classes), np.uint32)
    np.add.at(table, (q - q.min(), labels), 1)
    rows = np.count_nonzero(table.sum(1))
    return (1 - theta) * miller_madow(table) + theta * (entropy(table) + (rows - 1) / (2 * len(x)))


def backward_elimination(
    consumers: list[tuple[Floats, Floats, npt.NDArray[np.int32]]], units: int
) -> tuple[list[int], Floats, Floats]:
    """Eliminate by refitting everything from scratch at every step.

    consumers: (covariance, weights already divided by tau, unit of each input). The compensated
    weights minimise the output error, W'_K = W_K + W_P S_PK inv(S_KK), from the original ones.
    """
    gone: list[int] = []
    score_at_removal = np.zeros(units)
    initial = np.zeros(units)
    for step in range(units):
        scores = np.full(units, np.inf)
        for unit in range(units):
            if unit in gone:
                continue
            scores[unit] = 0
            for covariance, weights, unit_of in consumers:
                kept = np.flatnonzero(~np.isin(unit_of, gone))
                lost = np.flatnonzero(np.isin(unit_of, gone))
                own = np.flatnonzero(unit_of[kept] == unit)
                if own.size == 0:
                    continue
                s_kk = covariance[np.ix_(kept, kept)]
                fitted = weights[:, kept] + weights[:, lost] @ covariance[np.ix_(lost, kept)] @ np.linalg.inv(
                    s_kk
                )
                conditional = np.linalg.inv(np.linalg.inv(s_kk)[np.ix_(own, own)])
                scores[unit] += 0.5 * np.log1p(np.trace(fitted[:, own] @ conditional @ fitted[:, own].T))
        if step == 0:
            initial = scores.copy()
        pick = int(np.argmin(scores))
        score_at_removal[pick] = scores[pick]
        gone.append(pick)
    return gone, score_at_removal, initial
