"""Where the samples are in a value: in which dimension, and in which order with what shares it.

A layer may read (samples, positions, channels), a sequence-first network's (positions,
samples, channels), or both in one dimension: attention's output projection reads
(positions · samples, channels), one of shifted windows (samples · windows, …). This is
observed, not deduced from operators: the graph runs on a few samples, then on fewer of
them in another order. The dimension that shrank holds the samples, and of the ways to
divide it the one that turns the first value into the second is the order.

Guarantee: None where no dimension follows the samples; nothing is guessed.
Where this could fail: samples that are all alike show no order, and count as sample-first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgeprune.graph.executor import execute

PROBE = 4  # samples of the first run
CHOSEN = (2, 0, 3)  # of them, in the second: fewer, and no shift
TOLERANCE = 1e-3  # of the largest value: what a changed batch may do to rounding


@dataclass(frozen=True)
class SampleAxis:
    """Dimension `dim` is before × samples × after: sample s is at (i·samples + s)·after + j."""

    dim: int = 0
    before: int = 1
    after: int = 1

    def split(self, x: torch.Tensor, channel_dim: int) -> torch.Tensor:
        """A value as (samples, positions, channels)."""
        moved, at = self._sample_first(x.movedim(channel_dim, -1), self._beside(x, channel_dim))
        assert at is not None
        return moved.reshape(len(moved), -1, moved.shape[-1])

    def join(self, rows: torch.Tensor, like: torch.Tensor, channel_dim: int) -> torch.Tensor:
        """The inverse of `split`: (samples, positions, channels) as a value of the shape of `like`."""
        moved = like.movedim(channel_dim, -1)
        first, at = self._sample_first(moved, self._beside(like, channel_dim))
        return rows.reshape(first.shape).movedim(0, at).reshape(moved.shape).movedim(-1, channel_dim)

    def spread(self, values: torch.Tensor, like: torch.Tensor, channel_dim: int) -> torch.Tensor:
        """One number per sample and channel, (samples, channels), in a shape that multiplies `like`."""
        if self.before * self.after > 1:
            place = torch.arange(like.shape[self.dim], device=values.device)
            values = values[place // self.after % len(values)]
        shape = [1] * like.dim()
        shape[self.dim], shape[channel_dim] = values.shape
        flipped = self.dim > channel_dim % like.dim()
        return (values.T if flipped else values).reshape(shape)

    def _beside(self, x: torch.Tensor, channel_dim: int) -> int:
        """The dimension of the samples once channels are last."""
        return self.dim - int(self.dim > channel_dim % x.dim())

    def _sample_first(self, moved: torch.Tensor, at: int) -> tuple[torch.Tensor, int]:
        """Samples in dimension 0, and where they came from."""
        if self.before * self.after > 1:
            moved, at = moved.unflatten(at, (self.before, -1, self.after)), at + 1
        return moved.movedim(at, 0), at


SAMPLES_FIRST = SampleAxis()
Reading = tuple[str, int]  # the value's node, and the dimension of its channels


def sample_axes(
    graph: fx.GraphModule, readings: Iterable[Reading], inputs: tuple[torch.Tensor, ...]
) -> dict[Reading, SampleAxis | None]:
    """Where the samples are in each value, None where that cannot be told.

    Args:
        graph: in evaluation form.
        inputs: a batch, samples in dimension 0.
    """
    wanted = list(dict.fromkeys(readings))
    names = {name for name, _ in wanted}
    free = any(_symbolic(n.meta.get("val")) for n in graph.graph.nodes if n.op == "placeholder")
    count = len(inputs[0])
    if free:
        count, chosen = PROBE, torch.tensor(CHOSEN)
        inputs = _take(inputs, torch.linspace(0, len(inputs[0]) - 1, PROBE).round().long())
    else:
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = _values(graph, names, inputs)
        try:
            second = _values(graph, names, _take(inputs, chosen))
        except (RuntimeError, ValueError):  # the graph wants another number: an order of as many
            chosen = torch.tensor([2, 0, 3, 1])
            second = _values(graph, names, _take(inputs, chosen))
    return {(name, dim): _axis(first[name], second[name], dim, count, chosen) for name, dim in wanted}


def _axis(
    first: torch.Tensor, second: torch.Tensor, channel_dim: int, count: int, chosen: torch.Tensor
) -> SampleAxis | None:
    """The division of one dimension under which `second` is the chosen samples of `first`."""
    dims = [d for d in range(first.dim()) if d != channel_dim % first.dim() and first.shape[d] % count == 0]
    if len(chosen) < count:
        changed = [d for d in range(first.dim()) if first.shape[d] != second.shape[d]]
        dims = [d for d in dims if changed == [d] and second.shape[d] * count == first.shape[d] * len(chosen)]
        if dims and first.shape[dims[0]] == count:
            return SampleAxis(dims[0])
    elif first.shape != second.shape:
        return None
    a, b = first.double(), second.double()
    scale = float(a.abs().max()) if a.numel() else 0.0
    best: SampleAxis | None = None
    least = TOLERANCE * scale
    for dim in dims:
        rest = first.shape[dim] // count
        for after in (n for n in range(rest, 0, -1) if rest % n == 0):  # sample-first before the others
            parts = a.unflatten(dim, (rest // after, count, after)).index_select(dim + 1, chosen)
            error = float((parts.flatten(dim, dim + 2) - b).abs().max()) if b.numel() else 0.0
            if error < least - 1e-6 * scale or (best is None and error <= least):
                best, least = SampleAxis(dim, rest // after, after), error
    return best


def _values(
    graph: fx.GraphModule, names: set[str], inputs: tuple[torch.Tensor, ...]
) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}

    def record(node: fx.Node, value: Any) -> Any:
        if node.name in names:
            seen[node.name] = value.cpu()
        return value

    execute(graph, inputs, after=record)
    return seen


def _take(inputs: tuple[torch.Tensor, ...], rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x[rows.to(x.device)] if x.dim() else x for x in inputs)


def _symbolic(val: Any) -> bool:
    return isinstance(val, torch.Tensor) and val.dim() > 0 and isinstance(val.shape[0], torch.SymInt)
