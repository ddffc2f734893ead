"""Run a Trace over data: outputs as arrays, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset, iterate
from edgeprune.model.trace import run

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
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """The first output of the graph for every sample, shape (samples, …)."""
    found = []
    with torch.no_grad():
        for inputs, _ in batches(dataset, indices, batch_size):
            found.append(run(graph, inputs)[0].float().numpy())
            if progress:
                progress(sum(len(f) for f in found), len(indices))
    return np.concatenate(found)


def reference(
    graph: fx.GraphModule,
) -> Callable[[tuple[npt.NDArray[np.generic], ...]], tuple[npt.NDArray[np.generic], ...]]:
    """The graph as a function on arrays, for parity."""

    def call(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return tuple(x.numpy() for x in run(graph, tensors(inputs)))

    return call
