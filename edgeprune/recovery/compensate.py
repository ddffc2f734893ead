"""Closed-form compensation: the remaining weights take over what was removed.

The dense and the pruned graph run side by side, operator by operator, over calibration
batches. At every layer that mixes channels the pruned one's weights are refitted so
that its outputs match the dense outputs *given the pruned inputs that it really gets*:
W' = W_K + E[r·pᵀ]·(E[p·pᵀ] + λI)⁻¹ with r the dense output minus the pruned one and p
the input patch, kernel taps included. λ is the best of RIDGES on held-out rows. With a
bias, or a batch norm behind, moments are centred and the offset goes there.
Where a patch has more than MAX_FEATURES values, a convolution mixes channels the same way
at every tap (fitted to the dense *inputs*), and a linear layer is fitted on few rows
through their own Gram matrix.
No labels. Rows per layer are capped, and so are the activations held (walk). Kin: ThiNet,
OBC, GRAIL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from edgeprune.calibration.patches import MAX_FEATURES, patch_rows
from edgeprune.coupling.components import BoolArray, Couplings, Layer
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.recovery.lockstep import MEMORY, LockstepInterpreter
from edgeprune.recovery.ridge import GramMoments, best_dual, best_ridge, held_out
from edgeprune.surgery.cut import cut

aten = torch.ops.aten
ROWS = 30_000
DUAL_ROWS = 2048  # of layers with more features than that
ROUNDING = 1e-9  # a residual of this share of the output's energy is float32's own rounding


@dataclass(frozen=True)
class Fit:
    """What compensation did at one layer: share of the output error it removed on held-out rows."""

    layer: str
    ridge: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class _Task:
    """One layer to refit: its node in the pruned graph, its tensors, and what both graphs hold now."""

    dense: Trace
    pruned: Trace
    node: fx.Node
    layer: Layer
    walk: LockstepInterpreter
    keep_in: torch.Tensor
    keep_out: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        found: torch.Tensor = attribute(self.pruned.graph, str(self.layer.weight))
        return found

    @property
    def moved(self) -> torch.Tensor:
        """The weight as (outputs, inputs, *taps), a view to write to."""
        return self.weight.movedim((self.layer.out_dim, self.layer.in_dim), (0, 1))

    def residuals(self) -> list[torch.Tensor]:
        """Dense minus pruned outputs per batch, shape (positions, outputs)."""
        wide, slim = (values[self.node.name] for values in self.walk.values)
        dim, keep = self.layer.out_channel_dim, self.keep_out
        return [
            (target.index_select(dim, keep) - got).movedim(dim, -1).reshape(-1, len(keep))
            for target, got in zip(wide, slim, strict=True)
        ]

    def energy(self) -> float:
        """Sum over positions of the mean square of the kept dense outputs."""
        dim = self.layer.out_channel_dim
        wide = (w.index_select(dim, self.keep_out) for w in self.walk.values[0][self.node.name])
        return float(sum(float(w.double().square().mean()) * (w.numel() // len(self.keep_out)) for w in wide))

    def centred(self) -> bool:
        """Whether an offset has a place to go."""
        return self.layer.bias is not None or _batch_norm_behind(self.node) is not None

    def apply(self, delta: torch.Tensor, offset: torch.Tensor) -> None:
        """Add to the weight (outputs, inputs, *taps) and to the bias or the running mean behind."""
        moved = self.moved
        moved += delta.reshape(moved.shape).to(moved.dtype)
        norm = _batch_norm_behind(self.node)
        if self.layer.bias:
            bias = attribute(self.pruned.graph, self.layer.bias)
            bias += offset.to(bias.dtype)
        elif norm is not None:
            mean = attribute(self.pruned.graph, str(norm.args[3].target))
            mean -= offset.to(mean.dtype)


def compensate(
    dense: Trace,
    couplings: Couplings,
    removed: BoolArray,
    batches: Sequence[tuple[torch.Tensor, ...]],
    *,
    memory: int = MEMORY,
) -> tuple[Trace, tuple[Fit, ...]]:
    """Cut the components and refit every affected layer; gives the pruned trace and the fits.

    Args:
        batches: calibration inputs. memory: bytes of activations to hold, at least one batch's.
    """
    pruned = cut(dense, couplings, removed)
    layers = {layer.node: layer for layer in couplings.layers if layer.groups == 1 and layer.weight}
    twins = {n.name: n for n in pruned.graph.graph.nodes}
    fits = []
    changed: set[str] = set()
    with torch.no_grad():
        for node in (walk := LockstepInterpreter([dense, pruned], batches, memory)):
            twin = twins.get(node.name)
            if twin is None or node.op != "call_function":
                continue
            if not _differs(node, couplings, removed, changed):
                continue
            changed.add(node.name)
            layer = layers.get(node.name)
            if layer is None or _shared(pruned.graph, layer):
                continue
            keep_in, keep_out = (
                torch.from_numpy(np.flatnonzero(couplings.keep_mask(e, removed)))
                for e in (layer.inputs, layer.outputs)
            )
            fit = _refit(_Task(dense, pruned, twin, layer, walk, keep_in, keep_out))
            if fit is not None:
                fits.append(fit)
                walk.again(node, 1)
    return pruned, tuple(fits)


def _differs(node: fx.Node, couplings: Couplings, removed: BoolArray, changed: set[str]) -> bool:
    """Whether something upstream of the node, or one of its own operands, lost channels."""
    for source in node.all_input_nodes:
        if source.name in changed:
            return True
        spots = couplings.values.get(source.name, ())
        for dims in spots:
            if any(not couplings.keep_mask(e, removed).all() for channel_maps in dims for e in channel_maps):
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


def _refit(task: _Task) -> Fit | None:
    """The fit that suits the layer's size; None where there is nothing to fit or no way to."""
    weight, layer = task.weight, task.layer
    if layer.kind == "conv" and layer.in_dim == 0:  # transposed: its patches are not the output's
        return None
    features = weight.numel() // weight.shape[layer.out_dim]
    taps = features // weight.shape[layer.in_dim]
    if features <= MAX_FEATURES:
        return _by_patch(task)
    if taps == 1:
        return _by_few_rows(task)
    return _by_tap(task) if weight.shape[layer.in_dim] <= MAX_FEATURES else None


def _by_patch(task: _Task) -> Fit | None:
    """Whole patches against what is missing at the output."""
    sources = task.walk.values[1][task.layer.source]
    limit = max(1, ROWS // len(sources))
    generator = torch.Generator().manual_seed(0)
    train, held = GramMoments(), GramMoments()
    for rest, x in zip(task.residuals(), sources, strict=True):
        chosen = torch.randperm(len(rest), generator=generator)[:limit]
        seen = held_out(chosen, len(rest), len(x))
        rows = patch_rows(task.node, task.layer, x, task.weight)
        for moments, part in ((train, chosen[~seen]), (held, chosen[seen])):
            if len(part):
                moments.add(rows(part).double(), rest[part].double())
    # Outputs that only lost channels agree to rounding: the layer reads what it read before.
    if not held.n or float((train.yy + held.yy).mean()) <= ROUNDING * task.energy():
        return None
    solution, ridge, before, after = best_ridge(train, held, task.centred())
    if after >= before:
        return Fit(str(task.layer.weight), ridge, before, before)
    task.apply(solution.T, train.offset(solution))
    return Fit(str(task.layer.weight), ridge, before, after)


def _by_few_rows(task: _Task) -> Fit | None:
    """A layer without taps and with more features than a Gram matrix of them allows."""
    sources = task.walk.values[1][task.layer.source]
    limit = max(5, DUAL_ROWS // len(sources))
    generator = torch.Generator().manual_seed(0)
    xs, ys, seens = [], [], []
    for rest, x in zip(task.residuals(), sources, strict=True):
        chosen = torch.randperm(len(rest), generator=generator)[:limit]
        seens.append(held_out(chosen, len(rest), len(x)))
        xs.append(patch_rows(task.node, task.layer, x, task.weight)(chosen))
        ys.append(rest[chosen])
    x, y, seen = torch.cat(xs), torch.cat(ys), torch.cat(seens)
    positions = sum(v.numel() for v in task.walk.values[1][task.node.name]) // len(task.keep_out)
    if float(y.double().square().mean()) <= ROUNDING * task.energy() / max(1, positions):
        return None
    solution, offset, ridge, before, after = best_dual(x, y, seen, task.centred())
    if after >= before:
        return Fit(str(task.layer.weight), ridge, before, before)
    task.apply(solution.T, offset)
    return Fit(str(task.layer.weight), ridge, before, after)


def _by_tap(task: _Task) -> Fit | None:
    """One mixing matrix of channels for all taps: dense inputs from pruned inputs.

    Each input counts by the norm of the weights that read it. The outputs on held-out samples
    decide whether the fit stays: at borders and offsets it is an approximation.
    """
    layer = task.layer
    whole = attribute(task.dense.graph, str(layer.weight))
    whole = whole.movedim((layer.out_dim, layer.in_dim), (0, 1)).index_select(0, task.keep_out)
    norms = whole.movedim(1, 0).flatten(1).norm(dim=1).double().clamp_min(1e-12)
    wide, slim = (values[layer.source] for values in task.walk.values)
    limit = max(1, ROWS // len(slim))
    generator = torch.Generator().manual_seed(0)
    train, held = GramMoments(), GramMoments()
    for target, got in zip(wide, slim, strict=True):
        y = target.movedim(layer.channel_dim, -1).flatten(0, -2)
        x = got.movedim(layer.channel_dim, -1).flatten(0, -2)
        chosen = torch.randperm(len(x), generator=generator)[:limit]
        seen = held_out(chosen, len(x), len(got))
        for moments, part in ((train, chosen[~seen]), (held, chosen[seen])):
            if len(part):
                rest = y[part].double()
                rest[:, task.keep_in] -= x[part].double()
                moments.add(x[part].double(), rest * norms)
    before = _held_error(task)
    if not held.n or before <= ROUNDING * task.energy():
        return None
    scaled, ridge, _, _ = best_ridge(train, held, task.centred())
    solution, offset = scaled / norms, train.offset(scaled) / norms
    delta = torch.einsum("oi...,ki->ok...", whole.double(), solution)
    shift = torch.einsum("oi...,i->o", whole.double().flatten(2).sum(2), offset)
    task.apply(delta, shift)
    task.walk.again(task.node, 1)
    shifted = shift if not task.layer.bias and _batch_norm_behind(task.node) is not None else None
    after = _held_error(task, shifted)
    if after < before:
        return Fit(str(layer.weight), ridge, before, after)
    task.apply(-delta, -shift)
    return Fit(str(layer.weight), ridge, before, before)


def _held_error(task: _Task, shift: torch.Tensor | None = None) -> float:
    """Squared output error summed over outputs, mean over the positions of the last fifth of samples.

    `shift` is what a batch norm behind will add to the outputs.
    """
    total, count = 0.0, 0
    for rest in task.residuals():
        part = rest[len(rest) * 4 // 5 :].double()
        part = part if shift is None else part - shift
        total += float(part.square().sum())
        count += len(part)
    return total / max(1, count)


def _batch_norm_behind(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    found = len(users) == 1 and users[0].target is aten.batch_norm.default and users[0].args[3] is not None
    return users[0] if found else None
