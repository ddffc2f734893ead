"""Ridge regression from streamed moments, its strength chosen on rows that were held out."""

from __future__ import annotations

from typing import Any

import torch

RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean second moment


class GramMoments:
    """Second moments of rows x (n, features) and targets y (n, outputs), float64."""

    def __init__(self) -> None:
        self.n = 0
        self.xx: Any = 0.0
        self.xy: Any = 0.0
        self.yy: Any = 0.0
        self.x: Any = 0.0
        self.y: Any = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """More rows."""
        self.n += len(x)
        self.xx = self.xx + x.T @ x
        self.xy = self.xy + x.T @ y
        self.yy = self.yy + (y**2).sum(0)
        self.x = self.x + x.sum(0)
        self.y = self.y + y.sum(0)

    def central(self, centred: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """E[xxᵀ], E[xyᵀ] and E[y²], about the means or about zero."""
        n = max(self.n, 1)
        if not centred:
            return self.xx / n, self.xy / n, self.yy / n
        x, y = self.x / n, self.y / n
        return self.xx / n - torch.outer(x, x), self.xy / n - torch.outer(x, y), self.yy / n - y**2

    def offset(self, solution: torch.Tensor) -> torch.Tensor:
        """What is left of the mean of y after the solution, shape (outputs,)."""
        return self.y / self.n - (self.x / self.n) @ solution


def best_ridge(
    train: GramMoments, held: GramMoments, centred: bool
) -> tuple[torch.Tensor, float, float, float]:
    """Solution (features, outputs), its ridge, and the held-out error without and with it."""
    xx, xy, _ = train.central(centred)
    hxx, hxy, hyy = held.central(centred)
    level = xx.diagonal().mean().clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(xx)
    rotated = vectors.T @ xy
    best: tuple[float, float, torch.Tensor] | None = None
    for ridge in RIDGES:
        solution = vectors @ (rotated / (values.clamp_min(0) + ridge * level)[:, None])
        error = float(hyy.sum() - 2 * (solution * hxy).sum() + (solution * (hxx @ solution)).sum())
        if best is None or error < best[0]:
            best = (error, ridge, solution)
    assert best is not None
    return best[2], best[1], float(hyy.sum()), best[0]


def best_dual(
    x: torch.Tensor, y: torch.Tensor, held: torch.Tensor, centred: bool
) -> tuple[torch.Tensor, torch.Tensor, float, float, float]:
    """The same from fewer rows than features, through the rows' own Gram matrix.

    Gives the solution (features, outputs), the offset (outputs,), the ridge and both errors.
    `held` marks the rows that choose the ridge, boolean (rows,).
    """
    nothing = (x.new_zeros(x.shape[1]), y.new_zeros(y.shape[1]))
    mean_x, mean_y = (x[~held].mean(0), y[~held].mean(0)) if centred else nothing
    rows, wanted = x[~held] - mean_x, (y[~held] - mean_y).double()
    fresh, after = x[held] - mean_x, (y[held] - mean_y).double()
    gram = (rows @ rows.T).double() / len(rows)
    across = (fresh @ rows.T).double()
    level = (gram.diagonal().sum() / x.shape[1]).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(gram)
    rotated = vectors.T @ wanted / len(rows)
    best: tuple[float, float, torch.Tensor] | None = None
    for ridge in RIDGES:
        dual = vectors @ (rotated / (values.clamp_min(0) + ridge * level)[:, None])
        error = float((after - across @ dual).square().sum(1).mean())
        if best is None or error < best[0]:
            best = (error, ridge, dual)
    assert best is not None
    solution = (rows.T @ best[2].to(rows.dtype)).double()
    offset = mean_y.double() - mean_x.double() @ solution
    return solution, offset, best[1], float(after.square().sum(1).mean()), best[0]


def held_out(chosen: torch.Tensor, rows: int, samples: int) -> torch.Tensor:
    """A fifth of the chosen rows, of samples of their own: positions of one sample resemble each other."""
    sample = chosen // max(1, rows // max(samples, 1))
    seen = sample >= max(1, samples * 4 // 5)
    if not seen.any() or seen.all():
        seen = torch.arange(len(chosen)) >= max(1, len(chosen) * 4 // 5)
    return seen
