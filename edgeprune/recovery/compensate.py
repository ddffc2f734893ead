"""Closed-form compensation: the remaining weights take over what was removed.

The dense and the pruned graph run side by side, operator by operator, over calibration
batches. At every layer that mixes channels the pruned one's weights are refitted so
that its outputs match the dense outputs *given the pruned inputs that it really gets*:
W' = W_K + E[r·pᵀ]·(E[p·pᵀ] + λI)⁻¹ with r the dense output minus the pruned one and p
the input patch, kernel taps included. λ is the best of RIDGES on held-out rows. With a
bias, or a batch norm behind, moments are centred and the offset goes there.
No labels. One pass; rows per layer are capped, activations live as long as a later
operator needs them. Kin: ThiNet, OBC, GRAIL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings, Layer
from edgeprune.model.graph import attribute
from edgeprune.model.trace import Trace
from edgeprune.recovery.walk import Values, evaluate, last_use
from edgeprune.statistics.patches import MAX_FEATURES, patch_rows
from edgeprune.surgery import cut

aten = torch.ops.aten
RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean second moment
ROWS = 30_000
ROUNDING = 1e-9  # a residual of this share of the output's energy is float32's own rounding


@dataclass(frozen=True)
class Fit:
    """What compensation did at one layer: share of the output error it removed on held-out rows."""

    layer: str
    ridge: float
    error_before: float
    error_after: float


def compensate(
    dense: Trace, couplings: Couplings, removed: BoolArray, batches: Sequence[tuple[torch.Tensor, ...]]
) -> tuple[Trace, tuple[Fit, ...]]:
    """Cut the components and refit every affected layer; gives the pruned trace and the fits."""
    pruned = cut(dense, couplings, removed)
    layers = {layer.node: layer for layer in couplings.layers if layer.groups == 1 and layer.weight}
    twins = {n.name: n for n in pruned.graph.graph.nodes}
    last = last_use(dense.graph)
    wide: Values = {}
    slim: Values = {}
    fits = []
    changed: set[str] = set()
    with torch.no_grad():
        for node in dense.graph.graph.nodes:
            if node.op == "output":
                break
            evaluate(dense, node, wide, batches)
            twin = twins.get(node.name)
            if twin is None:
                continue
            evaluate(pruned, twin, slim, batches)
            if node.op == "call_function" and _differs(node, couplings, removed, changed):
                changed.add(node.name)
                found = layers.get(node.name)
                if found is not None and not _shared(pruned.graph, found):
                    fit = _refit(pruned, twin, found, couplings, removed, wide, slim)
                    if fit is not None:
                        fits.append(fit)
                        evaluate(pruned, twin, slim, batches)
            for gone in last.get(node.name, ()):
                wide.pop(gone, None)
                slim.pop(gone, None)
    return pruned, tuple(fits)


def _differs(node: fx.Node, couplings: Couplings, removed: BoolArray, changed: set[str]) -> bool:
    """Whether something upstream of the node, or one of its own operands, lost channels."""
    for source in node.all_input_nodes:
        if source.name in changed:
            return True
        spots = couplings.values.get(source.name, ())
        for dims in spots:
            if any(not couplings.keep_mask(e, removed).all() for extents in dims for e in extents):
                return True
    return False


def _shared(graph: fx.GraphModule, layer: Layer) -> bool:
    """Whether anything else uses the layer's weight or bias: it cannot be fitted to one reader."""
    tensors = [attribute(graph, name) for name in (layer.weight, layer.bias) if name]
    for tensor in tensors:
        names = [n for n in graph.graph.nodes if n.op == "get_attr"]
        if sum(len(n.users) for n in names if attribute(graph, str(n.target)) is tensor) > 1:
            return True
    return False


def _refit(
    pruned: Trace,
    node: fx.Node,
    layer: Layer,
    couplings: Couplings,
    removed: BoolArray,
    wide: Values,
    slim: Values,
) -> Fit | None:
    weight = attribute(pruned.graph, str(layer.weight))
    keep_out = torch.from_numpy(np.flatnonzero(couplings.keep_mask(layer.outputs, removed)))
    features = weight.numel() // weight.shape[layer.out_dim]
    transposed = layer.kind == "conv" and layer.in_dim == 0
    if features > MAX_FEATURES or transposed:
        return None
    limit = max(1, ROWS // len(slim[layer.source]))
    generator = torch.Generator().manual_seed(0)
    train, held = _Moments(), _Moments()
    energy = 0.0
    for target, got, x in zip(wide[node.name], slim[node.name], slim[layer.source], strict=True):
        target = target.index_select(layer.out_channel_dim, keep_out)
        rest = (target - got).movedim(layer.out_channel_dim, -1).reshape(-1, len(keep_out))
        energy += float(target.double().square().mean()) * len(rest)
        chosen = torch.randperm(len(rest), generator=generator)[:limit]
        seen = _held_out(chosen, len(rest), len(target))
        rows = patch_rows(node, layer, x, weight)
        for moments, part in ((train, chosen[~seen]), (held, chosen[seen])):
            if len(part):
                moments.add(rows(part).double(), rest[part].double())
    # Outputs that only lost channels agree to rounding: the layer reads what it read before.
    if not held.n or float((train.yy + held.yy).mean()) <= ROUNDING * energy:
        return None
    bias = attribute(pruned.graph, layer.bias) if layer.bias else None
    norm = _batch_norm_behind(node)
    centred = bias is not None or norm is not None
    solution, ridge, before, after = _best_ridge(train, held, centred)
    if after >= before:
        return Fit(str(layer.weight), ridge, before, before)
    delta = solution.T  # (outputs, features): inputs, then taps
    moved = weight.movedim((layer.out_dim, layer.in_dim), (0, 1))
    moved += delta.reshape(moved.shape).to(weight.dtype)
    offset = train.offset(solution) if centred else None
    if offset is not None and bias is not None:
        bias += offset.to(bias.dtype)
    elif offset is not None and norm is not None:
        mean = attribute(pruned.graph, str(norm.args[3].target))
        mean -= offset.to(mean.dtype)
    return Fit(str(layer.weight), ridge, before, after)


def _held_out(chosen: torch.Tensor, rows: int, samples: int) -> torch.Tensor:
    """A fifth of the chosen rows, of samples of their own: positions of one sample resemble each other."""
    sample = chosen // max(1, rows // max(samples, 1))
    seen = sample >= max(1, samples * 4 // 5)
    if not seen.any() or seen.all():
        seen = torch.arange(len(chosen)) >= max(1, len(chosen) * 4 // 5)
    return seen


def _batch_norm_behind(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    found = len(users) == 1 and users[0].target is aten.batch_norm.default and users[0].args[3] is not None
    return users[0] if found else None


class _Moments:
    """Second moments of patches and residuals, float64."""

    def __init__(self) -> None:
        self.n = 0
        self.xx: Any = 0.0
        self.xy: Any = 0.0
        self.yy: Any = 0.0
        self.x: Any = 0.0
        self.y: Any = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.n += len(x)
        self.xx = self.xx + x.T @ x
        self.xy = self.xy + x.T @ y
        self.yy = self.yy + (y**2).sum(0)
        self.x = self.x + x.sum(0)
        self.y = self.y + y.sum(0)

    def central(self, centred: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n = max(self.n, 1)
        if not centred:
            return self.xx / n, self.xy / n, self.yy / n
        x, y = self.x / n, self.y / n
        return self.xx / n - torch.outer(x, x), self.xy / n - torch.outer(x, y), self.yy / n - y**2

    def offset(self, solution: torch.Tensor) -> torch.Tensor:
        return self.y / self.n - (self.x / self.n) @ solution


def _best_ridge(train: _Moments, held: _Moments, centred: bool) -> tuple[torch.Tensor, float, float, float]:
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
