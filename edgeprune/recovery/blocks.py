"""Train the blocks of a pruned network to put out what the dense network's blocks put out.

    trained = train_blocks(dense, pruned, couplings, removed, batches, settings)

A block ends where a single value connects what comes before with what comes after. Each block learns from
its own output alone: it reads what the pruned blocks before it give, without a gradient to them, and its
error is the squared distance to the dense block's kept channels, each channel by its variance. Every layer
so gets a target for every position of every image, which a few hundred images determine better than one
vector of classes per image does. Batch norms keep their statistics.

Guarantee: with nothing removed nothing changes; a block that ends worse on the held-out images than it
began gets its first weights back. Elsewhere: the closed form that comes before, training by the outputs that
comes after (finetune).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.compute import to_channels_last
from edgeprune.graph.executor import execute
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.recovery.finetune import cosine
from edgeprune.recovery.lockstep import last_use
from edgeprune.recovery.ridge import FOLD

Batches = Sequence[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class BlockTraining:
    """Settings: passes over the batches, and the step size of Adam. 0 epochs do nothing."""

    epochs: int = 4
    learning_rate: float = 1e-3
    seed: int = 0


def train_blocks(
    dense: Trace,
    pruned: Trace,
    couplings: Couplings,
    removed: BoolArray,
    batches: Batches,
    settings: BlockTraining,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """A copy of the pruned trace whose blocks are trained one by one, all in the same passes.

    Args:
        removed: components of `dense` that `pruned` lacks. batches: inputs; every fifth one is held out.
    """
    if not removed.any() or settings.epochs < 1 or len(batches) < FOLD:
        return pruned
    wide, slim = (to_channels_last(t.graph) for t in (dense, pruned))
    ends = _block_ends(wide, slim, couplings, removed)
    if not ends:
        return pruned
    parameters = _parameters_by_block(slim, list(ends))
    steps = settings.epochs * sum(i % FOLD != FOLD - 1 for i in range(len(batches)))
    for group in parameters.values():
        for tensor in group.values():
            tensor.requires_grad_(True)
    optimizer = torch.optim.Adam(
        [t for group in parameters.values() for t in group.values()], lr=settings.learning_rate
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, steps))
    before = _held_errors(wide, slim, ends, batches)
    start = copy.deepcopy(slim.state_dict())
    rng = np.random.default_rng(settings.seed)
    train = [i for i in range(len(batches)) if i % FOLD != FOLD - 1]
    done = 0
    for _ in range(settings.epochs):
        for i in rng.permutation(train):
            errors = _errors(wide, slim, ends, batches[i])
            loss = sum(errors.values(), torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if progress:
                progress(done, steps)
    after = _held_errors(wide, slim, ends, batches)
    trained = pruned.copy()
    trained.load_state_dict(slim.state_dict())
    with torch.no_grad():
        for end, group in parameters.items():
            if after[end] >= before[end]:
                for name in group:
                    attribute(trained, name).copy_(start[name])
    return replace(pruned, graph=trained)


def _block_ends(
    wide: fx.GraphModule, slim: fx.GraphModule, couplings: Couplings, removed: BoolArray
) -> dict[str, dict[int, torch.Tensor]]:
    """Nodes through which alone everything passes, where channels are mixed next: kept indices per dimension.

    The last layer's output counts too.
    """
    nodes = list(wide.graph.nodes)
    last, names = last_use(wide), {n.name for n in slim.graph.nodes}
    mixing = {layer.source for layer in couplings.layers if layer.groups == 1}
    live: set[str] = set()
    ends: dict[str, dict[int, torch.Tensor]] = {}
    for node in nodes:
        if node.op == "output":
            sources = node.all_input_nodes
            if len(sources) == 1 and sources[0].op == "call_function":
                ends.setdefault(sources[0].name, _kept(sources[0], couplings, removed))
            break
        if node.op != "get_attr":
            live.add(node.name)
        live -= set(last.get(node.name, ()))
        if node.op == "call_function" and live == {node.name} and node.name in mixing and node.name in names:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                ends[node.name] = _kept(node, couplings, removed)
    return ends


def _kept(node: fx.Node, couplings: Couplings, removed: BoolArray) -> dict[int, torch.Tensor]:
    """Kept indices of the dimensions of a value that lose some."""
    spots = couplings.values.get(node.name, ())
    kept: dict[int, torch.Tensor] = {}
    for dim, maps in enumerate(spots[0] if spots else ()):
        for channel_map in maps:
            mask = couplings.keep_mask(channel_map, removed)
            if not mask.all():
                kept[dim] = torch.from_numpy(np.flatnonzero(mask))
    return kept


def _parameters_by_block(slim: fx.GraphModule, ends: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Parameters that only the nodes up to each end read, by the end."""
    groups: dict[str, dict[str, torch.Tensor]] = {end: {} for end in ends}
    owner: dict[int, str] = {}
    shared: set[int] = set()
    left = list(ends)
    for node in slim.graph.nodes:
        if not left:
            break
        if node.op == "call_function":
            for source in node.all_input_nodes:
                value = attribute(slim, str(source.target)) if source.op == "get_attr" else None
                if isinstance(value, torch.nn.Parameter) and value.is_floating_point():
                    if owner.setdefault(id(value), left[0]) != left[0]:
                        shared.add(id(value))
                    groups[left[0]][str(source.target)] = value
        if node.name == left[0]:
            left.pop(0)
    return {
        end: {name: t for name, t in group.items() if id(t) not in shared} for end, group in groups.items()
    }


def _errors(
    wide: fx.GraphModule, slim: fx.GraphModule, ends: dict[str, dict[int, torch.Tensor]], batch: Any
) -> dict[str, torch.Tensor]:
    """Per block the squared distance of its output to the dense one's, by the variance of each channel."""
    with torch.no_grad():
        targets = _values(wide, set(ends), batch, detach=False)
    outputs = _values(slim, set(ends), batch, detach=True)
    errors = {}
    for end, kept in ends.items():
        target = targets[end]
        for dim, indices in kept.items():
            target = target.index_select(dim, indices)
        channel = next(iter(kept), 1)
        axes = [d for d in range(target.dim()) if d != channel]
        power = target.var(axes, keepdim=True, unbiased=False)
        power = power + 0.01 * power.mean() + 1e-12
        errors[end] = ((outputs[end] - target).square() / power).mean()
    return errors


def _held_errors(
    wide: fx.GraphModule, slim: fx.GraphModule, ends: dict[str, dict[int, torch.Tensor]], batches: Batches
) -> dict[str, float]:
    total = dict.fromkeys(ends, 0.0)
    with torch.no_grad():
        for batch in batches[FOLD - 1 :: FOLD]:
            for end, error in _errors(wide, slim, ends, batch).items():
                total[end] += float(error) * len(batch[0])
    return total


def _values(graph: fx.GraphModule, names: set[str], batch: Any, *, detach: bool) -> dict[str, torch.Tensor]:
    """Values of some nodes; with `detach` what comes behind reads them without a gradient."""

    seen: dict[str, torch.Tensor] = {}

    def keep(node: fx.Node, value: Any) -> Any:
        if node.name not in names:
            return value
        seen[node.name] = value
        return value.detach() if detach else value

    execute(graph, batch, after=keep)
    return seen
