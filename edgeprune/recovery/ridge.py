"""Ridge regression from streamed moments, its strength chosen on images that were held out.

Three forms: one Gram matrix for all outputs (best_ridge), one small Gram matrix per group of a grouped
convolution (best_grouped_ridge), and the dual form for fewer rows than features (best_dual).

Guarantee: where the targets are zero the solution is zero, whatever the ridge.
Elsewhere: which rows (fits), what is fitted to what (closed_form).
"""

from __future__ import annotations

from typing import Any

import torch

RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean second moment
FOLD = 5  # every fifth image chooses the ridge


class GramMoments:
    """Second moments of rows x (n, features) and targets y (n, outputs), float64.

    With a leading dimension of groups, x (groups, n, features) and y (groups, n, outputs).
    """

    def __init__(self) -> None:
        self.n = 0
        self.xx: Any = 0.0
        self.xy: Any = 0.0
        self.yy: Any = 0.0
        self.x: Any = 0.0
        self.y: Any = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """More rows."""
        self.n += x.shape[-2]
        self.xx = self.xx + x.mT @ x
        self.xy = self.xy + x.mT @ y
        self.yy = self.yy + (y**2).sum(-2)
        self.x = self.x + x.sum(-2)
        self.y = self.y + y.sum(-2)

    def __add__(self, other: GramMoments) -> GramMoments:
        total = GramMoments()
        for name in ("n", "xx", "xy", "yy", "x", "y"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def central(self, centred: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """E[xxᵀ], E[xyᵀ] and E[y²], about the means or about zero."""
        n = max(self.n, 1)
        if not centred:
            return self.xx / n, self.xy / n, self.yy / n
        x, y = self.x / n, self.y / n
        outer = x[..., :, None]
        return (
            self.xx / n - outer * x[..., None, :],
            self.xy / n - outer * y[..., None, :],
            self.yy / n - y**2,
        )

    def offset(self, solution: torch.Tensor) -> torch.Tensor:
        """What is left of the mean of y after the solution, shape (outputs,) or (groups, outputs)."""
        return self.y / self.n - (self.x[..., None, :] / self.n @ solution)[..., 0, :]


def best_ridge(
    train: GramMoments, held: GramMoments, centred: bool, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, float, float, float]:
    """Solution (features, outputs) on all rows, its ridge, and the held-out error without and with it.

    Args:
        weights: what an output's squared error counts when ridges are compared, shape (outputs,).
    """
    hxx, hxy, hyy = held.central(centred)
    importance = torch.ones_like(hyy) if weights is None else weights
    before = float((hyy * importance).sum())
    best: tuple[float, float] | None = None
    solve = _ridge_solver(train, centred)
    for ridge in RIDGES:
        solution = solve(ridge)
        change = (solution * (hxx @ solution - 2 * hxy)).sum(0)
        error = before + float((change * importance).sum())
        if best is None or error < best[0]:
            best = (error, ridge)
    assert best is not None
    return _ridge_solver(train + held, centred)(best[1]), best[1], before, best[0]


def _ridge_solver(moments: GramMoments, centred: bool) -> Any:
    """A function from a ridge to the solution."""
    xx, xy, _ = moments.central(centred)
    level = xx.diagonal().mean().clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(xx)
    rotated = vectors.T @ xy
    return lambda ridge: vectors @ (rotated / (values.clamp_min(0) + ridge * level)[:, None])


def best_grouped_ridge(
    train: GramMoments, held: GramMoments, centred: bool, weights: torch.Tensor
) -> tuple[torch.Tensor, float, float, float]:
    """One regression per group: solution (groups, features, outputs), median ridge, both held-out errors.

    Each group takes its own ridge, or stays at zero if none lowers its held-out error.

    Args:
        weights: what an output's squared error counts in the errors, shape (groups, outputs).
    """
    hxx, hxy, hyy = held.central(centred)
    least = (hyy * weights).sum(-1)  # (groups,): the error of no change
    before = float(least.sum())
    chosen = torch.zeros_like(least)  # 0: no change
    solve = _grouped_solver(train, centred)
    for ridge in RIDGES:
        solution = solve(torch.full_like(least, ridge))
        change = (solution * (hxx @ solution - 2 * hxy)).sum(-2)
        error = ((hyy + change) * weights).sum(-1)
        chosen = torch.where(error < least, ridge, chosen)
        least = torch.minimum(error, least)
    moved = chosen > 0
    solution = _grouped_solver(train + held, centred)(torch.where(moved, chosen, 1.0))
    solution = solution * moved[:, None, None]
    ridge = float(chosen[moved].median()) if bool(moved.any()) else 0.0
    return solution, ridge, before, float(least.sum())


def _grouped_solver(moments: GramMoments, centred: bool) -> Any:
    """A function from a ridge per group to the solutions."""
    xx, xy, _ = moments.central(centred)
    level = xx.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(xx)
    rotated = vectors.mT @ xy
    return lambda ridges: vectors @ (rotated / (values.clamp_min(0) + (ridges * level)[:, None])[..., None])


def best_dual(
    x: torch.Tensor, y: torch.Tensor, held: torch.Tensor, centred: bool, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, float, float, float]:
    """The same as `best_ridge` from fewer rows than features, through the rows' own Gram matrix.

    Gives the solution (features, outputs), the offset (outputs,), the ridge and both errors.
    `held` marks the rows that choose the ridge, boolean (rows,).
    """
    importance = y.new_ones(y.shape[1]).double() if weights is None else weights
    train, solve = _dual(x[~held], y[~held], centred)
    mean_x, mean_y = train
    fresh, after = x[held] - mean_x, (y[held] - mean_y).double()
    best: tuple[float, float] | None = None
    for ridge in RIDGES:
        rest = after - (fresh @ solve(ridge).to(fresh.dtype)).double()
        error = float((rest.square() * importance).sum(1).mean())
        if best is None or error < best[0]:
            best = (error, ridge)
    assert best is not None
    (mean_x, mean_y), solve = _dual(x, y, centred)
    solution = solve(best[1])
    offset = mean_y.double() - mean_x.double() @ solution
    return solution, offset, best[1], float((after.square() * importance).sum(1).mean()), best[0]


def _dual(x: torch.Tensor, y: torch.Tensor, centred: bool) -> tuple[tuple[torch.Tensor, torch.Tensor], Any]:
    """Means of features and targets, and a function from a ridge to the solution (features, outputs)."""
    mean_x = x.mean(0) if centred else x.new_zeros(x.shape[1])
    mean_y = y.mean(0) if centred else y.new_zeros(y.shape[1])
    rows, targets = x - mean_x, (y - mean_y).double()
    gram = (rows @ rows.T).double() / len(rows)
    level = (gram.diagonal().sum() / x.shape[1]).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(gram)
    rotated = vectors.T @ targets / len(rows)

    def solve(ridge: float) -> torch.Tensor:
        dual = vectors @ (rotated / (values.clamp_min(0) + ridge * level)[:, None])
        return (rows.T @ dual.to(rows.dtype)).double()

    return (mean_x, mean_y), solve


def held_out(chosen: torch.Tensor, rows: int, samples: int, first: int = 0) -> torch.Tensor:
    """Marks the chosen rows of every fifth image: positions of one image resemble each other.

    Args:
        chosen: row numbers below `rows`, images first. samples: images; with fewer than FOLD in all, give
            0, and every fifth row is marked. first: number of the first image.
    """
    image = first + chosen // max(1, rows // samples) if samples else chosen
    return image % FOLD == FOLD - 1
