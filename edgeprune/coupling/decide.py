"""Decide which of two free factors in one dimension may be removed.

A label that depends on heads and width meets a partner that depends on width alone
(a per-head norm, a rotary table). Either heads are free and the partner stays, or
widths are free and all heads follow the partner. Whoever computes may have chosen by
now (attention: heads); where nobody has, the side with most units wins.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgeprune.coupling.labels import varying
from edgeprune.coupling.ties import Deferred, Ties


def decide(ties: Ties, roots: np.ndarray, free: np.ndarray) -> bool:
    """Settle deferred meetings; True when a tie or a pin was added.

    Those that need no choice come first; choices are made one at a time, because each
    may settle others.
    """
    changed, first = False, None
    for meeting in ties.deferred:
        grid, partner = _grid(meeting)
        unit, theirs = _units(grid, roots, free), _units(partner, roots, free)
        by_row, by_column = bool((unit != unit[:1]).any()), bool((unit != unit[:, :1]).any())
        if by_row and by_column:
            first = first or (meeting, grid, partner, unit, theirs)
        elif by_column and (unit[0] != theirs).any():
            _follow(ties, meeting, grid, partner)
            changed = True
        elif not by_column and (theirs >= 0).any():
            ties.pin(torch.from_numpy(partner), meeting.reason)
            changed = True
    if not changed and first is not None:
        meeting, grid, partner, unit, theirs = first
        rows = units_left(unit, 0)
        columns = units_left(np.where(theirs < 0, -1, unit), 1)
        if rows >= columns:
            _across(ties, grid, meeting.reason)
            ties.pin(torch.from_numpy(partner), meeting.reason)
        else:
            _follow(ties, meeting, grid, partner)
        changed = True
    return changed


def units_left(unit: np.ndarray, dim: int) -> int:
    """How many removable units remain when every slice along `dim` becomes one; -1 marks pinned."""
    rows = np.moveaxis(unit, dim, 0).reshape(unit.shape[dim], -1)
    names, index = np.unique(rows, return_inverse=True)
    index = index.reshape(rows.shape)
    slices = np.repeat(np.arange(len(rows)), rows.shape[1])
    graph = coo_array(
        (np.ones(index.size), (slices, len(rows) + index.reshape(-1))), shape=(len(rows) + len(names),) * 2
    )
    count, roots = connected_components(graph, directed=False)
    pinned = np.unique(roots[len(rows) :][names < 0])
    return int(count - len(pinned))


def _grid(meeting: Deferred) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of the label, shape (own, shared), and of the partner, shape (shared,)."""
    label, shared = meeting.label, varying(meeting.partner)
    own_dims = [d for d in varying(label) if d not in shared]
    rest = [d for d in range(label.dim()) if d not in shared and d not in own_dims]
    grid = label.permute(*own_dims, *shared, *rest).reshape(math.prod(label.shape[d] for d in own_dims), -1)
    return grid.numpy(), meeting.partner.reshape(-1).numpy()


def _units(atoms: np.ndarray, roots: np.ndarray, free: np.ndarray) -> np.ndarray:
    return np.where(free[roots[atoms]] & (atoms != 0), roots[atoms], -1)


def _across(ties: Ties, rows: np.ndarray, reason: str) -> None:
    """Everything within a row goes together."""
    atoms = torch.from_numpy(np.ascontiguousarray(rows))
    ties.tie(atoms[:, :1].expand_as(atoms), atoms, reason)


def _follow(ties: Ties, meeting: Deferred, grid: np.ndarray, partner: np.ndarray) -> None:
    _across(ties, np.concatenate([partner[None], grid]).T, meeting.reason)
