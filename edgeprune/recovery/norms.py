"""Refit normalisations of the pruned network to what the dense network puts out there.

match_moments(task)    batch norm: the output gets the dense output's mean and variance per channel
fit_norm(task)         scale and shift per channel by least squares, or matched moments, or no change,
                       whichever is best on held-out images, channel by channel

Running statistics are never estimated afresh: calibration data need not resemble the training data, so what
counts is the ratio of the pruned moments to the dense ones on the same images. Where both networks put
out the same, nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgeprune.graph.module import attribute
from edgeprune.recovery.fits import FEWEST_ROWS, ROUNDING, Fit
from edgeprune.recovery.lockstep import LockstepInterpreter
from edgeprune.recovery.ridge import FOLD, held_out

aten = torch.ops.aten
# operator: position of weight and bias among its arguments, dimension of its channels
NORMS = {
    aten.batch_norm.default: (1, 2, 1),
    aten.layer_norm.default: (2, 3, -1),
    aten.group_norm.default: (2, 3, 1),
}
MEAN, VARIANCE, EPS = 3, 4, 7  # positions in aten.batch_norm's arguments


@dataclass(frozen=True)
class NormTask:
    """One normalisation to refit; `keep` are the kept channels of the dense one."""

    pruned: fx.GraphModule
    node: fx.Node
    walk: LockstepInterpreter
    keep: torch.Tensor

    def tensor(self, position: int) -> torch.Tensor | None:
        """The parameter or buffer that an argument names; None where there is none."""
        arg = self.node.args[position] if len(self.node.args) > position else None
        value = attribute(self.pruned, str(arg.target)) if isinstance(arg, fx.Node) else None
        return value if isinstance(value, torch.Tensor) else None

    def pairs(self, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dense and pruned values of a node at the same positions (rows, channels), and held-out rows."""
        dim = NORMS[self.node.target][2]
        wide, slim = (values[name] for values in self.walk.values)
        generator = torch.Generator().manual_seed(0)
        share = max(FOLD, FEWEST_ROWS // len(slim))
        images = [len(batch[0]) for batch in self.walk.batches[: len(slim)]]
        few = sum(images) < FOLD
        aims, gots, held, first = [], [], [], 0
        for target, got, count in zip(wide, slim, images, strict=True):
            flat, mine = (v.movedim(dim, -1).flatten(0, -2) for v in (target, got))
            chosen = torch.randperm(len(mine), generator=generator)[:share].to(mine.device)
            aims.append(flat[chosen].index_select(1, self.keep).double())
            gots.append(mine[chosen].double())
            held.append(held_out(chosen, len(mine), 0 if few else count, first))
            first += count
        return torch.cat(aims), torch.cat(gots), torch.cat(held)


def match_moments(task: NormTask) -> Fit | None:
    """var' = var·var_pruned/var_dense, mean' = mean_pruned − (mean_dense − mean)·√(var_pruned/var_dense).

    Moments are those of what the batch norm reads, kept channels, on the same positions of the same images.
    A channel that does not vary in either network keeps its variance.
    """
    mean, variance = task.tensor(MEAN), task.tensor(VARIANCE)
    if mean is None or variance is None:
        return None
    dense, pruned, held = task.pairs(task.node.args[0].name)
    if _same(dense, pruned):
        return None
    spread, left = dense.var(0, unbiased=False), pruned.var(0, unbiased=False)
    known = (spread > 1e-12 * dense.square().mean(0)) & (left > 1e-12 * pruned.square().mean(0))
    ratio = torch.where(known, left / torch.where(known, spread, 1.0), 1.0)
    moved = pruned.mean(0) - (dense.mean(0) - mean.double()) * ratio.sqrt()
    rows = held if bool(held.any()) else torch.ones_like(held)
    aim = dense[rows] - mean.double()
    scale = (variance.double() + task.node.args[EPS]).rsqrt()
    before, after = (
        float(((got - aim) * scale).square().sum(1).mean())
        for got in (pruned[rows] - mean.double(), (pruned[rows] - moved) / ratio.sqrt())
    )
    mean.copy_(moved.to(mean.dtype))
    variance.mul_(ratio.to(variance.dtype))
    return Fit(str(task.node.args[MEAN].target), 0.0, before, after, "norm")


def fit_norm(task: NormTask) -> Fit | None:
    """Scale and shift of the output per channel, by the best of three on held-out images."""
    at_weight, at_bias, _ = NORMS[task.node.target]
    weight, bias = task.tensor(at_weight), task.tensor(at_bias)
    if weight is not None and weight.dim() != 1:
        return None
    if (weight is None or bias is None) and task.node.target is not aten.batch_norm.default:
        return None
    dense, pruned, held = task.pairs(task.node.name)
    if _same(dense, pruned) or not bool(held.any()) or bool(held.all()):
        return None
    kept = (dense[held] - pruned[held]).square().mean(0)
    best = kept.clone()
    scale, shift = torch.ones_like(best), torch.zeros_like(best)
    for candidate in (_least_squares, _matched):
        a, c = candidate(dense[~held], pruned[~held])
        error = (dense[held] - pruned[held] * a - c).square().mean(0)
        better = (error < best) & (a > 0)
        scale, shift = torch.where(better, a, scale), torch.where(better, c, shift)
        best = torch.where(better, error, best)
    if weight is not None and bias is not None:
        weight.mul_(scale.to(weight.dtype))
        bias.mul_(scale.to(bias.dtype)).add_(shift.to(bias.dtype))
    else:
        _into_statistics(task, scale, shift)
    name = next(str(a.target) for a in task.node.args if isinstance(a, fx.Node) and a.op == "get_attr")
    return Fit(name, 0.0, float(kept.sum()), float(best.sum()), "norm")


def _least_squares(dense: torch.Tensor, pruned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a and c with the least squared error of a·pruned + c per channel."""
    x, y = pruned - pruned.mean(0), dense - dense.mean(0)
    power = x.square().mean(0)
    a = torch.where(power > 0, (x * y).mean(0) / torch.where(power > 0, power, 1.0), 1.0)
    return a, dense.mean(0) - a * pruned.mean(0)


def _matched(dense: torch.Tensor, pruned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a and c with which a·pruned + c has the dense mean and variance per channel."""
    left = pruned.var(0, unbiased=False)
    known = left > 0
    a = torch.where(known, (dense.var(0, unbiased=False) / torch.where(known, left, 1.0)).sqrt(), 1.0)
    return a, dense.mean(0) - a * pruned.mean(0)


def _into_statistics(task: NormTask, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Running statistics of a batch norm without weights under which its output is scale·output + shift."""
    mean, variance = task.tensor(MEAN), task.tensor(VARIANCE)
    assert mean is not None and variance is not None
    eps = task.node.args[EPS]
    spread = variance.double() + eps
    # A variance cannot fall below zero: a scale that would need that stops there.
    scale = torch.minimum(scale, (spread / eps).sqrt() if eps else scale)
    mean.sub_((shift * spread.sqrt() / scale).to(mean.dtype))
    variance.copy_((spread / scale.square() - eps).clamp_min(0).to(variance.dtype))


def _same(dense: torch.Tensor, pruned: torch.Tensor) -> bool:
    missing = float((dense - pruned).square().sum())
    return missing <= ROUNDING * float(dense.square().sum())
