"""Run a Trace over data: outputs as arrays, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset, iterate
from edgeprune.graph.compute import CPU, Compute, in_memory
from edgeprune.graph.trace import run

Arrays = tuple[npt.NDArray[np.generic], ...]


def tensors(inputs: Arrays) -> tuple[torch.Tensor, ...]:
    """A batch of arrays as tensors."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)


def batches(
    dataset: Dataset, indices: npt.NDArray[np.int64], batch_size: int
) -> Iterator[tuple[tuple[torch.Tensor, ...], npt.NDArray[np.int64] | None]]:
    """Batches of input tensors with their labels, in order."""
    for inputs, labels in iterate(dataset, indices, batch_size):
        yield tensors(inputs), labels


def outputs(
    graph: fx.GraphModule,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int,
    *,
    compute: Compute = CPU,
    progress: Callable[[int, int], None] | None = None,
) -> Arrays:
    """All outputs of the graph for some samples, samples first; one array per output, in float32.

    The ranks of `compute` share the samples, and each gets all outputs. Where the accelerator's memory does
    not hold a batch, smaller ones are taken, with a warning.
    """
    placed = compute.place(graph)
    size = -(-len(indices) // batch_size)  # batches; ranks share whole ones, so that none changes its bits
    mine = compute.ranks.slice_of(size)
    rows = indices[mine.start * batch_size : mine.stop * batch_size]

    def attempt(smaller: int) -> Arrays:
        return _outputs(placed, dataset, rows, smaller, compute, progress)

    parts = compute.ranks.gather(lambda: in_memory(attempt, batch_size, "outputs") if len(rows) else ())
    return tuple(np.concatenate(column) for column in zip(*filter(None, parts), strict=True))


def _outputs(
    placed: fx.GraphModule,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int,
    compute: Compute,
    progress: Callable[[int, int], None] | None,
) -> Arrays:
    parts: list[Arrays] = []
    done = 0
    with torch.no_grad():
        for inputs, _ in batches(dataset, indices, batch_size):
            size = len(inputs[0])
            results = run(placed, compute.put(inputs))
            parts.append(tuple(samples_first(x, size).cpu().numpy() for x in results))
            done += size
            if progress:
                progress(done, len(indices))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def samples_first(x: torch.Tensor, samples: int) -> torch.Tensor:
    """An output with its samples in dimension 0; floats as float32.

    Sequence models may put samples second. What holds no samples, such as a table of anchors, is the same
    for each of them.
    """
    x = x.float() if x.is_floating_point() else x
    if x.dim() and len(x) == samples:
        return x
    if x.dim() > 1 and x.shape[1] == samples:
        return x.transpose(0, 1)
    return x.expand(samples, *x.shape)


def reference(
    graph: fx.GraphModule,
) -> Callable[[tuple[npt.NDArray[np.generic], ...]], tuple[npt.NDArray[np.generic], ...]]:
    """The graph as a function on arrays, for parity."""

    def call(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return tuple(x.numpy() for x in run(graph, tensors(inputs)))

    return call
