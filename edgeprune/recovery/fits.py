"""Fit one layer of the pruned network to what the dense network puts out there.

`fit_layer(task)` picks the form that suits the layer: whole input patches, few rows through their own Gram
matrix, one mixing of channels for all taps, or one regression per group of a grouped or depthwise
convolution. The target is the dense output; where the layer ends a block whose result is added to a skip
connection, it is the dense output of the addition, so that the layer also makes up for what the skip
connection lost.

Guarantee: weights change only if that lowers the error on held-out images; a layer whose outputs
agree to rounding is left alone. Elsewhere: which layers, in what order (closed_form), regression (ridge).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx

from edgeprune.calibration.patches import MAX_FEATURES, patch_rows
from edgeprune.coupling.components import Layer
from edgeprune.graph.module import attribute
from edgeprune.recovery.lockstep import LockstepInterpreter
from edgeprune.recovery.ridge import (
    FOLD,
    GramMoments,
    best_dual,
    best_grouped_ridge,
    best_ridge,
    held_out,
)

aten = torch.ops.aten
ROWS, ROWS_PER_FEATURE, FEWEST_ROWS = 30_000, 12, 8192  # positions looked at per layer
GROUP_ROWS = 6_000  # of grouped convolutions, whose regressions have few features
DUAL_ROWS = 2048  # of layers with more features than MAX_FEATURES
ROUNDING = 1e-9  # a residual of this share of the output's energy is float32's own rounding
SMALL_SCALE = 1e-3  # of the largest: a batch norm that hides a channel says nothing of its target


@dataclass(frozen=True)
class Fit:
    """What a refit did at one layer.

    error_before, error_after: squared error on held-out images. kind: weights, groups or norm.
    """

    layer: str
    ridge: float
    error_before: float
    error_after: float
    kind: str = "weights"


@dataclass(frozen=True)
class Rows:
    """Rows of one batch: `x` of what the pruned layer reads, `y` still missing, `held` images' rows."""

    x: torch.Tensor
    y: torch.Tensor
    held: torch.Tensor


@dataclass(frozen=True)
class LayerTask:
    """One layer to refit: its node in the pruned graph and the values of both graphs so far.

    keep_in and keep_out: kept indices of the dense layer's inputs and outputs.
    """

    dense: fx.GraphModule
    pruned: fx.GraphModule
    node: fx.Node
    layer: Layer
    walk: LockstepInterpreter
    keep_in: torch.Tensor
    keep_out: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        value: torch.Tensor = attribute(self.pruned, str(self.layer.weight))
        return value

    @cached_property
    def norm(self) -> fx.Node | None:
        """The batch norm that alone reads the layer's output."""
        return _batch_norm_behind(self.node)

    @cached_property
    def scale(self) -> torch.Tensor:
        """What the batch norm behind multiplies each output by, shape (outputs,); 1 without one."""
        if self.norm is None:
            return torch.ones(len(self.keep_out), dtype=torch.float64, device=self.keep_out.device)
        return batch_norm_scale(self.pruned, self.norm).double()

    @property
    def centred(self) -> bool:
        """Whether an offset has a place to go."""
        return self.layer.bias is not None or self.norm is not None

    @property
    def importance(self) -> torch.Tensor:
        """What an output's squared error counts, shape (outputs,)."""
        squares = self.scale.square()
        return squares / squares.mean().clamp_min(1e-30)

    def rows(self, limit: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor, int, int]], float]:
        """Per batch: chosen positions, what is missing there (rows, outputs), first image, images.

        With them the energy of the dense outputs, summed over the chosen rows and kept outputs.
        """
        wide, slim = (values[self.node.name] for values in self.walk.values)
        skips = self._skips()
        generator = torch.Generator().manual_seed(0)
        share = max(FOLD, limit // len(slim))
        dim = self.layer.out_channel_dim
        parts, energy, first = [], 0.0, 0
        for i, (target, got) in enumerate(zip(wide, slim, strict=True)):
            flat, mine = (v.movedim(dim, -1).flatten(0, -2) for v in (target, got))
            chosen = torch.randperm(len(mine), generator=generator)[:share].to(mine.device)
            aim = flat[chosen].index_select(1, self.keep_out)
            energy += float(aim.double().square().sum())
            missing = aim - mine[chosen]
            if skips is not None:
                missing = missing + self._missing_skip(skips[0][i], skips[1][i], chosen)
            images = len(self.walk.batches[i][0])
            parts.append((chosen, missing, first, images))
            first += images
        if first < FOLD:
            parts = [(chosen, missing, 0, 0) for chosen, missing, _, _ in parts]
        return parts, energy

    def patches(self, limit: int) -> Iterator[Rows] | None:
        """Input patches with what is missing at the output; None where nothing is missing."""
        parts, energy = self.rows(limit)
        if sum(float(missing.double().square().sum()) for _, missing, _, _ in parts) <= ROUNDING * energy:
            return None
        return self._patches(parts)

    def _patches(self, parts: list[tuple[torch.Tensor, torch.Tensor, int, int]]) -> Iterator[Rows]:
        sources, outputs = (self.walk.values[1][name] for name in (self.layer.source, self.node.name))
        for (chosen, missing, first, images), x, out in zip(parts, sources, outputs, strict=True):
            positions = out.numel() // len(self.keep_out)
            patch = patch_rows(self.node, self.layer, x, self.weight)(chosen)
            yield Rows(patch, missing, held_out(chosen, positions, images, first))

    def apply(self, delta: torch.Tensor, offset: torch.Tensor) -> None:
        """Add to the weight (outputs, inputs, *taps) and to the bias or the running mean behind."""
        moved = self.weight.movedim((self.layer.out_dim, self.layer.in_dim), (0, 1))
        moved += delta.reshape(moved.shape).to(moved.dtype)
        self.shift(offset)

    def shift(self, offset: torch.Tensor) -> None:
        """Add to the bias, or take off the running mean of the batch norm behind."""
        if self.layer.bias:
            bias = attribute(self.pruned, self.layer.bias)
            bias += offset.to(bias.dtype)
        elif self.norm is not None:
            mean = attribute(self.pruned, str(self.norm.args[3].target))
            mean -= offset.to(mean.dtype)

    def _skips(self) -> tuple[list[torch.Tensor], list[torch.Tensor]] | None:
        """The other operand of the addition that ends the block, dense and pruned; None without one."""
        other = skip_of(self.node)
        if other is None:
            return None
        wide, slim = (values.get(other) for values in self.walk.values)
        output = self.walk.values[1][self.node.name]
        if wide is None or slim is None or slim[0].shape != output[0].shape:
            return None
        return wide, slim

    def _missing_skip(self, wide: torch.Tensor, slim: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """What the skip connection lost, as the layer's output would have to make up for it."""
        dim = self.layer.out_channel_dim
        flat, mine = (v.movedim(dim, -1).flatten(0, -2)[chosen] for v in (wide, slim))
        known = self.scale.abs() > SMALL_SCALE * self.scale.abs().max()
        inverse = torch.where(known, 1 / torch.where(known, self.scale, 1.0), 0.0)
        return (flat.index_select(1, self.keep_out) - mine) * inverse.to(mine.dtype)


def skip_of(node: fx.Node) -> str | None:
    """The other operand of the addition that a layer ends, a batch norm between them or not."""
    end = _batch_norm_behind(node) or node
    users = list(end.users)
    if len(users) != 1 or users[0].target is not aten.add.Tensor or users[0].kwargs:
        return None
    others = [a for a in users[0].args if a is not end]
    return str(others[0].name) if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _batch_norm_behind(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    behind = len(users) == 1 and users[0].target is aten.batch_norm.default
    return users[0] if behind and users[0].args[3] is not None else None


def batch_norm_scale(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """weight / √(variance + eps) of a batch norm, shape (channels,)."""
    variance = attribute(graph, str(node.args[4].target))
    scale = (variance + node.args[7]).rsqrt()
    if node.args[1] is not None:
        scale = scale * attribute(graph, str(node.args[1].target)).detach()
    result: torch.Tensor = scale
    return result


def fit_layer(task: LayerTask) -> Fit | None:
    """The fit that suits the layer's size; None where there is nothing to fit or no way to."""
    weight, layer = task.weight, task.layer
    if layer.kind == "conv" and layer.in_dim == 0:  # transposed: its patches are not the output's
        return None
    features = weight.numel() // weight.shape[layer.out_dim]
    if layer.groups > 1:
        return _by_group(task, features) if features <= MAX_FEATURES else None
    taps = features // weight.shape[layer.in_dim]
    if features <= MAX_FEATURES:
        return _by_patch(task, features)
    if taps == 1:
        return _by_few_rows(task)
    return _by_tap(task) if weight.shape[layer.in_dim] <= MAX_FEATURES else None


def _by_patch(task: LayerTask, features: int) -> Fit | None:
    """Whole patches against what is missing at the output."""
    limit = min(ROWS, max(FEWEST_ROWS, ROWS_PER_FEATURE * features))
    batches = task.patches(limit)
    if batches is None:
        return None
    train, held = GramMoments(), GramMoments()
    for rows in batches:
        for moments, part in ((train, ~rows.held), (held, rows.held)):
            if bool(part.any()):
                moments.add(rows.x[part].double(), rows.y[part].double())
    if not held.n or not train.n:
        return None
    solution, ridge, before, after = best_ridge(train, held, task.centred, task.importance)
    if after >= before:
        return Fit(str(task.layer.weight), ridge, before, before)
    task.apply(solution.T, (train + held).offset(solution))
    return Fit(str(task.layer.weight), ridge, before, after)


def _by_group(task: LayerTask, features: int) -> Fit | None:
    """One small regression per group: a depthwise convolution's taps, scale and shift."""
    batches = task.patches(GROUP_ROWS)
    if batches is None:
        return None
    groups = int(task.walk.values[1][task.layer.source][0].shape[task.layer.channel_dim]) * (
        task.weight[0, 0].numel()
    ) // features  # fmt: skip
    train, held = GramMoments(), GramMoments()
    for rows in batches:
        x = rows.x.double().unflatten(1, (groups, features)).transpose(0, 1)
        y = rows.y.double().unflatten(1, (groups, -1)).transpose(0, 1)
        for moments, part in ((train, ~rows.held), (held, rows.held)):
            if bool(part.any()):
                moments.add(x[:, part], y[:, part])
    if not held.n or not train.n:
        return None
    weights = task.importance.unflatten(0, (groups, -1))
    solution, ridge, before, after = best_grouped_ridge(train, held, task.centred, weights)
    name = str(task.layer.weight)
    if after >= before:
        return Fit(name, ridge, before, before, "groups")
    offset = (train + held).offset(solution)
    moved = solution.abs().sum(1) > 0  # of groups that stay as they are the mean stays too
    task.weight.add_(solution.mT.reshape(task.weight.shape).to(task.weight.dtype))
    task.shift((offset * moved).flatten())
    return Fit(name, ridge, before, after, "groups")


def _by_few_rows(task: LayerTask) -> Fit | None:
    """A layer without taps and with more features than a Gram matrix of them allows."""
    batches = task.patches(DUAL_ROWS)
    if batches is None:
        return None
    parts = list(batches)
    x, y, seen = (torch.cat(column) for column in zip(*((r.x, r.y, r.held) for r in parts), strict=True))
    if not bool(seen.any()) or bool(seen.all()):
        return None
    solution, offset, ridge, before, after = best_dual(x, y, seen, task.centred, task.importance)
    if after >= before:
        return Fit(str(task.layer.weight), ridge, before, before)
    task.apply(solution.T, offset)
    return Fit(str(task.layer.weight), ridge, before, after)


def _by_tap(task: LayerTask) -> Fit | None:
    """One mixing matrix of channels for all taps: dense inputs from pruned inputs.

    Each input counts by the norm of the weights that read it. The outputs on held-out images
    decide whether the fit stays: at borders and offsets it is an approximation.
    """
    layer = task.layer
    full = attribute(task.dense, str(layer.weight))
    full = full.movedim((layer.out_dim, layer.in_dim), (0, 1)).index_select(0, task.keep_out)
    norms = full.movedim(1, 0).flatten(1).norm(dim=1).double().clamp_min(1e-12)
    before = _held_error(task)
    if before is None:
        return None
    wide, slim = (values[layer.source] for values in task.walk.values)
    limit = max(FOLD, ROWS // len(slim))
    generator = torch.Generator().manual_seed(0)
    train, held, first = GramMoments(), GramMoments(), 0
    for target, got, batch in zip(wide, slim, task.walk.batches, strict=False):
        y, x = (v.movedim(layer.channel_dim, -1).flatten(0, -2) for v in (target, got))
        chosen = torch.randperm(len(x), generator=generator)[:limit].to(x.device)
        seen = held_out(chosen, len(x), len(batch[0]), first)
        first += len(batch[0])
        for moments, part in ((train, chosen[~seen]), (held, chosen[seen])):
            if len(part):
                rest = y[part].double()
                rest[:, task.keep_in] -= x[part].double()
                moments.add(x[part].double(), rest * norms)
    if not held.n or not train.n:
        return None
    scaled, ridge, _, _ = best_ridge(train, held, task.centred)
    solution, offset = scaled / norms, (train + held).offset(scaled) / norms
    delta = torch.einsum("oi...,ki->ok...", full.double(), solution)
    shift = torch.einsum("oi...,i->o", full.double().flatten(2).sum(2), offset)
    task.apply(delta, shift)
    task.walk.again(task.node, 1)
    after = _held_error(task, None if layer.bias else shift)
    if after is not None and after >= before:
        task.apply(-delta, -shift)
        return Fit(str(layer.weight), ridge, before, before)
    return Fit(str(layer.weight), ridge, before, after or 0.0)


def _held_error(task: LayerTask, shift: torch.Tensor | None = None) -> float | None:
    """Squared error on held-out images, summed over outputs by importance; None if only rounding is left.

    `shift` is what a batch norm behind will add to the outputs.
    """
    parts, energy = task.rows(ROWS)
    everything, total, count = 0.0, 0.0, 0
    outputs = task.walk.values[1][task.node.name]
    for (chosen, missing, first, images), out in zip(parts, outputs, strict=True):
        rest = missing.double() if shift is None else missing.double() - shift
        everything += float(rest.square().sum())
        seen = held_out(chosen, out.numel() // len(task.keep_out), images, first)
        total += float((rest[seen].square() * task.importance).sum())
        count += int(seen.sum())
    return None if everything <= ROUNDING * energy else total / max(1, count)
